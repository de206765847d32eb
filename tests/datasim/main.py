"""script/sim: many lives of a pair, each from one seed.

  script/sim [--seeds N] [--seconds S] [--first S]     from seed S on, until either is used up
  script/sim --seed S --trace                          one life, step by step

A run of the default size fails when a rule of decide(), a step of the choreography or a fault was never visited.
"""

import argparse
import itertools
import sys
import time
from collections import Counter
from pathlib import Path

from tests.datasim import walk as walking
from tests.datasim.coverage import Counted, missing
from tests.datasim.oracle import Violation
from tests.datasim.walk import Walk, walk

DEFAULT_SEEDS = 2000
KEPT = Path(__file__).with_name("kept_seeds")


def kept_seeds() -> list[int]:
    """What once found something, each with a word why."""
    lines = (line.split("#")[0].strip() for line in KEPT.read_text().splitlines())
    return [int(line) for line in lines if line]


def one(seed: int) -> int:
    """With all its steps."""
    walking.SHOWN = 1 << 30
    world = Walk(seed)
    try:
        world.live()
    except Violation as violation:
        print("\n".join(world.trace))
        print(f"seed {seed} ({world.policy}): {violation}")
        return 1
    print("\n".join(world.trace))
    print(f"seed {seed} ({world.policy}): every promise was kept")
    return 0


def many(first: int, seeds: int, seconds: float) -> int:
    """Kept seeds first. 1 when a promise was broken, or, in a run of the default size, something was never visited."""
    began, seen, failed, done = time.monotonic(), Counter[str](), 0, 0
    queue = itertools.chain(kept_seeds(), range(first, first + seeds))
    with Counted(seen):
        for seed in queue:
            if time.monotonic() - began > seconds:
                break
            done += 1
            try:
                seen += walk(seed)
            except Violation as violation:
                failed += 1
                print(violation)
                if failed == 5:
                    break
    took = time.monotonic() - began
    acknowledged = seen["acked mirrored"] + seen["acked marked"]
    faults = sum(count for name, count in seen.items() if name.startswith("fault"))
    print(f"{done} seeds in {took:.0f} s ({done / took:.0f} a second), {failed} failed; {acknowledged} ops acknowledged, {faults} faults")
    never = missing(seen) if done >= DEFAULT_SEEDS else []
    for name in never:
        print(f"never visited: {name}")
    return 1 if failed or never else 0


def main() -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="script/sim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--trace", action="store_true", help="of the one seed")
    given = parser.parse_args()
    if given.seed is not None:
        return one(given.seed)
    seeds = given.seeds if given.seeds is not None else DEFAULT_SEEDS if given.seconds is None else 1 << 40
    return many(given.first, seeds, given.seconds if given.seconds is not None else 1e9)


if __name__ == "__main__":
    sys.exit(main())

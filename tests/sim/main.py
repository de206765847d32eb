"""script/sim --cores: many lives of two hactld, each from one seed; every other one with the product's own loops (runners.py).

  script/sim --cores [--seeds N] [--seconds S] [--first S]     from seed S on, until either is used up
  script/sim --cores --seed S --trace                          the four lives of one seed, step by step
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator

from tests.sim import cluster
from tests.sim.runners import play
from tests.sim.walk import walk

DEFAULT_SEEDS = 500
FAILURES_MAX = 5

Life = tuple[str, Callable[[], object]]


def lives(seed: int) -> Iterator[Life]:
    """Of one seed: with a witness and without, with runners and without."""
    for witness in (False, True):
        word = "with a witness" if witness else "by policy"
        yield f"seed {seed}, {word}", lambda witness=witness: walk(seed, witness)  # type: ignore[misc]
        yield f"seed {seed}, {word}, with runners", lambda witness=witness: play(seed, witness)  # type: ignore[misc]


def traced(seed: int) -> int:
    """All steps of them."""
    kept: list[cluster.Cluster] = []
    make = cluster.Cluster.__init__

    def keep(self: cluster.Cluster, *given: object, **more: object) -> None:
        make(self, *given, **more)  # type: ignore[arg-type]
        kept.append(self)

    cluster.Cluster.__init__ = keep  # type: ignore[method-assign]
    failed = 0
    for name, life in lives(seed):
        verdict = "every promise was kept"
        try:
            life()
        except AssertionError as violation:
            verdict, failed = str(violation).partition("\n")[0], 1
        print("\n".join(kept[-1].trace))
        print(f"{name}: {verdict}")
    return failed


def many(first: int, seeds: int, seconds: float) -> int:
    """1 when something was found."""
    began, done, failed = time.monotonic(), 0, 0
    for name, life in itertools.chain.from_iterable(lives(seed) for seed in range(first, first + seeds)):
        if time.monotonic() - began > seconds or failed == FAILURES_MAX:
            break
        done += 1
        try:
            life()
        except AssertionError as violation:
            failed += 1
            print(f"{name}: {violation}")
    took = time.monotonic() - began
    print(f"{done} lives of two hactld in {took:.0f} s ({done / took:.0f} a second), {failed} failed")
    return 1 if failed else 0


def main() -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="script/sim --cores", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--trace", action="store_true", help="of the one seed")
    given = parser.parse_args()
    if given.seed is not None:
        return traced(given.seed)
    seeds = given.seeds if given.seeds is not None else DEFAULT_SEEDS if given.seconds is None else 1 << 40
    return many(given.first, seeds, given.seconds if given.seconds is not None else 1e9)


if __name__ == "__main__":
    sys.exit(main())

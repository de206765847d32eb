"""Power cuts, as many as asked for. `script/powercut` runs this in a mount namespace of its own."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.powercut import way_back
from tests.powercut.campaign import Campaign, campaign
from tests.powercut.cut import Control
from tests.powercut.disk import CannotRunHere, check_machine
from tests.powercut.pair import Tally, Violation
from tests.powercut.static import Found, Looker

ROUNDS, REVIVALS, STATES = 4, 4, 150  # of one life, when states are counted
BATCH = 20
CONTROL_STATES = 20
SHARES = (0.4, 0.6, 0.85)  # of the time, when time is counted: rounds until here, revivals until here, states until here


@dataclass(slots=True)
class Total:
    """Of all lives."""

    lives: int = 0
    tally: Tally = field(default_factory=Tally)
    found: Found = field(default_factory=Found)
    controls: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, tally: Tally) -> None:
        self.lives += 1
        self.tally.cuts += tally.cuts
        for name in ("starts", "rejoins", "operations", "syncs"):
            setattr(self.tally, name, getattr(self.tally, name) + getattr(tally, name))

    def as_dict(self) -> dict[str, object]:
        tally, found = self.tally, self.found
        return {
            "lives": self.lives, "states_looked_at": found.states, "cuts_lived": dict(tally.cuts), "starts": tally.starts,
            "rejoins_proved": tally.rejoins, "operations": tally.operations, "syncs": tally.syncs, "violations": len(found.wrong),
            "decided": dict(found.sources), "controls": {name: dict(kinds) for name, kinds in self.controls.items()},
        }  # fmt: skip


def live(seed: str, kind: str, plan: Plan, total: Total) -> None:
    """One life, and the look back."""
    with campaign(seed, kind) as life:
        life.begin()
        for _ in plan.rounds():
            life.round()
            say(f"{seed}: round, cuts so far {dict(life.tally.cuts)}")
        life.end()
        for _ in plan.revivals():
            life.revive()
        say(f"{seed}: {life.tally.cuts['both, recorded']} recorded states brought to life")
        look(life, seed, plan, total)
        if not total.controls:
            look_for_controls(life, seed, total)
    total.add(life.tally)


def go_back_often(seed: str, states: int) -> None:
    """Prints how often the target of a resync was cut where, and found its way back each time."""
    found: Counter[str] = Counter()
    with campaign(seed, "xfs") as life:
        resync = way_back.live(life)
        for _ in range(states):
            found[way_back.go_back(life, resync)] += 1
    print(json.dumps({"states": states, "found": found}))


def look(life: Campaign, seed: str, plan: Plan, total: Total) -> None:
    """Thousands of states, in batches: each goes through the life once, from its beginning to its end."""
    for number, states in enumerate(plan.batches()):
        with Looker(life.disks, life.directory, life.kind) as looker:
            looker.look(life.phases, states, random.Random(f"look {seed} {number}"), total.found)
    say(f"{seed}: {total.found.states} states looked at, {len(total.found.wrong)} violations")
    if total.found.wrong:
        raise Violation("\n".join(sentence[:1000] for sentence in total.found.wrong[:4]))


def look_for_controls(life: Campaign, seed: str, total: Total) -> None:
    """The same on disks that break their promise: if nothing is found there, nothing above was worth anything."""
    for control in (Control.REORDERS, Control.FORGETS):
        found = Found()
        with Looker(life.disks, life.directory, life.kind, control) as looker:
            looker.look(life.phases, CONTROL_STATES, random.Random(f"{control} {seed}"), found)
        total.controls[control.value] = found.kinds


@dataclass(slots=True)
class Plan:
    """How much: by numbers, or by time."""

    states: int
    deadlines: tuple[float, float, float] | None = None

    @classmethod
    def of_seconds(cls, seconds: float) -> Plan:
        now = time.monotonic()
        first, second, third = (now + seconds * share for share in SHARES)
        return cls(0, (first, second, third))

    def rounds(self) -> Iterator[int]:
        return self._steps(ROUNDS, 0)

    def revivals(self) -> Iterator[int]:
        return self._steps(REVIVALS, 1)

    def batches(self) -> Iterator[int]:
        if self.deadlines is None:
            yield self.states
        else:
            for _ in self._steps(0, 2):
                yield BATCH

    def _steps(self, count: int, stage: int) -> Iterator[int]:
        """At least one."""
        if self.deadlines is None:
            yield from range(count)
            return
        number = 0
        while number == 0 or time.monotonic() < self.deadlines[stage]:
            yield number
            number += 1


_began = time.monotonic()


def say(text: str) -> None:
    print(f"powercut: {time.monotonic() - _began:6.1f} s  {text}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """0: nothing was lost, and the controls were caught. 3: cannot run here."""
    parser = argparse.ArgumentParser(prog="script/powercut", description=__doc__, allow_abbrev=False)
    parser.add_argument("--states", type=int, default=300, metavar="N", help="look at N states (default 300)")
    parser.add_argument("--seconds", type=float, metavar="S", help="one life of about S seconds instead")
    parser.add_argument("--seed", default="", help="repeats all choices, though not the timing (default: by chance, and said)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="start both nodes on the a.img and b.img that a failure left there")
    parser.add_argument("--way-back", type=int, metavar="N", help="N cuts within a resync whose source is gone for good (on xfs)")
    parser.add_argument("--fs", choices=("ext4", "xfs"), default="ext4")
    options = parser.parse_args(arguments)
    seed = options.seed or f"{random.SystemRandom().randrange(1 << 32):08x}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        check_machine()
        say(f"seed {seed}")
        total = Total()
        if options.images:
            with campaign(seed, options.fs) as life:
                life.start_images(options.images)
        elif options.way_back:
            go_back_often(seed, options.way_back)
            return 0
        elif options.seconds:
            live(seed, options.fs, Plan.of_seconds(options.seconds), total)
        else:
            left = options.states
            while left > 0:
                live(f"{seed}.{total.lives}", options.fs, Plan(min(left, STATES)), total)
                left -= STATES
    except CannotRunHere as reason:
        print(f"skipped: {reason}")
        return 3
    except (AssertionError, OSError) as failure:
        traceback.print_tb(failure.__traceback__)
        print(f"VIOLATION, seed {seed}: {failure}\n" + "\n".join(getattr(failure, "__notes__", [])))
        return 1
    missed = [name for name, kinds in total.controls.items() if not kinds["lost"]]
    for name in missed:
        print(f"CONTROL NOT CAUGHT, seed {seed}: a disk that {name} lost nothing that was noticed")
    print(json.dumps(total.as_dict()))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())

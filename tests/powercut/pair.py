"""A pair on logged disks: its power switches, its application, what it owes, and the phases of its life.

What happens to it, and when, is decided in campaign.py.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.lab.trees import Manifest, differences
from tests.powercut.cut import Images
from tests.powercut.disk import STATE, Disk, Disks, make_file_system, tool
from tests.powercut.ledger import Needs
from tests.powercut.node import DEADLINE_S, Hung, Node, free_address, wait_for
from tests.powercut.oracle import below, check, check_unchanged
from tests.powercut.static import NAMES, Account, Phase

GUARDED = 0.85  # of all boots: those after which marks are enough
KEPT_ROUNDS = 2  # of an application's rounds, those that are looked at again; older ones it deletes


class Violation(AssertionError):
    """A promise that was broken."""


@dataclass(slots=True)
class Tally:
    """What was done."""

    cuts: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    rejoins: int = 0
    operations: int = 0
    syncs: int = 0


@dataclass(slots=True)
class Job:
    """A workload that runs."""

    process: subprocess.Popen[bytes]
    account: Account
    stop: Path


class Pair:
    """Two nodes, one of them primary."""

    def __init__(self, directory: Path, places: Path, disks: Disks, seed: str, kind: str) -> None:
        self.directory, self.disks, self.kind = directory, disks, kind
        self.tally = Tally()
        self.phases: list[Phase] = []
        self.chance = random.Random(f"life {seed}")
        self.seed = seed
        addresses = free_address(), free_address()
        self.nodes = {"a": Node(directory, places, "a", *addresses), "b": Node(directory, places, "b", *reversed(addresses))}
        self.primary = "a"
        self.accounts: list[Account] = []  # of what is not known to be on both disks
        self.unchanged: Manifest = {}
        self.stopped: dict[str, int] = {}
        self.disk_of: dict[str, Disk] = {}
        self.job: Job | None = None
        self._round = 0
        self.events: list[str] = []

    @property
    def secondary(self) -> str:
        return "b" if self.primary == "a" else "a"

    @property
    def story(self) -> str:
        return ", ".join(self.events)

    def begin(self) -> None:
        """Two new disks and the first copy."""
        for name, role in (("a", "primary"), ("b", "secondary")):
            template = self.directory / f"new-{name}.img"
            make_file_system(template, self.kind, filled=name == "a")
            self.disk_of[name] = self.disks.new(template)
            self.power_on(name, role)
        self.await_pair()
        self.phase(is_paired=True)

    def end(self) -> None:
        """Both in order."""
        self.close_phase()
        self.nodes[self.secondary].stop()
        self.nodes[self.primary].stop()

    # ---- power ---------------------------------------------------------------------------------------------------------------------------

    def power_on(self, name: str, role: str) -> None:
        self.stopped.pop(name, None)
        self.nodes[name].start(self.disk_of[name], role, guards=self.chance.random() < GUARDED)
        self.tally.starts += 1

    def power_off(self, *names: str) -> int:
        """The instant of the cut. A primary goes first: what it tells its application after the cut would have been told before."""
        ordered = sorted((name for name in names if self.nodes[name].is_on), key=lambda name: name != self.primary)
        for name in ordered:
            self.nodes[name].cut()
        cut = self.disks.clock.now()
        self.close_phase(cut)
        for name in ordered:
            self.stopped[name] = cut
        if self.primary in ordered:
            self.end_job(cut)
        return cut

    def restore(self, name: str) -> None:
        """A new disk with what the cut has left of the old one."""
        self.await_released(self.disk_of[name])
        image = self.directory / f"{name}.img"
        images = Images(self.disks.log, self.disk_of[name], self.directory, self.kind)
        images.build(image, self.stopped[name], self.chance)
        images.close()
        self.disk_of[name] = self.disks.new(image)

    def await_released(self, disk: Disk) -> None:
        wait_for(
            f"{disk.path} is released", lambda: str(disk.path) not in tool("losetup", "--list", "--noheadings", "--output", "BACK-FILE")
        )

    def until_serving(self, name: str, *, must: bool) -> bool:
        """A node that was itself just back, and is not the one with the data, waits for its peer instead."""
        try:
            wait_for(f"{name} serves alone", lambda: self.serves_alone(name), DEADLINE_S if must else 4.0)
        except Hung:
            if must:
                raise
            self.say(f"{name} waits")
            return False
        return True

    def serves_alone(self, name: str) -> bool:
        return self.nodes[name].is_so(mode="alone") or self.nodes[name].is_so(mode="unused")

    # ---- being complete ------------------------------------------------------------------------------------------------------------------

    def await_pair(self) -> None:
        def paired() -> bool:
            return all(self.nodes[name].is_so(link="paired", data="UPTODATE") for name in NAMES)

        try:
            wait_for("paired", paired)
        except Hung as late:
            shown = {
                name: {key: node.status().get(key) for key in ("role", "link", "data", "mode", "reason")}
                for name, node in self.nodes.items()
            }
            raise Hung(f"{late}: {shown}") from late
        self.find_primary()
        self.tally.rejoins += 1

    def find_primary(self) -> None:
        """As the nodes say: after a cut of both they agree on it by themselves."""
        serving = [
            name for name in NAMES if self.nodes[name].is_on and (status := self.nodes[name].status()) and status["role"] == "primary"
        ]
        moded = [name for name in serving if self.nodes[name].is_so(mode="paired") or self.nodes[name].is_so(mode="resyncing")]
        if len(moded or serving) == 1:
            self.primary = (moded or serving)[0]

    def prove(self) -> None:
        """Nothing runs: the trees are equal, and hold what they owe. From now on, that is how they stay."""
        trees = {name: self.nodes[name].manifest() for name in NAMES}
        different = differences(trees[self.primary], trees[self.secondary])
        if different:
            raise Violation(f"the trees differ after the return: {different}")
        for name in NAMES:
            self.owe(name)
        for name in NAMES:
            tool("sync", "--file-system", str(self.nodes[name].inside / STATE))
        for account in self.accounts:
            self.tally.operations += account.ledger().operations
            self.tally.syncs += account.ledger().syncs
        rounds = {path.split("/")[1] for path in trees["a"] if "/r" in path}
        newest = sorted(rounds, key=lambda name: int(name[1:]))[-KEPT_ROUNDS:]
        self.unchanged = below(trees["a"], set(newest))
        self.accounts = []
        self.phase(is_paired=True)
        self.events = []

    def owe(self, name: str) -> None:
        """What this copy must hold now."""
        now = self.disks.clock.now()
        for account in self.accounts:
            if self.job is not None and account is self.job.account:
                continue  # looked at when it has ended
            wrong = check(self.nodes[name].inside, account.ledger(), account.until(now), account.needs)
            if wrong:
                raise Violation(f"{name} has lost what was {account.needs.value}: {wrong}")
        wrong = check_unchanged(self.nodes[name].inside, self.unchanged)
        if wrong:
            raise Violation(f"{name} shows old files changed: {wrong}")

    def forgive(self) -> None:
        """The memory of an only copy is gone: what was synced is owed, no more."""
        for account in self.accounts:
            account.needs = Needs.SYNCED

    # ---- the application -----------------------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """On the primary, in directories of its own; rounds that nobody looks at any more are deleted."""
        assert self.job is None
        node, name = self.nodes[self.primary], f"r{self._round}"
        self._round += 1
        stop, notes = self.directory / f"{name}.stop", self.directory / f"{name}.notes"
        notes.touch()
        old = self._old_rounds()
        self.unchanged = {path: described for path, described in self.unchanged.items() if path.split("/")[1] not in old}
        remove = [f"{directory}/{each}" for each in old for directory in ("data", "wal") if (node.inside / directory / each).exists()]
        words = [str(node.place), name, f"{self.seed} {name}", str(self.disks.log_path), str(notes), str(stop), *remove]
        account = Account(notes, {name})
        self.accounts.append(account)
        self.phase(is_paired=bool(self.phases) and self.phases[-1].is_paired)
        self.job = Job(node.spawn(sys.executable, "-m", "tests.powercut.workload", *words), account, stop)

    def _old_rounds(self) -> list[str]:
        kept = {round_ for account in self.accounts for round_ in account.rounds}
        there = {entry.name for directory in ("data", "wal") for entry in (self.nodes[self.primary].inside / directory).iterdir()}
        numbered = sorted((name for name in there if name.startswith("r") and name not in kept), key=lambda name: int(name[1:]))
        return numbered[:-KEPT_ROUNDS]

    def end_job(self, cut: int | None = None) -> None:
        """It stops by itself when its node is dead; else it is asked to, and nothing may have failed."""
        job, self.job = self.job, None
        if job is None:
            return
        job.account.cut = cut
        job.stop.touch()
        try:
            code = job.process.wait(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired as late:
            job.process.kill()
            raise Hung("the application hangs") from late
        errors = job.account.ledger().errors
        if code != 0 or (cut is None and errors):
            raise Violation(f"the application was told of errors (exit code {code}): {errors[:3]}")

    # ---- notes ---------------------------------------------------------------------------------------------------------------------------

    def phase(self, *, is_paired: bool) -> None:
        now = self.disks.clock.now()
        self.close_phase(now)
        if len(self.stopped) < len(NAMES):
            stopped, disks = dict(self.stopped), dict(self.disk_of)
            self.phases.append(Phase(now, disks, stopped, is_paired, list(self.accounts), dict(self.unchanged)))

    def close_phase(self, cut: int | None = None) -> None:
        if self.phases and not self.phases[-1].end:
            self.phases[-1].end = self.disks.clock.now() if cut is None else cut

    def sleep(self, low_s: float, high_s: float) -> None:
        time.sleep(self.chance.uniform(low_s, high_s))

    def say(self, what: str) -> None:
        self.events.append(what)

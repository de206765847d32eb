"""One long life of a pair: it works, loses power at some instant, here, there or on both, comes back, works on; and then looks back.

Each cut builds the dead node's disk anew from what had reached it (cut.py) and starts a new rfsmount on that. After each return the two
trees must be equal and hold what they owe. In the end, states of the whole recorded run are looked at (static.py), and some of them are
brought to life (`revive`).
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.lab.trees import Manifest, differences
from rfs.errors import SaidNo
from tests.powercut.cut import Images
from tests.powercut.disk import STATE, Disk, Disks, make_file_system, tool, workplace
from tests.powercut.ledger import Needs
from tests.powercut.node import DEADLINE_S, Hung, Node, free_address, wait_for
from tests.powercut.oracle import below, check, check_unchanged
from tests.powercut.static import NAMES, Account, Phase

WORK_S = (0.3, 1.6)  # how long the application runs before a cut
KEPT_ROUNDS = 2


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
    seconds: float = 0.0


@dataclass(slots=True)
class Job:
    """A workload that runs."""

    process: subprocess.Popen[bytes]
    account: Account
    stop: Path


class Campaign:
    """See the module's text. Made by `campaign`, which also takes everything apart again."""

    def __init__(self, directory: Path, places: Path, disks: Disks, seed: str, kind: str) -> None:
        self.directory, self.disks, self.kind = directory, disks, kind
        self.tally = Tally()
        self.phases: list[Phase] = []
        self.chance = random.Random(f"life {seed}")
        self.seed = seed
        addresses = free_address(), free_address()
        self.nodes = {"a": Node(directory, places, "a", *addresses), "b": Node(directory, places, "b", *reversed(addresses))}
        self.primary = "a"
        self._template = directory / "template.img"
        self._accounts: list[Account] = []  # of what is not known to be on both disks
        self._unchanged: Manifest = {}
        self._stopped: dict[str, int] = {}
        self._disk_of: dict[str, Disk] = {}
        self._job: Job | None = None
        self._round = 0
        self._story: list[str] = []

    @property
    def secondary(self) -> str:
        return "b" if self.primary == "a" else "a"

    @property
    def story(self) -> str:
        return ", ".join(self._story)

    # ---- the life -----------------------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Two new disks and the first copy."""
        make_file_system(self._template, self.kind)
        for name, role in (("a", "primary"), ("b", "secondary")):
            self._disk_of[name] = self.disks.new(self._template)
            self._power_on(name, role)
        self._await_pair()
        self._phase(is_paired=True)

    def round(self) -> None:
        """Work, a cut, perhaps another one before the pair is complete again, the return; and the proof."""
        self._work()
        self._sleep(*WORK_S)
        self._cut(self.chance.choice(("secondary", "primary", "both", "successive")))
        while not self._returned():
            self._cut(self.chance.choice(("secondary", "primary", "both")))
        self._phase(is_paired=True)
        if self._job is None and self.chance.random() < 0.5:
            self._work()
        self._sleep(0.1, 0.5)
        self._end_job()
        self._prove()

    def end(self) -> None:
        """Both in order."""
        self._close_phase()
        self.nodes[self.secondary].stop()
        self.nodes[self.primary].stop()

    # ---- power --------------------------------------------------------------------------------------------------------------------------

    def _power_on(self, name: str, role: str) -> None:
        self._stopped.pop(name, None)
        self.nodes[name].start(self._disk_of[name], role)
        self.tally.starts += 1

    def _power_off(self, *names: str) -> int:
        """The instant of the cut. A primary goes first: what it tells its application after the cut would have been told before."""
        ordered = sorted((name for name in names if self.nodes[name].is_on), key=lambda name: name != self.primary)
        for name in ordered:
            self.nodes[name].cut()
        cut = self.disks.clock.now()
        self._close_phase(cut)
        for name in ordered:
            self._stopped[name] = cut
        if self.primary in ordered:
            self._end_job(cut)
        return cut

    def _restore(self, name: str) -> None:
        """A new disk with what the cut has left of the old one."""
        self._await_released(self._disk_of[name])
        image = self.directory / f"{name}.img"
        images = Images(self.disks.log, self._disk_of[name], self.directory)
        images.build(image, self._stopped[name], self.chance)
        images.close()
        self._disk_of[name] = self.disks.new(image)

    def _await_released(self, disk: Disk) -> None:
        wait_for(f"{disk.path} is released", lambda: str(disk.path) not in tool("losetup", "--list", "--noheadings", "--output", "BACK-FILE"))

    def _cut(self, what: str) -> None:
        """Cut, go on with what is left, and power on again; whether the pair gets complete is another matter."""
        self._say(f"cut {what}")
        self.tally.cuts[what] += 1
        if what == "secondary":
            was_complete = self.phases[-1].is_paired
            self._power_off(self.secondary)
            self._phase(is_paired=False)
            self._until_serving(self.primary, must=was_complete)
            self._sleep(0.0, 1.0)
            self._restore(self.secondary)
            self._power_on(self.secondary, "secondary")
        elif what == "primary":
            self._power_off(self.primary)
            self._phase(is_paired=False)
            if self._take_over():
                self._sleep(0.0, 1.0)
            else:
                self._forgive()
            back = self.secondary if self.nodes[self.primary].is_on else self.primary
            self._restore(back)
            self._power_on(back, "secondary")
        elif what == "successive":
            self._power_off(self.primary)
            self._phase(is_paired=False)
            if not self._take_over():
                raise Violation(f"{self.secondary} was complete and cannot be promoted: {self.nodes[self.secondary].status()}")
            self._sleep(0.0, 0.8)
            self._power_off(self.primary)
            self._forgive()
            self._both_return(stale=self.secondary)
        else:
            self._power_off("a", "b")
            self._forgive()
            self._both_return()
        self._phase(is_paired=False)

    def _both_return(self, stale: str = "") -> None:
        """In either order. The stale one, which another went on without, must never serve by itself."""
        order = list(NAMES)
        self.chance.shuffle(order)
        for name in order:
            self._restore(name)
        pause_s = self.chance.choice((0.0, 0.0, 1.5))
        self._say(f"return {order[0]}, {pause_s} s, {order[1]}")
        for name in order:
            self._power_on(name, "primary" if name == self.primary else "secondary")
            time.sleep(pause_s if name == order[0] else 0)
            if name == order[0] == stale and self._serves_alone(stale):
                raise Violation(f"{stale} serves alone, though {self.primary} went on without it")

    def _take_over(self) -> bool:
        """The other node goes on, if it may: by a person's word, as there is no orchestrator here."""
        other = self.secondary
        node = self.nodes[other]
        wait_for(f"{other} has lost its peer", lambda: bool(node.status()) and node.status()["link"] not in ("paired", "resyncing", "handshaking"))
        try:
            node.call("promote", force=False, granted=True, reason="the peer lost power")
        except SaidNo as refusal:
            self._say(f"{other} is not promoted: {refusal.sentence[:60]}")
            return False
        self.primary = other
        self._until_serving(other, must=True)
        self._owe(other)
        self._work()
        return True

    def _until_serving(self, name: str, *, must: bool) -> None:
        """A node that was itself just back, and had not met its peer yet, waits for it instead."""
        try:
            wait_for(f"{name} serves alone", lambda: self._serves_alone(name), DEADLINE_S if must else 4.0)
        except Hung:
            if must:
                raise
            self._say(f"{name} waits")

    def _serves_alone(self, name: str) -> bool:
        return self.nodes[name].is_so(mode="alone") or self.nodes[name].is_so(mode="unused")

    # ---- being complete again -------------------------------------------------------------------------------------------------------------

    def _returned(self) -> bool:
        """Wait for the pair; or, at times, stop waiting: then the next cut comes within the resync."""
        if self.chance.random() < 0.35 and len(self._story) < 12:
            self._sleep(0.2, 1.6)  # from the start of a process to the pair it is about a second
            self._find_primary()
            return False
        self._await_pair()
        return True

    def _await_pair(self) -> None:
        def paired() -> bool:
            return all(self.nodes[name].is_so(link="paired", data="UPTODATE") for name in NAMES)

        try:
            wait_for("paired", paired)
        except Hung as late:
            shown = {name: {key: node.status().get(key) for key in ("role", "link", "data", "mode", "reason")} for name, node in self.nodes.items()}
            raise Hung(f"{late}: {shown}") from late
        self._find_primary()
        self.tally.rejoins += 1

    def _find_primary(self) -> None:
        """As the nodes say: after a cut of both they agree on it by themselves."""
        serving = [name for name in NAMES if self.nodes[name].is_on and (status := self.nodes[name].status()) and status["role"] == "primary"]
        moded = [name for name in serving if self.nodes[name].is_so(mode="paired") or self.nodes[name].is_so(mode="resyncing")]
        if len(moded or serving) == 1:
            self.primary = (moded or serving)[0]

    def _prove(self) -> None:
        """Nothing runs: the trees are equal, and hold what they owe. From now on, that is how they stay."""
        trees = {name: self.nodes[name].manifest() for name in NAMES}
        different = differences(trees[self.primary], trees[self.secondary])
        if different:
            raise Violation(f"the trees differ after the return: {different}")
        for name in NAMES:
            self._owe(name)
        for name in NAMES:
            tool("sync", "--file-system", str(self.nodes[name].inside / STATE))
        for account in self._accounts:
            self.tally.operations += account.ledger().operations
            self.tally.syncs += account.ledger().syncs
        rounds = {path.split("/")[1] for path in trees["a"] if "/" in path}
        newest = sorted(rounds, key=lambda name: int(name[1:]))[-KEPT_ROUNDS:]
        self._unchanged = below(trees["a"], set(newest))
        self._accounts = []
        self._phase(is_paired=True)
        self._story = []

    def _owe(self, name: str) -> None:
        """What this copy must hold now."""
        now = self.disks.clock.now()
        for account in self._accounts:
            if self._job is not None and account is self._job.account:
                continue  # looked at when it has ended
            wrong = check(self.nodes[name].inside, account.ledger(), account.until(now), account.needs)
            if wrong:
                raise Violation(f"{name} has lost what was {account.needs.value}: {wrong}")
        wrong = check_unchanged(self.nodes[name].inside, self._unchanged)
        if wrong:
            raise Violation(f"{name} shows old files changed: {wrong}")

    def _forgive(self) -> None:
        """The memory of an only copy is gone: what was synced is owed, no more."""
        for account in self._accounts:
            account.needs = Needs.SYNCED

    # ---- the application ------------------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """On the primary, in directories of its own; rounds that nobody looks at any more are deleted."""
        assert self._job is None
        node, name = self.nodes[self.primary], f"r{self._round}"
        self._round += 1
        stop, notes = self.directory / f"{name}.stop", self.directory / f"{name}.notes"
        notes.touch()
        old = self._old_rounds()
        self._unchanged = {path: described for path, described in self._unchanged.items() if path.split("/")[1] not in old}
        remove = [f"{directory}/{each}" for each in old for directory in ("data", "wal") if (node.inside / directory / each).exists()]
        words = [str(node.place), name, f"{self.seed} {name}", str(self.disks.log_path), str(notes), str(stop), *remove]
        account = Account(notes, {name})
        self._accounts.append(account)
        self._phase(is_paired=bool(self.phases) and self.phases[-1].is_paired)
        self._job = Job(node.spawn(sys.executable, "-m", "tests.powercut.workload", *words), account, stop)

    def _old_rounds(self) -> list[str]:
        kept = {round_ for account in self._accounts for round_ in account.rounds}
        there = {entry.name for directory in ("data", "wal") for entry in (self.nodes[self.primary].inside / directory).iterdir()}
        numbered = sorted((name for name in there if name.startswith("r") and name not in kept), key=lambda name: int(name[1:]))
        return numbered[:-KEPT_ROUNDS]

    def _end_job(self, cut: int | None = None) -> None:
        """It stops by itself when its node is dead; else it is asked to, and nothing may have failed."""
        job, self._job = self._job, None
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

    # ---- looking back ---------------------------------------------------------------------------------------------------------------------

    def revive(self) -> None:
        """Both nodes, as a cut of both at any entry of the recorded life leaves them, come back: complete, equal, and holding what they owe."""
        phase = self.chance.choices(self.phases, [phase.end - phase.begin + 1 for phase in self.phases])[0]
        cut = self.chance.randint(phase.begin, phase.end)
        self._story = [f"revived at {cut}"]
        self.tally.cuts["both, recorded"] += 1
        for name in NAMES:
            disk = phase.disks[name]
            images = Images(self.disks.log, disk, self.directory)
            images.build(self.directory / f"{name}.img", min(cut, phase.stopped.get(name, cut)), self.chance)
            images.close()
            self._disk_of[name] = self.disks.new(self.directory / f"{name}.img")
        for name in self.chance.sample(NAMES, 2):
            self._power_on(name, "secondary")
        self._await_pair()
        trees = {name: self.nodes[name].manifest() for name in NAMES}
        different = differences(trees["a"], trees["b"])
        if different:
            raise Violation(f"the trees differ after the return: {different}")
        for name in NAMES:
            wrong = check_unchanged(self.nodes[name].inside, phase.unchanged)
            for account in phase.accounts:
                wrong += check(self.nodes[name].inside, account.ledger(), account.until(cut), Needs.SYNCED)
            if wrong:
                raise Violation(f"{name} has lost what was synced: {wrong}")
        for name in NAMES:
            self.nodes[name].cut()
            self._await_released(self._disk_of[name])
        self._story = []

    # ---- notes ----------------------------------------------------------------------------------------------------------------------------

    def _phase(self, *, is_paired: bool) -> None:
        now = self.disks.clock.now()
        self._close_phase(now)
        if len(self._stopped) < len(NAMES):
            stopped, disks = dict(self._stopped), dict(self._disk_of)
            self.phases.append(Phase(now, disks, stopped, is_paired, list(self._accounts), dict(self._unchanged)))

    def _close_phase(self, cut: int | None = None) -> None:
        if self.phases and not self.phases[-1].end:
            self.phases[-1].end = self.disks.clock.now() if cut is None else cut

    def _sleep(self, low_s: float, high_s: float) -> None:
        time.sleep(self.chance.uniform(low_s, high_s))

    def _say(self, what: str) -> None:
        self._story.append(what)


@contextmanager
def campaign(seed: str, kind: str = "ext4") -> Iterator[Campaign]:
    """A life in directories of its own; the logs stay when it ends badly."""
    directory = Path(tempfile.mkdtemp(prefix="lockstep-cut-", dir=workplace()))
    places = Path(tempfile.mkdtemp(prefix="lockstep-cut-", dir="/var/tmp"))  # nothing below /dev is data
    began = time.monotonic()
    try:
        with Disks(directory) as disks:
            life = Campaign(directory, places, disks, seed, kind)
            try:
                yield life
            except Exception as failure:
                failure.add_note(f"seed {seed}: {life.story}; the nodes' logs are in {directory}")
                raise
            finally:
                life.tally.seconds = time.monotonic() - began
                for node in life.nodes.values():
                    node.cut()
                if life._job is not None:
                    life._job.stop.touch()
                    life._job.process.wait(timeout=DEADLINE_S)
    except BaseException:
        for image in (*directory.glob("*/*.img"), directory / "log"):
            image.unlink(missing_ok=True)  # what is left: notes, the nodes' logs, and a.img and b.img of the last return
        raise
    finally:
        shutil.rmtree(places)  # nothing but mount points, in nobody's sight any more
    shutil.rmtree(directory)

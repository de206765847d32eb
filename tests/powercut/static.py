"""States that are only looked at: both disks as a cut at any entry may leave them, mounted, and what rfsmount would make of them.

Cheap, so there can be thousands: no rfsmount is started. Its own pure rules read the two records and say which copy would be the source;
that one must hold what was synced. While the pair was complete both must.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.lab.trees import Manifest
from rfs import rules
from rfs.decide import Outcome, Source, decide
from rfs.record import SLOT_BYTES, Record, choose
from tests.powercut.cut import Control, Images
from tests.powercut.disk import STATE, Disk, Disks, copy_sparse, tool
from tests.powercut.ledger import Ledger, Needs
from tests.powercut.oracle import check, check_unchanged

NAMES = ("a", "b")
UNCHANGED_EVERY = 4  # states: reading all old files takes as long as all the rest


@dataclass(slots=True)
class Account:
    """A workload's notes, and when its node was cut."""

    notes: Path
    rounds: set[str]
    cut: int | None = None
    needs: Needs = Needs.ACKNOWLEDGED  # of a copy that is looked at now; SYNCED once an only copy has lost its memory
    _read: Ledger | None = None

    def ledger(self) -> Ledger:
        """All of it; only to be asked when the workload has ended."""
        if self._read is None:
            self._read = Ledger.read(self.notes)
        return self._read

    def until(self, cut: int) -> int:
        return cut if self.cut is None else min(cut, self.cut)


@dataclass(slots=True)
class Phase:
    """A time in which a cut of everything has one meaning: which disks there are, and what each of them owes."""

    begin: int
    disks: dict[str, Disk]
    stopped: dict[str, int]  # a node that is off: since when its disk does not change any more
    is_paired: bool  # complete on both, all the time
    accounts: list[Account]
    unchanged: Manifest
    end: int = 0


@dataclass(slots=True)
class Found:
    """What looking came to."""

    states: int = 0
    wrong: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)  # of what was wrong
    sources: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, where: str, sentences: list[str]) -> None:
        if sentences:
            self.kinds[kind] += 1
            self.wrong.append(f"{where}: {kind}: " + "; ".join(sentences))


_libc = ctypes.CDLL(None, use_errno=True)


class Shelf:
    """One image after another on one loop device, mounted: a mount(8) for each would take most of the time."""

    def __init__(self, directory: Path, name: str) -> None:
        self.image = directory / f"shelf-{name}.img"
        self.place = directory / f"shelf-{name}"
        self.place.mkdir()
        self._device = ""

    def mount(self, kind: str) -> None:
        if not self._device:
            self._device = tool("losetup", "--find", "--show", "--direct-io=off", str(self.image)).strip()
        if _libc.mount(self._device.encode(), os.fsencode(self.place), kind.encode(), 0, None) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def unmount(self) -> None:
        if _libc.umount2(os.fsencode(self.place), 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def close(self) -> None:
        _libc.umount2(os.fsencode(self.place), 0)
        if self._device:
            tool("losetup", "--detach", self._device)


class Looker:
    """Looks at states of one recorded run. Use as a context manager."""

    def __init__(self, disks: Disks, directory: Path, kind: str, control: Control = Control.NONE) -> None:
        self._disks = disks
        self._directory = directory / f"look-{control.value}"
        self._directory.mkdir()
        self._kind = kind
        self._control = control
        self._shelves = {name: Shelf(self._directory, name) for name in NAMES}
        self._builders: dict[int, Images] = {}

    def __enter__(self) -> Looker:
        return self

    def __exit__(self, *_: object) -> None:
        for shelf in self._shelves.values():
            shelf.close()
        for builder in self._builders.values():
            builder.close()
        shutil.rmtree(self._directory)

    def look(self, phases: list[Phase], states: int, chance: random.Random, found: Found) -> None:
        """At that many cuts, anywhere within the phases."""
        weights = [phase.end - phase.begin + 1 for phase in phases]
        chosen = [(phase, chance.randint(phase.begin, phase.end)) for phase in chance.choices(phases, weights, k=states)]
        for phase, cut in sorted(chosen, key=lambda each: each[1]):
            found.states += 1
            self._look_at(phase, cut, random.Random(f"{chance.random()} {cut}"), found)

    def _look_at(self, phase: Phase, cut: int, chance: random.Random, found: Found) -> None:
        mounted: list[str] = []
        try:
            for name in NAMES:
                disk, shelf = phase.disks[name], self._shelves[name]
                if disk.number not in self._builders:
                    self._builders[disk.number] = Images(self._disks.log, disk, self._directory, self._kind)
                at = min(cut, phase.stopped.get(name, cut))
                self._builders[disk.number].build(shelf.image, at, chance, self._control)
                try:
                    shelf.mount(self._kind)
                except OSError as failure:
                    found.add("unmountable", f"cut {cut}, {name}", [str(failure)])
                    return
                mounted.append(name)
            known = len(found.wrong)
            self._judge(phase, cut, found)
            if known == 0 and found.wrong and self._control is Control.NONE:
                for name in NAMES:
                    copy_sparse(self._shelves[name].image, self._directory.parent / f"look-{name}.img")
        finally:
            for name in mounted:
                self._shelves[name].unmount()

    def _judge(self, phase: Phase, cut: int, found: Found) -> None:
        where = f"cut {cut}"
        records = {name: read_record(self._shelves[name].place / STATE) for name in NAMES}
        for name, record in records.items():
            if record is None:
                found.add("no record", f"{where}, {name}", ["neither slot decodes"])
        a, b = records["a"], records["b"]
        if a is None or b is None:
            return
        decision = decide(a, b, mine_running=False, theirs_running=False, mine_empty=False, theirs_empty=False)
        if decision.outcome is not Outcome.PAIR:
            found.add("no pair", where, [f"{decision.outcome.name}: {decision.reason}", _shown(a), _shown(b)])
            return
        source = "a" if decision.source is Source.MINE else "b"
        found.sources[decision.reason] += 1
        for name in NAMES if phase.is_paired else (source,):
            place = self._shelves[name].place
            for account in phase.accounts:
                wrong = check(place, account.ledger(), account.until(cut), Needs.SYNCED)
                found.add("lost", f"{where}, {name}{' (source)' if name == source else ''}", wrong)
            if cut % UNCHANGED_EVERY == 0:
                found.add("changed", f"{where}, {name}", check_unchanged(place, phase.unchanged))


def read_record(state: Path) -> Record | None:
    """As a restart after a power cut sees it."""
    try:
        data = (state / "record").read_bytes()
    except OSError:
        return None
    record = choose(data[:SLOT_BYTES], data[SLOT_BYTES : 2 * SLOT_BYTES])
    if record is None:
        return None
    return rules.start(replace(record), rules.Identity(boot="after the cut", incarnation=1, backing=record.backing))


def _shown(record: Record) -> str:
    return (
        f"{record.node}: {record.data.name} {record.role.name} generation={record.generation:x} base={record.base:x} term={record.term} "
        f"rewound={record.rewound} used={record.used} shared={record.shared} peer_may_fit={record.peer_may_fit} peer_has={record.peer_has}"
    )

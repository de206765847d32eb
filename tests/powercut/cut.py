"""What a power cut leaves on a disk: everything up to the last flush before it, and of what came later any part.

A disk may write what it was not told to flush in any order, or not at all, and a block of 4 KiB as eight sectors of which some are old.
(Beneath xfs the tear is between blocks of 4 KiB: with sectors a state was seen that could not be mounted, for a reason not known.)
"""

from __future__ import annotations

import os
import random
from enum import Enum
from pathlib import Path

from tests.powercut.disk import Disk, copy_sparse
from tests.powercut.log import FLUSH, WRITE, Entry, LogReader

SECTOR = {"ext4": 512, "xfs": 4096}


class Control(Enum):
    """How a disk breaks its promise, for the runs that must be caught."""

    NONE = "none"
    REORDERS = "reorders"  # a flush is no barrier: any of the last writes may be missing
    FORGETS = "forgets"  # a flush does nothing: the disk is as it was some flushes ago


BROKEN_ENTRIES = 400  # how far back a disk that breaks its promise does so


class Images:
    """Images of one disk at cuts that do not go back: what is durable is kept, and grows."""

    def __init__(self, log: LogReader, disk: Disk, directory: Path, kind: str = "ext4") -> None:
        self._log = log
        self._disk = disk
        self._sector = SECTOR[kind]
        self._durable = directory / f"durable-{disk.number}.img"
        copy_sparse(disk.base, self._durable)
        self._fd = os.open(self._durable, os.O_RDWR | os.O_CLOEXEC)
        self._position = 0  # how many of the disk's entries are in the durable image

    def close(self) -> None:
        os.close(self._fd)
        self._durable.unlink()

    def build(self, target: Path, cut: int, chance: random.Random, control: Control = Control.NONE) -> None:
        """The disk as one cut after entry number `cut` may leave it."""
        entries = self._log.entries(self._disk.number)
        end = _first_after(entries, cut)
        flushed = end
        while flushed > 0 and entries[flushed - 1].kind != FLUSH:
            flushed -= 1
        if control is not Control.NONE:
            flushed = max(end - BROKEN_ENTRIES, 0)
        assert flushed >= self._position, "cuts go forward"
        for entry in entries[self._position : flushed]:
            if entry.kind == WRITE:
                os.pwrite(self._fd, self._log.data(entry), entry.offset)
        self._position = flushed
        copy_sparse(self._durable, target)
        if control is not Control.FORGETS:
            self._apply_some(target, entries[flushed:end], chance)

    def _apply_some(self, target: Path, entries: list[Entry], chance: random.Random) -> None:
        """Any part of the unflushed: none, all, or each by chance; some torn."""
        writes = [entry for entry in entries if entry.kind == WRITE]
        style = chance.random()
        share = 0.0 if style < 0.1 else 1.0 if style < 0.25 else chance.choice((0.1, 0.5, 0.9))
        torn = chance.choice((0.0, 0.1, 0.5))
        with target.open("r+b") as image:
            for entry in writes:  # in their order: that of writes to different places leaves no trace, that to one place a disk keeps
                if chance.random() >= share:
                    continue
                data = self._log.data(entry)
                if chance.random() >= torn:
                    os.pwrite(image.fileno(), data, entry.offset)
                    continue
                for at in range(0, len(data), self._sector):
                    if chance.random() < 0.5:
                        os.pwrite(image.fileno(), data[at : at + self._sector], entry.offset + at)


def _first_after(entries: list[Entry], cut: int) -> int:
    """The index of the first entry that is later than the cut."""
    low, high = 0, len(entries)
    while low < high:
        middle = (low + high) // 2
        if entries[middle].number <= cut:
            low = middle + 1
        else:
            high = middle
    return low

"""What one node keeps when its process ends, and what of it a power cut takes: what was written and not synced may be there or not."""

import errno
import itertools
import random

from tests.datasim.tree import Tree

SECTOR = 512
_stamps = itertools.count()


class DiskError(OSError):
    """ENOSPC or EIO, as the caller sees it."""


class File:
    """Bytes as they are read, and as they are on the disk for certain."""

    def __init__(self, data: bytes = b"") -> None:
        self.now = bytearray(data)
        self.durable = bytearray(data)
        self.dirty: set[int] = set()
        self.edits = next(_stamps)  # another one whenever what is durable changes

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if end > len(self.now):
            self.now.extend(bytes(end - len(self.now)))
        self.now[offset:end] = data
        self.dirty.update(range(offset // SECTOR, (end - 1) // SECTOR + 1))

    def sync(self) -> None:
        self.edits = next(_stamps)
        self.durable = bytearray(self.now)
        self.dirty.clear()

    def after_power_cut(self, choose: random.Random) -> bytearray:
        """What might be read afterwards."""
        found = bytearray(self.durable)
        for sector in sorted(self.dirty):
            if choose.random() < 0.5:
                continue
            start, end = sector * SECTOR, min((sector + 1) * SECTOR, len(self.now))
            if end > len(found):
                found.extend(bytes(end - len(found)))
            found[start:end] = self.now[start:end]
        return found

    def power_cut(self, choose: random.Random) -> None:
        self.now = self.after_power_cut(choose)
        self.sync()

    def copy(self) -> "File":
        return File(bytes(self.durable))


class Disk:
    """A node's state directory (record, two files of the intent log) and its tree."""

    def __init__(self) -> None:
        self.record, self.logs, self.tree = File(), [File(), File()], Tree()
        self.full = False  # no write that needs room succeeds
        self.lying = False  # the next sync of data fails, and what it was to write is lost

    def need_room(self) -> None:
        if self.full:
            raise DiskError(errno.ENOSPC, "no space left")

    def sync_data(self, fid: int | None = None) -> None:
        """syncfs, or fsync of one object. After a failure the kernel calls the pages clean (CuttleFS): nothing writes them any more."""
        if self.lying:
            self.lying = False
            self.tree.lose_unsynced()
            raise DiskError(errno.EIO, "the disk failed")
        self.tree.sync(fid)

    def power_cut(self, choose: random.Random) -> None:
        for file in (self.record, *self.logs):
            file.power_cut(choose)
        self.tree.power_cut(choose)

    def snapshot(self) -> "Disk":
        """A copy of what is durable, as a snapshot of a virtual machine's disk would be."""
        copy = Disk()
        copy.record, copy.logs, copy.tree = self.record.copy(), [log.copy() for log in self.logs], self.tree.copy()
        return copy

"""The log of everything that was written to the disks of all nodes, in the one order in which it came.

One log for all disks, because a power cut that takes both nodes happens at one instant: with a log per disk nobody could say which entry
of the one belongs to which entry of the other. The number of entries is the clock of everything here: a test notes it beside each
operation, and a cut is a number of entries.

The file: a page whose first eight bytes are the number of entries, then the entries, each a header (disk, kind, offset, length) and,
for a write, its bytes.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

_FIRST = 4096
_HEADER = struct.Struct("<HHIQ")  # disk, kind, bytes, offset
WRITE, FLUSH = 0, 1


class LogWriter:
    """The disks' side: one process, one thread."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, _FIRST)
        os.lseek(self._fd, _FIRST, os.SEEK_SET)
        # Stored as one word: others look on, and `struct` would write it byte by byte, zeros first.
        self._count = memoryview(mmap.mmap(self._fd, _FIRST)).cast("Q")

    def write(self, disk: int, offset: int, data: bytes) -> None:
        """Note a write, before it is answered."""
        self._append(_HEADER.pack(disk, WRITE, len(data), offset), data)

    def flush(self, disk: int) -> None:
        """Note a flush: what the disk was told before is on the platter once this is answered."""
        self._append(_HEADER.pack(disk, FLUSH, 0, 0), b"")

    def _append(self, header: bytes, data: bytes) -> None:
        written = os.writev(self._fd, [header, data])
        assert written == len(header) + len(data), "the log's own disk is full"
        self._count[0] += 1


class Clock:
    """How many entries there are now; any process may ask."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._count = memoryview(mmap.mmap(file.fileno(), _FIRST, access=mmap.ACCESS_READ)).cast("Q")

    def now(self) -> int:
        return self._count[0]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; `number` counts from 1, so that a cut at N keeps the entries up to N."""

    number: int
    disk: int
    kind: int
    offset: int
    length: int
    at: int  # where its bytes lie in the log


class LogReader:
    """What was written, for those who build images of it; grows with the log."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._clock = Clock(path)
        self._next_at = _FIRST
        self._read = 0
        self._entries: dict[int, list[Entry]] = {}

    def entries(self, disk: int) -> list[Entry]:
        """Those of one disk, as of now."""
        for number in range(self._read + 1, self._clock.now() + 1):
            of, kind, length, offset = _HEADER.unpack(os.pread(self._fd, _HEADER.size, self._next_at))
            at = self._next_at + _HEADER.size
            self._entries.setdefault(of, []).append(Entry(number, of, kind, offset, length, at))
            self._next_at = at + length
            self._read = number
        return self._entries.setdefault(disk, [])

    def data(self, entry: Entry) -> bytes:
        """A write's bytes."""
        found = os.pread(self._fd, entry.length, entry.at)
        assert len(found) == entry.length, "a log that ends within an entry"
        return found

    def close(self) -> None:
        os.close(self._fd)

"""The intent log of one process: the order that marks.h asks for, on the simulated disk.

One writer at a time. What ops wait for is noted together and made durable as one batch; only then it is in memory, and hot.
"""

from collections.abc import Generator
from typing import Any

from tests.datasim.disk import Disk, DiskError
from tests.datasim.native import Log, Mark, Marks
from tests.datasim.places import Covered

Steps = Generator[Any, None, Any]


def read(first: bytes, second: bytes) -> Covered:
    """What a process that starts now would find marked."""
    marks = Marks()
    if Log(1).load(first, second, marks) < 0:
        marks.add_everything()
    return Covered(marks)


class NodeLog:
    """Marks in memory, and their file. Every generator here is a piece of a task."""

    def __init__(self, disk: Disk, nonce: int, breaks: frozenset[str] = frozenset()) -> None:
        self.disk, self.log, self.marks, self.breaks = disk, Log(nonce), Marks(), breaks
        self.busy = False
        self.load_result = 0
        self.wanted: list[Mark] = []
        self.everything_wanted = False
        self._durable: tuple[bytes, bytes] | None = None
        self._covered: Covered | None = None

    def durable(self) -> Covered:
        """What is marked on the disk for certain."""
        images = bytes(self.disk.logs[0].durable), bytes(self.disk.logs[1].durable)
        if images != self._durable:
            self._durable, self._covered = images, read(*images)
        assert self._covered is not None
        return self._covered

    def _lock(self) -> Steps:
        while self.busy:
            yield lambda: not self.busy
        self.busy = True

    def open(self) -> Steps:
        """At a start: what was left, and word that a process runs again. Durable before anything relies on it."""
        result = self.load_result = self.log.load(bytes(self.disk.logs[0].now), bytes(self.disk.logs[1].now), self.marks)
        if result < 0:
            self.marks.add_everything()
            yield from self.compact()
            return
        self.log.note_opened()
        yield from self._write_batch()

    def _write_batch(self) -> Steps:
        write = self.log.batch()
        if write is None:
            return
        file, offset, data = write
        self.disk.logs[file].write(offset, data)
        yield "log written"
        self.disk.logs[file].sync()
        self.log.written()
        yield "log durable"

    def mark(self, marks: list[Mark]) -> Steps:
        """Make these durable, then hot."""
        if "mark is never durable" in self.breaks:
            for mark in marks:
                self.marks.add(mark)
            return
        yield from self._lock()
        try:
            for mark in marks:
                self.log.note(mark)
            if "hot before it is durable" in self.breaks:
                for mark in marks:
                    self.marks.add(mark)
            everything = False
            try:
                self.disk.need_room()
            except DiskError:  # one record always has room
                self.log.note_everything()
                everything = True
            yield from self._write_batch()
            for mark in marks:
                self.marks.add(mark)
            if everything:
                self.marks.add_everything()
        finally:
            self.busy = False

    def everything(self) -> Steps:
        """Doubt: all is marked, durably."""
        yield from self._lock()
        try:
            self.log.note_everything()
            yield from self._write_batch()
            self.marks.add_everything()
        finally:
            self.busy = False

    def compact(self, *, clean: bool = False, before: Any = None) -> Steps:
        """All marks into the other file; `before` changes them first, while nobody notes. False: no room, the old file goes on."""
        yield from self._lock()
        try:
            if before is not None:
                before()
            file, offset, data = self.log.compact(self.marks, clean=clean)
            whole = not self.disk.full
            self.disk.logs[file].write(offset, data if whole else data[: len(data) // 2])
            yield "compaction written"
            if not whole:
                self.log.not_written()
                yield "compaction given up"
                return False
            self.disk.logs[file].sync()
            self.log.written()
            yield "compaction durable"
            return True
        finally:
            self.busy = False

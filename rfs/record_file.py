"""The record on the disk: one preallocated file of two slots, so that writing it needs no space and no rename."""

import os
from dataclasses import replace

from rfs.record import SLOT_BYTES, Record, choose, decode, encode

NAME = "record"


class RecordDamaged(Exception):
    """Both slots are bad: what this copy is cannot be known any more."""


class RecordFile:
    """`record` in a state directory. Calls block for one small write; use a worker thread."""

    def __init__(self, state_directory: str) -> None:
        self.path = os.path.join(state_directory, NAME)
        created = not os.path.exists(self.path)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if created or os.fstat(self._fd).st_size < 2 * SLOT_BYTES:
            os.posix_fallocate(self._fd, 0, 2 * SLOT_BYTES)
            os.fsync(self._fd)
            directory = os.open(state_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        newest = choose(*self._slots())
        self._last_number = newest.number if newest is not None else 0
        self._newest_index = 1 if newest is not None and newest == decode(self._slots()[1]) else 0

    def _slots(self) -> list[bytes]:
        return [os.pread(self._fd, SLOT_BYTES, index * SLOT_BYTES) for index in (0, 1)]

    def read(self) -> Record | None:
        """The newest whole record; None when none was ever written. Raises RecordDamaged."""
        slots = self._slots()
        record = choose(*slots)
        if record is None and any(any(slot) for slot in slots):
            raise RecordDamaged(
                f"{self.path}: both copies of the record are damaged; move the state directory aside and mount with --replace-data "
                "to take the peer's data"
            )
        return record

    def write(self, record: Record) -> Record:
        """Make it durable under the next number, in the slot that does not hold the newest. Returns it as written."""
        numbered = replace(record, number=max(record.number, self._last_number) + 1)
        index = 1 - self._newest_index
        written = os.pwrite(self._fd, encode(numbered), index * SLOT_BYTES)
        assert written == SLOT_BYTES, "a preallocated slot takes a whole write"
        os.fdatasync(self._fd)
        self._last_number, self._newest_index = numbered.number, index
        return numbered

    def close(self) -> None:
        """Release the file."""
        os.close(self._fd)

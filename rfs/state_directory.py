"""STATEDIR: one rfsmount at a time, and what it must remember besides its record.

record         the durable record, two slots (record_file.py)
rfsmount.pid   held locked while the process lives; says who it is
directories    which directories the module has: position is identity, so the number does not change in passing. One more at the end is
               one that is being added (added_directory.py): *pending*, until the pair has been whole with it, and may be taken back so long
guards         which guards lie where (mount.py)     control.sock     kept/     copy-begun (replace_data.py)
"""

import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rfs import exit_codes
from rfs.errors import SaidNo
from rfs.foreign import from_json, whole
from rfs.small_file import overwrite, write_small

PID_FILE = "rfsmount.pid"


class StateDirectory:
    """The lock on a state directory, for as long as the process lives."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock: int | None = None

    def take(self) -> None:
        """Create it if needed, and refuse when another rfsmount has it."""
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            lock = os.open(os.path.join(self.path, PID_FILE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as failure:
            raise SaidNo(f"--state {self.path}: cannot be used ({failure.strerror})", exit_codes.CONFIGURATION_INVALID) from failure
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as failure:
            pid = os.read(lock, 32).decode(errors="replace").strip() or "?"
            os.close(lock)
            raise SaidNo(
                f"--state {self.path}: is in use by rfsmount (pid {pid}); unmount that one first, or name another", exit_codes.REFUSED
            ) from failure
        self._lock = lock

    def write_pid(self) -> None:
        """Say who holds the lock."""
        assert self._lock is not None
        overwrite(self._lock, f"{os.getpid()}\n".encode())

    def check_directories(self, paths: Sequence[str]) -> "Given":
        """As recorded, or the first to be recorded; or more of them, or without what was pending."""
        known = read_directories(self.path)
        given = Given(0, 0) if known is None else judge(known, paths)
        if given is None:
            assert known is not None
            raise SaidNo(
                f"--state {self.path}: this module has {len(known.paths)} directories, {len(paths)} were given; "
                "name the same ones in the same order, and new ones after them",
                exit_codes.CONFIGURATION_INVALID,
            )
        return given


@dataclass(frozen=True, slots=True)
class Directories:
    """What is recorded: the last `pending` of them have not been part of a whole pair."""

    paths: tuple[str, ...]
    pending: int = 0


@dataclass(frozen=True, slots=True)
class Given:
    """What a start makes of the directories that it is given: how many at the end are pending, and how many of those nobody knew of."""

    pending: int
    new: int


def judge(known: Directories, paths: Sequence[str]) -> Given | None:
    """None: those are not this module's. (The same number may have moved to other paths.)"""
    recorded, given = len(known.paths), len(paths)
    if given == recorded:
        return Given(known.pending, 0)
    shared = min(recorded, given)
    if tuple(paths[:shared]) != known.paths[:shared] or given < recorded - known.pending:
        return None
    return Given(known.pending + given - recorded, max(given - recorded, 0))


def read_directories(state_directory: str) -> Directories | None:
    """None: nothing is recorded, or nothing that can be read."""
    try:
        found = from_json(Path(state_directory, "directories").read_text())
        known = Directories(tuple(map(str, found["paths"])), whole(found.get("pending", 0)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return known if 0 <= known.pending < max(len(known.paths), 1) else None


def write_directories(state_directory: str, directories: Directories) -> None:
    """Durably. Position is identity from now on."""
    text = {"count": len(directories.paths), "paths": list(directories.paths), "pending": directories.pending}
    write_small(Path(state_directory, "directories"), json.dumps(text))

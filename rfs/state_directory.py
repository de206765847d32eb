"""STATEDIR: one rfsmount at a time, and what it must remember besides its record.

record         the durable record, two slots (record_file.py)
rfsmount.pid   held locked while the process lives; says who it is
directories    how many directories the module has: position is identity, so the number cannot change in passing
guards         which guards lie where (mount.py)     control.sock     kept/     copy-begun (replace_data.py)
"""

import fcntl
import json
import os
from pathlib import Path

from rfs import exit_codes
from rfs.errors import SaidNo
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

    def check_directories(self, count: int) -> None:
        """The same number as recorded, or the first to be recorded."""
        path = Path(self.path, "directories")
        try:
            recorded = int(json.loads(path.read_text())["count"])
        except (OSError, ValueError, KeyError, TypeError):
            recorded = count
        if recorded != count:
            raise SaidNo(
                f"--state {self.path}: this module has {recorded} directories, {count} were given; name the same ones in the same order",
                exit_codes.CONFIGURATION_INVALID,
            )

    def record_directories(self, paths: list[str]) -> None:
        """From now on the number is fixed."""
        write_small(Path(self.path, "directories"), json.dumps({"count": len(paths), "paths": paths}))

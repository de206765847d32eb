"""One node: an rfsmount with its directories and its state on one disk, in a mount namespace of its own that dies with it.

Each start has a new boot id laid over the kernel's, so that rfsmount sees a machine that has restarted. (Its page cache is gone too:
the disk that it finds is an image of what had reached the old one.)
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.lab.trees import Manifest, manifest
from rfs.control.blocking import BlockingClient
from rfs.errors import SaidNo
from tests.powercut.disk import DIRECTORIES, STATE, Disk

EXTRA_OPTIONS: tuple[str, ...] = ("--checkpoint", "1")  # of `rfsmount mount`: how often it makes a checkpoint, say,
CHECKPOINT_S = 1.0  # which it does so often then; 0: it makes none
ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0
CALL_TIMEOUT_S = 30.0


class Hung(AssertionError):
    """Something took longer than anything here may."""


def free_address() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def wait_for(what: str, test: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Until it is so; Hung when it never is."""
    deadline = time.monotonic() + deadline_s
    while not test():
        if time.monotonic() > deadline:
            raise Hung(f"not within {deadline_s:g} s: {what}")
        time.sleep(0.02)


class Node:
    """One side. It is given a disk at each start."""

    def __init__(self, directory: Path, places: Path, name: str, listen: str, peer: str) -> None:
        self.name = name
        self.disk: Disk | None = None
        self.log = directory / f"{name}.log"
        self._place = places / name
        self._boot = directory / f"{name}.boot"
        self._options = ["--listen", listen, "--peer", peer, "--module", "m", "--node", name, "--timeout", "60", "--insecure"]
        self._process: subprocess.Popen[bytes] | None = None
        self._place.mkdir()

    # ---- power ------------------------------------------------------------------------------------------------------------------------

    def start(self, disk: Disk, role: str, *, guards: bool) -> None:
        """Power on: the guards early in the boot (without them everything is compared), then rfsmount. Returns at once."""
        assert self._process is None, "it is on already"
        self.disk = disk
        self._boot.write_text(f"{uuid.uuid4()}\n")
        mounts = [*(str(self._place / name) for name in DIRECTORIES), "--state", str(self._place / STATE), "--role", role]
        command = [sys.executable, "-m", "rfs.cli", "mount", "-f", *mounts, *self._options, *EXTRA_OPTIONS]
        guard = [sys.executable, "-m", "rfs.cli", "guard", *mounts[: len(DIRECTORIES) + 2]]
        guarded = f"[ ! -s {shlex.quote(str(self._place / STATE / 'record'))} ] || {shlex.join(guard)}\n" if guards else ""
        script = (
            f"mount --bind {shlex.quote(str(self._boot))} /proc/sys/kernel/random/boot_id\n"
            f"mount -o loop {shlex.quote(str(disk.path))} {shlex.quote(str(self._place))}\n"
            f"{guarded}"
            f"exec {shlex.join(command)}\n"
        )
        with self.log.open("ab") as log:
            log.write(f"---- power on, disk {disk.number}\n".encode())
            log.flush()
            wrapped = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--propagation", "private", "sh", "-ec", script]
            self._process = subprocess.Popen(wrapped, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, start_new_session=True)

    @property
    def is_on(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it is off"
        return self._process.pid

    def cut(self) -> None:
        """Power off: not one more instruction of it. What its kernel still writes comes later than the cut."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """In order. The exit code counts."""
        assert self._process is not None
        self._process.terminate()
        try:
            code = self._process.wait(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired as late:
            raise Hung(f"{self.name} does not end") from late
        self._process = None
        assert code == 0, f"{self.name} ended with {code}, see {self.log}"

    # ---- asking -----------------------------------------------------------------------------------------------------------------------

    @property
    def inside(self) -> Path:
        """Its place, as it sees it: with its mounts."""
        return Path(f"/proc/{self.pid}/root{self._place}")

    @property
    def place(self) -> Path:
        """The same, for a process in its namespace."""
        return self._place

    def call(self, method: str, **params: object) -> dict[str, Any]:
        with BlockingClient(str(self.inside / STATE), CALL_TIMEOUT_S) as client:
            return client.call(method, params)

    def status(self) -> dict[str, Any]:
        """Nothing while it does not answer yet; it must not have ended by itself."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"{self.name} ended by itself with {self._process.returncode}: {self.log.read_text()[-600:]}")
        try:
            return self.call("status")
        except (SaidNo, OSError):
            return {}

    def is_so(self, **wanted: object) -> bool:
        status = self.status()
        return bool(status) and all(status[name] == value for name, value in wanted.items())

    def until(self, **wanted: object) -> None:
        try:
            wait_for(f"{self.name} {wanted}", lambda: self.is_so(**wanted))
        except Hung as late:
            status = self.status()
            shown = {name: status.get(name) for name in ("role", "link", "data", "mode", "code", "reason")}
            raise Hung(f"{late}, is {shown}") from late

    def spawn(self, *command: str) -> subprocess.Popen[bytes]:
        """A process in its namespace: an application."""
        entered = ["nsenter", f"--target={self.pid}", "--mount", f"--wd={ROOT}", *command]
        return subprocess.Popen(entered, stdin=subprocess.DEVNULL)

    def manifest(self) -> Manifest:
        """What its directories show now."""
        return manifest_of(self.inside)

    def record_slots(self) -> bytes:
        """As its state directory shows it (what is in memory included)."""
        return (self.inside / STATE / "record").read_bytes()


def manifest_of(place: Path) -> Manifest:
    """Of both mirrored directories, by paths below the place."""
    out: Manifest = {}
    for name in DIRECTORIES:
        here = manifest(os.fspath(place / name))
        for path, described in here.items():
            if "same_file_as" in described:
                described["same_file_as"] = os.path.normpath(f"{name}/{described['same_file_as']}")
            out[os.path.normpath(f"{name}/{path}")] = described
    return out

"""One side of a mirror, as a person uses it: the command line, real mounts, exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.lab.trees import HIDDEN_NAMES
from rfs import exit_codes
from rfs.control.blocking import BlockingClient
from rfs.keys import KeyStore
from tests.unit.keyring import pair_keys

needs_mounts = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="needs root and /dev/fuse")


class Node:
    """One side, by its command line."""

    def __init__(self, path: Path, name: str, listen: str, peer: str) -> None:
        self.name = name
        self.directories = [path / name / "data", path / name / "wal"]
        self.state = path / name / "state"
        self.options = ["--listen", listen, "--peer", peer, "--module", "pg", "--node", name, "--timeout", "20"]
        for directory in self.directories:
            directory.mkdir(parents=True)

    def run(self, verb: str, *more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rfs.cli", verb, *more, "--state", str(self.state)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def mount(self, role: str, *more: str) -> subprocess.CompletedProcess[str]:
        return self.run("mount", *map(str, self.directories), "--role", role, *self.options, *more)

    def status(self) -> dict[str, object]:
        answer: dict[str, object] = json.loads(self.run("status", "--json").stdout)
        return answer

    def counters(self) -> dict[str, object]:
        """The engine's."""
        answer: dict[str, object] = json.loads(self.run("stats", "--json").stdout)
        return answer

    def until(self, **wanted: object) -> None:
        with BlockingClient(str(self.state)) as client:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                status = client.call("status")
                if all(status[name] == value for name, value in wanted.items()):
                    return
                client.call("stats")
        raise AssertionError(f"wanted {wanted}, is {status}")

    def kill(self) -> None:
        os.kill(int((self.state / "rfsmount.pid").read_text()), signal.SIGKILL)

    def beneath(self, position: int = 0) -> Path:
        """The plain tree below every layer, as the engine reaches it: what a test does there, nobody mirrors."""
        process = Path("/proc") / (self.state / "rfsmount.pid").read_text().strip()
        wanted = os.stat(self.directories[position]).st_dev, self.directories[position].stat().st_ino
        for entry in (process / "fd").iterdir():
            try:
                found, flags = entry.stat(), os.statvfs(entry).f_flag
            except OSError:
                continue
            if (found.st_dev, found.st_ino) == wanted and not flags & os.ST_RDONLY:
                return entry
        raise AssertionError(f"no writable descriptor of {self.directories[position]}")

    def tree(self) -> dict[str, bytes | str]:
        """What an application sees: the directories of Lockstep's own come and go beside it, also after a resync has ended."""
        found: dict[str, bytes | str] = {}
        for position, directory in enumerate(self.directories):
            for place, below, files in os.walk(directory):
                below[:] = sorted(name for name in below if Path(place) != directory or name not in HIDDEN_NAMES)
                for entry in (Path(place, name) for name in (*below, *files)):
                    name = f"{position}/{entry.relative_to(directory)}"
                    found[name] = os.readlink(entry) if entry.is_symlink() else entry.read_bytes() if entry.is_file() else "directory"
        return found

    def clean(self) -> None:
        if self.state.exists() and self.run("unmount").returncode != exit_codes.DONE and (self.state / "rfsmount.pid").exists():
            try:
                self.kill()
            except (ProcessLookupError, ValueError):
                pass
        for directory in self.directories:
            while subprocess.run(["umount", "-l", str(directory)], capture_output=True, check=False).returncode == 0:
                pass


def know_each_other(one: Node, other: Node) -> None:
    """As after `rfsmount keys init` and `join` (test_keys.py does it by the commands)."""
    pair_keys(*(KeyStore(node.state / "keys") for node in (one, other) if KeyStore(node.state / "keys").make(node.name)))


def free_address() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"

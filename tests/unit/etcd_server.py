"""A real etcd on this machine, of one member or more, for tests: started, killed, started again, emptied."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

needs_etcd = pytest.mark.skipif(shutil.which("etcd") is None, reason="needs etcd (Debian: etcd-server)")
START_S = 20.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class EtcdServer:
    """See the module's text."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.peer_url = f"http://127.0.0.1:{free_port()}"
        self.members = [self]  # of one witness
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start it."""
        assert self._process is None
        self.path.mkdir(parents=True, exist_ok=True)
        command = [
            "etcd", "--data-dir", str(self.path / "data"), "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
            "--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url, "--name", str(self.port),
            "--initial-cluster", ",".join(f"{member.port}={member.peer_url}" for member in self.members),
        ]  # fmt: skip
        with (self.path / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def wait(self) -> None:
        """Until it answers."""
        assert self._process is not None
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert time.monotonic() < deadline, f"etcd does not answer: {(self.path / 'log').read_text()[-2000:]}"
            assert self._process.poll() is None, f"etcd ended: {(self.path / 'log').read_text()[-2000:]}"
            time.sleep(0.05)

    def _answers(self) -> bool:
        request = urllib.request.Request(f"{self.url}/v3/kv/range", b'{"key": "eA=="}')
        try:
            with urllib.request.urlopen(request, timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        """As a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def lose_memory(self) -> None:
        """Set up anew: it holds nothing, and counts its revisions from the start."""
        self.stop()
        shutil.rmtree(self.path / "data")
        self.start()

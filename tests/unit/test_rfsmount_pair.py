"""Two real rfsmount on this machine, as a person uses them: real mounts, the real engine, the commands and their exit codes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rfs import exit_codes
from rfs.control.blocking import BlockingClient

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="needs root and /dev/fuse"),
]


class Node:
    """One side, by its command line."""

    def __init__(self, path: Path, name: str, listen: str, peer: str) -> None:
        self.directories = [path / name / "data", path / name / "wal"]
        self.state = path / name / "state"
        self.options = ["--listen", listen, "--peer", peer, "--module", "pg", "--node", name, "--insecure", "--timeout", "20"]
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

    def tree(self) -> dict[str, bytes | str]:
        found: dict[str, bytes | str] = {}
        for position, directory in enumerate(self.directories):
            for entry in sorted(directory.rglob("*")):
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


def free_address() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    here, there = free_address(), free_address()
    a, b = Node(tmp_path, "a", here, there), Node(tmp_path, "b", there, here)
    yield a, b
    b.clean()
    a.clean()


def test_a_pair_is_made_swapped_killed_and_taken_apart(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    (a.directories[0] / "before").write_text("was here")
    assert a.mount("primary").returncode == exit_codes.DONE
    assert a.status()["link"] == "alone"
    mounted = b.mount("secondary")
    assert mounted.returncode == exit_codes.DONE, mounted.stderr
    a.until(link="paired", role="primary")

    data, wal = a.directories
    (data / "file").write_bytes(os.urandom(300_000))
    (data / "link").symlink_to("file")
    os.link(data / "file", data / "hard")
    os.mkfifo(wal / "fifo")
    (wal / "directory").mkdir()
    os.rename(wal / "directory", wal / "renamed")
    assert os.statvfs(data).f_blocks > 0
    assert a.tree() == b.tree()
    with pytest.raises(OSError, match="Read-only"):
        (b.directories[0] / "file").write_text("behind the mirror")

    assert a.run("demote").returncode == exit_codes.DONE
    assert b.run("promote").returncode == exit_codes.DONE
    b.until(link="paired", role="primary")
    (b.directories[0] / "from b").write_text("b")
    assert (a.directories[0] / "from b").read_text() == "b"

    b.kill()
    with pytest.raises(OSError, match="not connected|connection abort"):
        os.listdir(b.directories[0])
    assert a.run("promote").returncode == exit_codes.DONE
    (a.directories[0] / "from a").write_text("a")
    assert b.mount("secondary").returncode == exit_codes.DONE
    b.until(link="paired", role="secondary", data="UPTODATE")
    assert a.tree() == b.tree()

    assert b.run("unmount").returncode == exit_codes.DONE
    a.until(link="alone", code="PEER_LEFT")
    assert a.run("unmount").returncode == exit_codes.DONE
    assert a.tree() == b.tree()
    (a.directories[0] / "plain again").write_text("writable")


def test_two_primaries_and_the_way_out(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    (a.directories[0] / "file").write_text("a's")
    (b.directories[0] / "file").write_text("b's")
    assert a.mount("primary").returncode == exit_codes.DONE
    assert b.mount("primary").returncode == exit_codes.DONE
    b.until(link="diverged", mode="alone")
    assert b.run("unmount").returncode == exit_codes.DONE
    assert b.mount("secondary", "--replace-data").returncode == exit_codes.DONE
    b.until(link="paired", role="secondary")
    assert (b.directories[0] / "file").read_text() == "a's"
    assert (b.state / "kept" / "1" / "0" / "file").read_text() == "b's"


def test_files_of_a_new_secondary_are_safe(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    (a.directories[0] / "file").write_text("a's")
    (b.directories[1] / "file").write_text("b's")
    assert a.mount("primary").returncode == exit_codes.DONE
    refused = b.mount("secondary")
    assert refused.returncode == exit_codes.REFUSED
    assert "--replace-data" in refused.stderr
    again = b.mount("secondary")
    assert again.returncode == exit_codes.REFUSED and "is in use by rfsmount" in again.stderr
    assert (b.directories[1] / "file").read_text() == "b's"

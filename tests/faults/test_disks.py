"""Disks that are full, fail or turn read-only, small real ones: each node has one for its data and one for its state directory.

The application on the primary never notices what happens to the secondary's disk; what it is told of its own is true. The copy that cannot
follow says why, and is made whole again when it can be.
"""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.lab import disk
from tests.faults import provoke
from tests.faults.application import JOURNAL
from tests.faults.provoke import needs_strace, tracing
from tests.faults.scene import FaultNode, Scene, wait_until
from tests.posix.node import free_address, know_each_other

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]
DATA_BYTES, STATE_BYTES = 32 << 20, 8 << 20
sides = pytest.mark.parametrize("side", ["primary", "secondary"])


def run(*command: str, check: bool = True) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 or not check, f"{command}: {done.stderr}"


class DiskNode(FaultNode):
    """A node with small disks."""

    def __init__(self, path: Path, name: str, listen: str, peer: str) -> None:
        super().__init__(path, name, listen, peer)
        self.home = path / name
        self.disks = {self.home / "disk": DATA_BYTES, self.state: STATE_BYTES}
        for place, size_bytes in self.disks.items():
            place.mkdir(exist_ok=True)
            disk.create(place.with_suffix(".image"), size_bytes)
            self.mount_disk(place)
        self.directories = [self.home / "disk" / "data", self.home / "disk" / "wal"]
        for directory in self.directories:
            directory.mkdir()

    def mount_disk(self, place: Path) -> None:
        run("mount", "-o", "loop,errors=remount-ro", str(place.with_suffix(".image")), str(place))

    def repair(self, place: Path) -> None:
        """What an administrator does when its file system has given up. The process is dead."""
        for directory in self.directories:
            while subprocess.run(["umount", "-l", str(directory)], capture_output=True, check=False).returncode == 0:
                pass
        run("umount", str(place))
        run("e2fsck", "-fy", str(place.with_suffix(".image")), check=False)
        self.mount_disk(place)

    def fill(self, place: Path) -> Path:
        """Not a byte is left."""
        filler = place / "filler"
        with filler.open("wb") as file:
            for size_bytes in (1 << 20, 4096, 1):
                while True:
                    try:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size_bytes)
                    except OSError as failure:
                        assert failure.errno == errno.ENOSPC
                        break
        return filler

    def clean(self) -> None:
        super().clean()
        for place in self.disks:
            subprocess.run(["umount", "-l", str(place)], capture_output=True, check=False)


@pytest.fixture(scope="module")
def small() -> Iterator[Scene]:
    """A pair on small disks."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse") or not os.path.exists("/dev/loop-control"):
        pytest.skip("needs root, /dev/fuse and loop devices")
    with tempfile.TemporaryDirectory(prefix="lockstep-disks-", dir="/var/tmp") as path:
        here, there = free_address(), free_address()
        nodes: list[DiskNode] = []
        try:
            nodes += [DiskNode(Path(path), "a", here, there), DiskNode(Path(path), "b", there, here)]
            know_each_other(*nodes)
            for node, role in zip(nodes, ("primary", "secondary"), strict=True):
                result = node.mount(role)
                assert result.returncode == 0, result.stderr
            yield Scene(Path(path), *nodes)
        finally:
            for node in nodes:
                node.clean()


@pytest.fixture
def scene(small: Scene) -> Iterator[Scene]:
    yield small
    small.application.abandon()
    for node in small.nodes:
        for place in (node.state, node.state.parent / "disk"):
            (place / "filler").unlink(missing_ok=True)


def pair(scene: Scene) -> tuple[DiskNode, DiskNode]:
    primary = scene.begin()
    secondary = scene.other(primary)
    assert isinstance(primary, DiskNode) and isinstance(secondary, DiskNode)
    return primary, secondary


def test_a_full_secondary_leaves_waits_for_room_and_comes_back(scene: Scene) -> None:
    primary, secondary = pair(scene)
    filler = secondary.fill(secondary.home / "disk")
    (primary.directories[1] / "large").write_bytes(os.urandom(4 << 20))
    wait_until(lambda: primary.shown()["code"] == "PEER_LEFT", "the primary goes on alone")
    assert "No space left" in primary.shown()["reason"]
    scene.application.wait_more(100)
    assert "free here" in secondary.shown()["reason"] and secondary.shown()["data"] == "OUTDATED"
    decided = scene.said(secondary, "decided outcome")
    wait_until(lambda: secondary.shown()["link"] == "handshaking", "the secondary would try again, and finds no room")
    scene.application.wait_more(300)
    assert scene.said(secondary, "decided outcome") == decided and secondary.shown()["data"] == "OUTDATED"
    filler.unlink()
    scene.settle(takeover=False)


@needs_strace
@pytest.mark.parametrize("calls", ["fsync,fdatasync", "pwrite64"])
def test_a_secondary_whose_disk_fails_is_failed_until_it_is_resynced(scene: Scene, calls: str) -> None:
    primary, secondary = pair(scene)
    journal = f"/{scene.application.below}/{JOURNAL}"
    with tracing(secondary.pid, f"{calls}:error=EIO:when=2", secondary.steps.with_suffix(".strace"), [journal]):
        wait_until(lambda: primary.shown()["code"] == "PEER_LEFT", "the primary goes on alone")
    assert "disk failed" in primary.shown()["reason"] and primary.shown()["mode"] == "alone"
    assert secondary.shown()["record"]["data"] == "FAILED" and "Input/output error" in secondary.shown()["reason"]
    assert not secondary.shown()["promotable"]
    scene.application.wait_more()
    wait_until(lambda: scene.said(secondary, "cached pages thrown away"), "the failed copy is compared with what its disk holds")
    scene.settle(takeover=False)


@needs_strace
@pytest.mark.parametrize("calls", ["fsync,fdatasync", "pwrite64"])
def test_a_primary_whose_disk_fails_gives_way(scene: Scene, calls: str) -> None:
    primary, secondary = pair(scene)
    journal = f"/{scene.application.below}/{JOURNAL}"
    with tracing(primary.pid, f"{calls}:error=EIO:when=2", primary.steps.with_suffix(".strace"), [journal]):
        wait_until(lambda: primary.shown()["record"]["data"] == "FAILED", "the primary finds that its disk fails")
        wait_until(lambda: primary.shown()["role"] == "secondary", "and gives way")
    assert secondary.shown()["promotable"], secondary.shown()["promotable_reason"]
    secondary.promote(granted=False)
    scene.application.stop()
    scene.application.start(secondary)
    scene.application.wait_more()
    scene.settle(takeover=False)
    assert scene.primary() is secondary


@sides
def test_a_file_system_that_gives_up_is_a_failed_disk(scene: Scene, side: str) -> None:
    primary, secondary = pair(scene)
    victim, other = (primary, secondary) if side == "primary" else (secondary, primary)
    run("mount", "-o", "remount,abort", str(victim.home / "disk"))
    wait_until(lambda: victim.shown()["record"]["data"] == "FAILED", f"{victim.name} finds that its disk fails")
    if victim is primary:
        wait_until(lambda: other.shown()["promotable"], "the secondary may be promoted")
        other.promote(granted=False)
        scene.application.stop()
        scene.application.start(other)
    scene.application.wait_more()
    victim.kill()
    victim.repair(victim.home / "disk")
    scene.settle(takeover=False)


def test_a_full_primary_says_so_and_both_stay_equal(scene: Scene) -> None:
    primary, _ = pair(scene)
    scene.application.stop()
    wal = primary.directories[1]
    with pytest.raises(OSError, match="No space left"), (wal / "too large").open("wb", buffering=0) as file:
        while True:
            file.write(os.urandom(1 << 20))
    with pytest.raises(OSError, match="No space left"), (wal / "fallocated").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 8 << 20)
    with pytest.raises(OSError, match="No space left"):
        for number in range(1 << 20):
            (wal / f"inode {number}").symlink_to("x" * 200)
    source = os.open(wal / "too large", os.O_RDONLY)
    with pytest.raises(OSError, match="No space left"), (wal / "copied").open("wb") as file:
        while True:
            os.copy_file_range(source, file.fileno(), 1 << 20, 0)
    os.close(source)
    assert scene.primary() is primary
    scene.check(primary)
    (wal / "too large").unlink()
    scene.settle(takeover=False)


@sides
def test_a_full_state_directory_holds_nothing_up(scene: Scene, side: str) -> None:
    primary, secondary = pair(scene)
    victim = primary if side == "primary" else secondary
    filler = victim.fill(victim.state)
    provoke.rejoin(scene, primary, secondary)
    assert scene.wait_paired() is primary
    scene.application.wait_more()
    provoke.swap(scene, primary, secondary)
    assert scene.wait_paired() is secondary
    scene.application.stop()
    filler.unlink()
    scene.settle(takeover=False)

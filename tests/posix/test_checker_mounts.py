"""Checkers of disks and of the mirror, with real ones: a small disk that fills up or gives up, an rfsmount that is frozen or dies."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from orchestrator.checkers import disk, write
from orchestrator.checkers.checker import Finding
from orchestrator.checkers.disk import DiskChecker, Place, place_of
from orchestrator.checkers.process import Wanted, find
from orchestrator.checkers.write import WriteChecker, mirror_device
from orchestrator.effects import processes
from rfs.mount_table import parse_mount_table, read_mount_table
from tests.posix.node import Node, needs_mounts

pytestmark = [pytest.mark.mount, needs_mounts]
SIZE = "32M"


def run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


class SmallDisk:
    """An ext4 of its own in a file, mounted."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(parents=True, exist_ok=True)
        image = place.with_suffix(".image")
        run("truncate", "-s", SIZE, image)
        run("mkfs.ext4", "-q", "-m", "0", "-N", "512", image)
        run("mount", "-o", "loop", image, place)

    def fill(self) -> None:
        """To the last block."""
        found = os.statvfs(self.place)
        run("fallocate", "-l", found.f_bavail * found.f_frsize, self.place / "filler")

    def remove(self) -> None:
        """With everything that lies on it."""
        while subprocess.run(["umount", "-l", str(self.place)], capture_output=True, check=False).returncode == 0:
            pass


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    if not Path("/dev/loop-control").exists():
        pytest.skip("needs loop devices")
    found = SmallDisk(tmp_path / "disk")
    yield found
    found.remove()


async def look(checker: DiskChecker | WriteChecker, within_s: float = 30) -> Finding:
    with trio.fail_after(within_s):
        return await checker.look()


# ---- disk ---------------------------------------------------------------------------------------------------------------------


async def test_a_disk_that_fills_up(small: SmallDisk) -> None:
    inside = small.place / "data"
    inside.mkdir()
    checker = DiskChecker([str(inside), "/proc"], "5%", "5%")
    finding = await look(checker)
    assert finding.up and finding.text.startswith("at least 9") and finding.text.endswith(" % are free"), finding
    small.fill()
    finding = await look(checker)
    assert not finding.up and finding.text.startswith(f"{inside} has ") and finding.text.endswith(", less than 5%"), finding
    (small.place / "filler").unlink()
    assert (await look(checker)).up
    assert not (await look(DiskChecker([str(inside)], "1GiB"))).up
    for number in range(500):
        try:
            (inside / str(number)).touch()
        except OSError:
            break
    finding = await look(checker)
    assert not finding.up and " inodes free, less than 5%" in finding.text, finding


async def test_a_disk_that_becomes_read_only(small: SmallDisk) -> None:
    checker = DiskChecker([str(small.place)], "0%", "0%")
    assert (await look(checker)).up
    run("mount", "-o", "remount,ro", small.place)
    assert await look(checker) == Finding(False, f"{small.place} lies on a file system that is read-only")
    run("mount", "-o", "remount,rw", small.place)
    run("mount", "--bind", small.place, small.place)
    run("mount", "-o", "remount,bind,ro", small.place)
    assert (await look(checker)).up, "a guard is read-only, and the file system is not"


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    finding = await look(DiskChecker([str(tmp_path / "gone")]))
    assert finding == Finding(False, f"{tmp_path / 'gone'} cannot be looked at: No such file or directory")


MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 254:7 / /mnt rw - ext4 /dev/vdb ro
40 22 254:0 /srv/pg /srv/pg ro,relatime - ext4 /dev/vda rw
41 40 0:55 /0 /srv/pg rw,nosuid - fuse.lockstep lockstep rw
42 22 254:8 / /srv/own rw - ext4 /dev/vdc rw
43 42 254:8 / /srv/own ro - ext4 /dev/vdc rw
44 43 0:55 /1 /srv/own rw,nosuid - fuse.lockstep lockstep rw
45 44 0:56 /1 /srv/own rw,nosuid - fuse.lockstep lockstep rw
46 22 254:0 /elsewhere /srv/bound rw - ext4 /dev/vda rw
47 46 0:55 /1 /srv/bound rw,nosuid - fuse.lockstep lockstep rw
48 30 254:7 /x /mnt/x ro - ext4 /dev/vdb ro
"""


def test_where_the_data_is_asked_for_and_never_the_mirror() -> None:
    table = parse_mount_table(MOUNTINFO.splitlines())
    assert place_of("/srv/pg", table) == Place("/srv", 0, False)
    assert place_of("/srv/own", table) == Place("/srv/own", 2, False), "a file system of its own, beneath a guard and two mirrors"
    assert place_of("/srv/bound", table) == Place("/srv", 0, False), "the same file system at another place of it"
    assert place_of("/mnt/x", table) == Place("/mnt/x", 0, True) and place_of("/mnt/data", table) == Place("/mnt/data", 0, True)
    assert place_of("/srv", table) == Place("/srv", 0, False)
    assert mirror_device("/srv/own", table) == os.makedev(0, 56)
    assert mirror_device("/srv", table) is None and mirror_device("/mnt/x", table) is None


async def test_a_disk_below_a_mirror_that_is_frozen(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    """Where the directory is a file system of its own, and where it is not."""
    a, _ = nodes
    own = SmallDisk(a.directories[0])
    try:
        assert a.mount("primary").returncode == 0
        assert place_of(str(a.directories[0]), read_mount_table()).layers == 1
        pid = int((a.state / "rfsmount.pid").read_text())
        os.kill(pid, signal.SIGSTOP)
        try:
            checker = DiskChecker([str(directory) for directory in a.directories], "5%", "1%")
            assert (await look(checker, 30)).up
            room = disk.measure(place_of(str(a.directories[0]), read_mount_table()))
            assert 8 << 20 < room.total_bytes < 32 << 20, "the small one, not this machine's"
            beneath = await look(DiskChecker([str(a.directories[0])], "1GiB"), 30)
            assert not beneath.up and "less than 1GiB" in beneath.text
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (a.directories[0] / "lost+found").exists(), "the child took nothing off but for itself"
    finally:
        a.clean()
        own.remove()


# ---- write --------------------------------------------------------------------------------------------------------------------


async def test_a_write_goes_to_both_and_comes_back(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    checker = WriteChecker([str(directory) for directory in a.directories], "a")
    assert await look(checker) == Finding(False, f"{a.directories[0]} is not mounted: there is no mirror to write through")
    assert list(a.directories[0].iterdir()) == []
    assert a.mount("primary").returncode == 0 and b.mount("secondary").returncode == 0
    a.until(link="paired")
    (a.directories[0] / ".lockstep-probe.a").write_text("left behind by one that was killed")
    before = a.status()["seq"]
    finding = await look(checker)
    assert finding.up and finding.text.startswith("written through the mirror and read back in "), finding
    assert int(str(a.status()["seq"])) >= int(str(before)) + 6, "created, written and removed, in both"
    assert a.tree() == b.tree() == {}
    on_the_other = await look(WriteChecker([str(b.directories[0])], "b"))
    assert not on_the_other.up and on_the_other.text.endswith("is not mounted: there is no mirror to write through"), on_the_other


async def test_a_mirror_that_is_frozen_leaves_one_process_and_no_thread(nodes: tuple[Node, Node]) -> None:
    a, _ = nodes
    checker = WriteChecker([str(a.directories[0])], "a")
    assert a.mount("primary").returncode == 0
    assert (await look(checker)).up
    pid = int((a.state / "rfsmount.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(4):
            checker = WriteChecker([str(a.directories[0])], "a")  # a window more
            with trio.move_on_after(3) as deadline:
                finding = await checker.look()
                # Killed at the deadline of the look before, and still there: rfsmount had read its request already, or it takes a moment.
                assert not finding.up and "still waits for the last write" in finding.text, finding
            assert deadline.cancelled_caught or write._left
            assert len(probes_in(a.directories[0])) <= 1
            assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    finally:
        os.kill(pid, signal.SIGCONT)
    with trio.fail_after(30):
        for process in probes_in(a.directories[0]):
            await processes.wait_dead(process)
    assert (await look(checker)).up
    assert a.tree() == {}


def probes_in(directory: Path) -> list[processes.Process]:
    return find(Wanted(argument_regex=f"probe.py {directory} "))


async def test_a_mirror_that_is_dead(nodes: tuple[Node, Node]) -> None:
    a, _ = nodes
    checker = WriteChecker([str(a.directories[0])], "a")
    assert a.mount("primary").returncode == 0
    a.kill()
    with trio.fail_after(30):
        while (finding := await look(checker)).up:
            pass
    assert finding.text.startswith(f"{a.directories[0]} ") and ("connect" in finding.text or "abort" in finding.text), finding


async def test_a_disk_that_is_full_is_said(nodes: tuple[Node, Node]) -> None:
    a, _ = nodes
    own = SmallDisk(a.directories[0])
    try:
        own.fill()
        assert a.mount("primary").returncode == 0
        finding = await look(WriteChecker([str(a.directories[0])], "a"))
        assert finding == Finding(False, f"{a.directories[0]} cannot be written to: No space left on device"), finding
    finally:
        a.clean()
        own.remove()

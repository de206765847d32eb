"""The snapshot of what a resync overwrites: kept where the file system clones files, and the way back to it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.lab.trees import Manifest, differences, manifest
from rfs import exit_codes
from tests.posix.node import Node, free_address, know_each_other, needs_mounts

pytestmark = [pytest.mark.mount, needs_mounts]

DISK_BYTES = 512 << 20
SLOWLY = ("--resync-bandwidth", str(2 << 20))
QUICKLY_LOST = ("--link-timeout", "1")
OURS = (".lockstep-before", ".lockstep-holding")


def mount_disk(place: Path, kind: str) -> None:
    image = place.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    make = ["mkfs.xfs", "-q", "-m", "reflink=1"] if kind == "xfs" else ["mkfs.ext4", "-q", "-F"]
    place.mkdir()
    for command in ([*make, str(image)], ["mount", "-o", "loop", str(image), str(place)]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except FileNotFoundError:
            pytest.skip(f"needs {command[0]}")
        if done.returncode:
            pytest.skip(f"needs a loop-mounted {kind}: {done.stderr.strip()}")


@pytest.fixture
def on_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Node, Node]]:
    """A pair whose second node's trees lie on such a file system."""
    disk = tmp_path / "disk"
    mount_disk(disk, request.param)
    here, there = free_address(), free_address()
    a, b = Node(tmp_path, "a", here, there), Node(tmp_path, "b", there, here)
    b.directories = [disk / "data", disk / "wal"]
    for directory in b.directories:
        directory.mkdir()
    know_each_other(a, b)
    below = tmp_path / "below"  # what no layer covers
    below.mkdir()
    subprocess.run(["mount", "--bind", str(disk), str(below)], check=True)
    yield a, b
    b.clean()
    a.clean()
    for place in (below, disk):
        subprocess.run(["umount", "-l", str(place)], check=True)


def ours(b: Node) -> list[Path]:
    """What Lockstep has put into the second node's trees."""
    below = b.directories[0].parent.parent / "below"
    return [below / directory.name / name for directory in b.directories for name in OURS if (below / directory.name / name).exists()]


on_xfs = pytest.mark.parametrize("on_disk", ["xfs"], indirect=True)
on_ext4 = pytest.mark.parametrize("on_disk", ["ext4"], indirect=True)


def fill(root: Path) -> None:
    for number in range(30):
        directory = root / f"d{number % 5}" / "inner"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file{number}").write_bytes(os.urandom(200_000))
    os.link(root / "d0" / "inner" / "file0", root / "second name")
    os.symlink("d1", root / "link")
    os.setxattr(root / "d1", "user.colour", b"blue")
    os.mkfifo(root / "pipe")


def change(root: Path) -> None:
    """Every kind of change, and enough bytes that the resync takes a while."""
    for number in range(0, 30, 2):
        with (root / f"d{number % 5}" / "inner" / f"file{number}").open("r+b") as file:
            file.write(os.urandom(150_000))
    (root / "d1" / "inner" / "file1").unlink()
    os.rename(root / "d2" / "inner", root / "d3" / "moved")
    os.rename(root / "d4", root / "d0" / "d4")
    (root / "link").unlink()
    (root / "link").mkdir()
    (root / "second name").unlink()
    os.truncate(root / "d3" / "inner" / "file3", 1000)
    os.chmod(root / "d1", 0o700)
    os.removexattr(root / "d1", "user.colour")
    (root / "pipe").unlink()
    for number in range(10):
        (root / f"new{number}").write_bytes(os.urandom(500_000))


def trees(node: Node) -> list[Manifest]:
    return [manifest(str(node.directories[0])), manifest(str(node.directories[1]))]


def equal(one: list[Manifest], other: list[Manifest]) -> None:
    for here, there in zip(one, other, strict=True):
        assert differences(here, there) == []


def inside_a_resync(a: Node, b: Node) -> list[Manifest]:
    """The secondary is being overwritten; what it was before is returned."""
    fill(a.directories[0])
    assert a.mount("primary", "--checkpoint", "1", *SLOWLY, *QUICKLY_LOST).returncode == exit_codes.DONE
    assert b.mount("secondary", "--checkpoint", "1", *QUICKLY_LOST).returncode == exit_codes.DONE
    a.until(link="paired")
    time.sleep(2.5)  # a checkpoint
    before = trees(a)
    equal(before, trees(b))
    b.kill()
    a.until(link="alone")
    change(a.directories[0])
    start(b)
    b.until(link="resyncing", data="INCONSISTENT")
    time.sleep(1)
    return before


def start(node: Node) -> None:
    """A secondary; that it is not live at once (its peer is busy, or dead) is no matter here."""
    command = [*map(str, node.directories), "--role", "secondary", *node.options[:-1], "1", "--checkpoint", "1", *QUICKLY_LOST]
    node.run("mount", *command)


@on_xfs
@pytest.mark.parametrize("killed", [False, True], ids=["", "target killed too"])
def test_force_goes_back_to_what_it_was(on_disk: tuple[Node, Node], killed: bool) -> None:
    a, b = on_disk
    before = inside_a_resync(a, b)
    status = b.status()
    assert status["snapshot"] == "kept" and isinstance(status["resync"], dict) and status["resync"]["snapshot"] == "kept"
    a.kill()
    if killed:
        b.kill()
        start(b)
    b.until(link="connecting", data="INCONSISTENT", snapshot="kept")
    assert b.run("promote").returncode == exit_codes.REFUSED
    forced = b.run("promote", "--force")
    assert forced.returncode == exit_codes.DONE, forced.stderr
    b.until(role="primary", link="alone", data="UPTODATE", snapshot=None)
    equal(before, trees(b))
    assert ours(b) == []
    (b.directories[0] / "life goes on").write_text("here")
    for directory in a.directories:  # the kernel's side of the dead process
        subprocess.run(["umount", "-l", str(directory)], capture_output=True, check=False)
    a.run("mount", *map(str, a.directories), "--role", "secondary", *a.options[:-1], "1")
    b.until(link="diverged", code="DIVERGED")  # the new name is nobody else's: nothing is overwritten
    assert (b.directories[0] / "life goes on").read_text() == "here"


@on_xfs
def test_it_goes_when_the_resync_ends(on_disk: tuple[Node, Node]) -> None:
    a, b = on_disk
    inside_a_resync(a, b)
    b.kill()
    start(b)
    a.until(link="paired")
    b.until(link="paired", data="UPTODATE", snapshot=None)
    deadline = time.monotonic() + 10
    while ours(b):
        assert time.monotonic() < deadline, ours(b)
        time.sleep(0.1)
    equal(trees(a), trees(b))


@on_ext4
def test_without_clones_there_is_none_and_status_says_so(on_disk: tuple[Node, Node]) -> None:
    a, b = on_disk
    inside_a_resync(a, b)
    a.kill()
    b.until(link="connecting", data="INCONSISTENT", snapshot="none")
    warnings = b.status()["warnings"]
    assert isinstance(warnings, list) and [found["code"] for found in warnings] == ["NO_SNAPSHOT"]
    refused = b.run("promote", "--force")
    assert refused.returncode == exit_codes.REFUSED and "INCONSISTENT" in refused.stderr
    assert b.status()["data"] == "INCONSISTENT"

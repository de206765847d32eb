"""Where a service's cgroup lies, from texts as kernels write them; and, where this machine lets us, real ones."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.effects import processes
from orchestrator.effects.cgroups import Cgroup, find_place, own_groups

DEBIAN = "29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "30 23 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
    "31 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "32 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
BELOW = "29 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
READ_ONLY = "29 23 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup2 rw\n"
SPACE = "29 23 0:26 / /mnt/a\\040b rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "own", "expected"),
    [
        (DEBIAN, "0::/system.slice/hactld.service\n", "/sys/fs/cgroup/system.slice/hactld.service"),
        (DEBIAN, "0::/\n", "/sys/fs/cgroup"),
        (HYBRID, "8:memory:/other\n0::/lab/node1\n", "/sys/fs/cgroup/unified/lab/node1"),
        (BELOW, "0::/docker/abc/hactld\n", "/sys/fs/cgroup/hactld"),
        (BELOW, "0::/docker/abc\n", "/sys/fs/cgroup"),
        (BELOW, "0::/docker/abcd\n", None),
        (READ_ONLY, "0::/\n", None),
        (DEBIAN, "0::/../outside\n", None),
        (DEBIAN, "4:memory:/only/the/old/hierarchies\n", None),
        ("", "0::/\n", None),
        (SPACE, "0::/x\n", "/mnt/a b/x"),
    ],
)
def test_the_place_is_below_our_own_group(mountinfo: str, own: str, expected: str | None) -> None:
    assert own_groups(mountinfo, own) == ([Path(expected)] if expected else [])


def test_of_several_mounts_some_may_be_hidden() -> None:
    """As in a node of the lab, whose /sys lies over the host's: the right one is where we are found."""
    mountinfo = HYBRID + "60 30 0:50 / /sys rw - sysfs sysfs rw\n61 60 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    assert own_groups(mountinfo, "0::/x\n") == [Path("/sys/fs/cgroup/unified/x"), Path("/sys/fs/cgroup/x")]
    place = find_place()
    assert place is None or str(os.getpid()) in (place.parent / "cgroup.procs").read_text().split()


def test_a_plain_directory_is_no_cgroup(tmp_path: Path) -> None:
    assert not Cgroup(tmp_path / "group").create()
    (tmp_path / "file").touch()
    assert not Cgroup(tmp_path / "file" / "group").create()


def test_a_group_that_is_gone_is_empty(tmp_path: Path) -> None:
    gone = Cgroup(tmp_path / "gone")
    assert gone.members() == [] and not gone.kill()
    gone.thaw()
    gone.remove()


@pytest.fixture
def group() -> Iterator[Cgroup]:
    place = find_place()
    made = Cgroup(place / f"test.{Path('/proc/self').resolve().name}") if place else None
    if made is None or not made.create():
        pytest.skip("no unified cgroup hierarchy can be written here")
    yield made
    made.kill()
    made.remove()
    assert not made.path.exists()


def start_far_below(group: Cgroup) -> subprocess.Popen[bytes]:
    """Four processes in two sessions and two groups."""
    script = f"echo 0 > {group.path}/cgroup.procs; mkdir {group.path}/below; setsid sh -c 'echo 0 > {group.path}/below/cgroup.procs; "
    script += "sleep 1000 & sleep 1000; wait' & wait"
    child = subprocess.Popen(["sh", "-c", script], start_new_session=True)
    while len(group.members()) < 4:
        assert child.poll() is None
    return child


async def test_one_stroke_reaches_who_is_far_below(group: Cgroup) -> None:
    child = start_far_below(group)
    members = [process for pid in group.members() if (process := processes.find(pid)) is not None]
    await group.freeze()
    assert "frozen 1" in (group.path / "cgroup.events").read_text()
    assert group.kill()
    assert await processes.all_dead(members, 5.0), "also while frozen"
    child.wait()
    assert group.members() == []

"""Which directories are refused, and what is read from the mount table: no mount is made here."""

import os
import subprocess
from pathlib import Path

import pytest

from rfs import exit_codes
from rfs.directory_checks import check_existing, holders, refuse_holders, resolve_directories
from rfs.errors import SaidNo
from rfs.mount_table import beneath, parse_mount_table, stack_at
from rfs.rules import same_disks
from rfs.state_directory import Directories, Given, StateDirectory, judge, read_directories, write_directories

MOUNTINFO = [
    "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw",
    "40 22 254:0 /srv/pg /srv/pg ro,relatime - ext4 /dev/vda rw",
    "41 40 0:55 /0 /srv/pg rw,nosuid - fuse.lockstep lockstep rw",
    "50 22 0:60 / /srv/with\\040space\\012line rw - tmpfs tmpfs rw",
    "51 22 0:61 / /srv/pgother rw - tmpfs tmpfs rw",
]


def test_the_stack_of_a_directory_is_told_from_the_bottom() -> None:
    table = parse_mount_table(MOUNTINFO)
    assert [entry.mount_id for entry in stack_at("/srv/pg", table)] == [40, 41]
    assert [entry.mount_id for entry in stack_at("/srv/pg", list(reversed(table)))] == [40, 41]
    assert stack_at("/srv/pg", table)[-1].is_ours
    assert stack_at("/srv/pg", table)[0].is_read_only
    assert beneath("/srv", table) == ["/srv/pg", "/srv/pgother", "/srv/with space\nline"]
    assert beneath("/srv/pg", table) == []


@pytest.mark.parametrize(
    ("directories", "sentence"),
    [
        (["/"], "root of the system"),
        (["/usr"], "system tree"),
        (["/proc/sys"], "system tree"),
        (["{tmp}/a", "{tmp}/a"], "given twice"),
        (["{tmp}/a", "{tmp}/link"], "given twice"),
        (["{tmp}/a", "{tmp}/a/b"], "nested"),
        (["{tmp}/a/b", "{tmp}/a"], "nested"),
        (["{tmp}"], "contains the state directory"),
        (["{tmp}/state/x"], "inside the state directory"),
    ],
)
def test_names_that_are_refused(tmp_path: Path, directories: list[str], sentence: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(SaidNo, match=sentence) as refusal:
        resolve_directories([directory.format(tmp=tmp_path) for directory in directories], str(tmp_path / "state"))
    assert refusal.value.exit_code == exit_codes.CONFIGURATION_INVALID
    assert "\n" not in refusal.value.sentence


def test_names_that_are_taken(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "wal").symlink_to(tmp_path / "elsewhere")
    found = resolve_directories([f"{tmp_path}/data", f"{tmp_path}/wal"], str(tmp_path / "state"))
    assert found == [f"{tmp_path}/data", f"{tmp_path}/elsewhere"]


def test_what_must_exist(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "data").mkdir()
    check_existing(str(tmp_path / "data"), [])
    with pytest.raises(SaidNo, match="does not exist"):
        check_existing(str(tmp_path / "missing"), [])
    with pytest.raises(SaidNo, match="no directory"):
        check_existing(str(tmp_path / "file"), [])
    inner = parse_mount_table([f"9 1 0:1 / {tmp_path}/data/inner rw - tmpfs tmpfs rw"])
    with pytest.raises(SaidNo, match="another file system is mounted beneath"):
        check_existing(str(tmp_path / "data"), inner)


def test_holders_are_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "open file").touch()
    with subprocess.Popen(["sleep", "60"], stdin=open(tmp_path / "data" / "open file")) as sleeper:  # noqa: SIM115
        try:
            assert [(pid, path) for pid, _, path in holders([str(tmp_path / "data")])] == [(sleeper.pid, f"{tmp_path}/data/open file")]
            with pytest.raises(SaidNo, match=rf"sleep \(pid {sleeper.pid}") as refusal:
                refuse_holders([str(tmp_path / "data")])
            assert refusal.value.exit_code == exit_codes.REFUSED
        finally:
            sleeper.kill()
    assert list(holders([str(tmp_path / "data")])) == []


def test_a_state_directory_has_one_owner_and_a_fixed_number_of_directories(tmp_path: Path) -> None:
    first = StateDirectory(str(tmp_path / "state"))
    first.take()
    first.write_pid()
    with pytest.raises(SaidNo, match=rf"in use by rfsmount \(pid {os.getpid()}\)") as refusal:
        StateDirectory(str(tmp_path / "state")).take()
    assert refusal.value.exit_code == exit_codes.REFUSED
    assert first.check_directories(["/a", "/b"]) == Given(pending=0, new=0)
    write_directories(first.path, Directories(("/a", "/b")))
    assert first.check_directories(["/a", "/moved"]) == Given(pending=0, new=0)
    assert first.check_directories(["/a", "/b", "/c"]) == Given(pending=1, new=1)
    for others in (["/a"], ["/c", "/a", "/b"], ["/a", "/c", "/b"]):
        with pytest.raises(SaidNo, match=f"has 2 directories, {len(others)} were given"):
            first.check_directories(others)


PENDING = Directories(("/a", "/b", "/c"), pending=2)  # /a alone was ever mirrored


@pytest.mark.parametrize(
    ("paths", "given"),
    [
        (["/a", "/b", "/c"], Given(pending=2, new=0)),
        (["/a", "/b"], Given(pending=1, new=0)),
        (["/a"], Given(pending=0, new=0)),
        (["/a", "/b", "/c", "/d"], Given(pending=3, new=1)),
        ([], None),
        (["/b"], None),
        (["/a", "/c"], None),
    ],
)
def test_what_was_added_and_has_never_been_mirrored_may_be_taken_back(paths: list[str], given: Given | None) -> None:
    assert judge(PENDING, paths) == given


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"count": 1}', '{"paths": 3}', '{"paths": ["/a"], "pending": 1}', '{"paths": ["/a"], "pending": -1}']
)
def test_a_list_of_directories_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "directories").write_text(text)
    assert read_directories(str(tmp_path)) is None
    (tmp_path / "directories").write_text('{"count": 1, "paths": ["/a"]}')  # as it was written before there was a word for it
    assert read_directories(str(tmp_path)) == Directories(("/a",))
    write_directories(str(tmp_path), PENDING)
    assert read_directories(str(tmp_path)) == PENDING


def test_a_directory_more_is_no_other_disk() -> None:
    for then, now in (("8:1", "8:1"), ("8:1", "8:1,8:2"), ("8:1,8:2", "8:1"), ("8:1,8:2", "8:1,8:2,8:1")):
        assert same_disks(then, now)
    for then, now in (("8:1", "8:10"), ("8:1,8:2", "8:1,8:3"), ("8:1", "8:2,8:1"), ("", "8:1")):
        assert not same_disks(then, now)

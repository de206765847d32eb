"""Modes, umask, ACLs and times: as a plain directory beside the mount has them, for the same steps of the same users."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.posix.conftest import Pair

pytestmark = pytest.mark.mount

USER, GROUP, OTHER_GROUP = 1234, 2345, 3456


@pytest.fixture
def both(pair: Pair, request: pytest.FixtureRequest) -> Iterator[tuple[Path, Path]]:
    """A directory on the mount and a plain one, on the same backing file system."""
    mounted = pair.root / request.node.name[:60]
    mounted.mkdir()
    with tempfile.TemporaryDirectory(prefix="lockstep-plain-", dir="/var/tmp") as plain:
        for path in (mounted, Path(plain)):
            path.chmod(0o777)
        yield mounted, Path(plain)


def as_user(do: Callable[[], None], uid: int = USER, groups: tuple[int, ...] = (GROUP,), umask: int = 0o022) -> int:
    """Do it in a process of that user; 0 or the errno."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            os.setgroups(groups)
            os.setgid(groups[0])
            os.setuid(uid)
            os.umask(umask)
            do()
            code = 0
        except OSError as failure:
            code = failure.errno or 255
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def shown(root: Path) -> list[tuple[str, str, int, int, int, str]]:
    """Names, modes, owners and ACLs below a directory."""
    found = []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        acl = "" if path.is_symlink() else subprocess.run(["getfacl", "-pcn", str(path)], capture_output=True, text=True, check=True).stdout
        name = str(path.relative_to(root))
        found.append((name, stat.filemode(status.st_mode), status.st_uid, status.st_gid, status.st_size, acl))
    return found


def same(both: tuple[Path, Path], do: Callable[[Path], int | None]) -> int | None:
    """The same answer, the same tree."""
    mounted, plain = both
    answers = do(mounted), do(plain)
    assert answers[0] == answers[1], f"on the mount {answers[0]}, on a plain directory {answers[1]}"
    assert shown(mounted) == shown(plain)
    return answers[0]


def setfacl(path: Path, *words: str) -> None:
    subprocess.run(["setfacl", *words, str(path)], check=True)


def make_some(root: Path) -> None:
    (root / "file").touch(0o666)
    (root / "directory").mkdir(0o777)
    os.mkfifo(root / "fifo", 0o666)
    (root / "link").symlink_to("file")
    with open(os.open(root / "narrow", os.O_CREAT | os.O_WRONLY, 0o640), "w") as file:
        file.write("x")


@pytest.mark.parametrize("umask", [0, 0o002, 0o022, 0o077, 0o777])
def test_the_umask_is_the_callers(both: tuple[Path, Path], umask: int) -> None:
    assert same(both, lambda root: as_user(lambda: make_some(root), umask=umask)) == 0


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_a_default_acl_takes_the_umasks_place(both: tuple[Path, Path], umask: int) -> None:
    def do(root: Path) -> int:
        (root / "team").mkdir(0o777)
        (root / "team").chmod(0o777)
        setfacl(root / "team", "-d", "-m", f"u:{USER}:rwx,g:{OTHER_GROUP}:r-x,o::---")
        code = as_user(lambda: make_some(root / "team"), umask=umask)
        return code or as_user(lambda: make_some(root / "team" / "directory"), umask=umask)

    assert same(both, do) == 0


def test_acls_are_enforced(both: tuple[Path, Path]) -> None:
    def do(root: Path) -> int:
        secret = root / "secret"
        secret.write_text("for some")
        secret.chmod(0o600)
        before = as_user(lambda: secret.open().close())
        setfacl(secret, "-m", f"u:{USER}:r")
        reading, writing = as_user(lambda: secret.open().close()), as_user(lambda: secret.open("a").close())
        setfacl(secret, "-m", f"u:{USER}:rw,m::r")
        masked = as_user(lambda: secret.open("a").close())
        setfacl(secret, "-b")
        after = as_user(lambda: secret.open().close())
        return before * 10**8 + reading * 10**6 + writing * 10**4 + masked * 10**2 + after

    assert same(both, do) == 13_00_13_13_13


def test_an_acl_and_the_mode_follow_each_other(both: tuple[Path, Path]) -> None:
    def do(root: Path) -> None:
        file = root / "file"
        file.touch()
        setfacl(file, "-m", f"u:{USER}:rwx")
        file.chmod(0o640)
        setfacl(file, "-m", "m::rwx")
        file.chmod(0o2775)
        os.chown(file, USER, OTHER_GROUP)
        assert as_user(lambda: setfacl(file, "-m", f"u:{USER}:r")) == 0, "who is not of the group loses setgid"

    same(both, do)


def test_setgid_directories_and_what_writing_costs(both: tuple[Path, Path]) -> None:
    def do(root: Path) -> int:
        shared = root / "shared"
        shared.mkdir()
        os.chown(shared, USER, OTHER_GROUP)
        shared.chmod(0o2777)
        code = as_user(lambda: make_some(shared))
        tool = root / "tool"
        tool.write_text("#!/bin/sh\n")
        os.chown(tool, USER, GROUP)
        tool.chmod(0o6777)
        return code or as_user(lambda: os.truncate(tool, 3))

    assert same(both, do) == 0


def test_sticky_directories_and_foreign_files(both: tuple[Path, Path]) -> None:
    def do(root: Path) -> int:
        root.chmod(0o1777)
        (root / "theirs").write_text("x")
        removed = as_user(lambda: (root / "theirs").unlink())
        changed = as_user(lambda: (root / "theirs").chmod(0o777))
        return removed * 100 + changed

    assert same(both, do) == 101


def test_a_ctime_stands_still_when_nothing_changes(pair: Pair) -> None:
    """What was answered when it was made is what is there: nothing of ours comes after it."""
    for make in (lambda path: path.mkdir(), lambda path: path.touch(), lambda path: os.mkfifo(path)):
        path = pair.root / "ctime"
        make(path)
        first = path.lstat()
        with pytest.raises(FileExistsError):
            path.mkdir()
        os.close(os.open(pair.root, os.O_RDONLY))
        assert path.lstat().st_ctime_ns == first.st_ctime_ns
        path.rmdir() if path.is_dir() else path.unlink()


def test_copies_within_the_mount(pair: Pair, request: pytest.FixtureRequest) -> None:
    """copy_file_range: whole files, pieces, over the end, sparse, between two files of which one is unlinked."""
    root = pair.root / request.node.name
    root.mkdir()
    data = os.urandom(20 << 20)
    (root / "source").write_bytes(data)
    sent = int(str(pair.primary.counters()["frame_bytes_sent"]))
    source, target = os.open(root / "source", os.O_RDONLY), os.open(root / "target", os.O_RDWR | os.O_CREAT)
    done = 0
    while more := os.copy_file_range(source, target, 1 << 30):
        assert more <= 8 << 20
        done += more
    assert done == len(data) and (root / "target").read_bytes() == data
    assert int(str(pair.primary.counters()["frame_bytes_sent"])) - sent < 1 << 20, "no data on the wire"
    assert os.copy_file_range(source, target, 1000, offset_src=len(data) - 10, offset_dst=(40 << 20) + 5) == 10
    assert os.copy_file_range(source, target, 1000, offset_src=len(data) + 10, offset_dst=0) == 0
    (root / "source").unlink()
    os.ftruncate(target, 0)
    assert os.copy_file_range(source, target, 4096, offset_src=0, offset_dst=0) == 4096, "from a file that only the primary has"
    with open(root / "inside", "w+b") as file:
        file.write(bytes(range(256)) * 100)
        file.flush()
        assert os.copy_file_range(file.fileno(), file.fileno(), 5000, offset_src=0, offset_dst=10_000) == 5000
    for descriptor in (source, target):
        os.close(descriptor)
    shutil.copy(root / "inside", root / "copied")
    assert (root / "copied").read_bytes() == (root / "inside").read_bytes()

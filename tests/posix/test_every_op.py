"""Every kind of change is mirrored, with its errors where a plain directory has them. `pair` compares both trees at the end."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from tests.posix.conftest import Pair

pytestmark = pytest.mark.mount

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, NOREPLACE, EXCHANGE = -100, 1, 2
PUNCH_HOLE, KEEP_SIZE, ZERO_RANGE = 2, 1, 16


@pytest.fixture
def here(pair: Pair, request: pytest.FixtureRequest) -> Path:
    path = pair.root / request.node.name[:80]
    path.mkdir()
    return path


def rename(source: Path, target: Path, flags: int) -> None:
    if libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags) < 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) < 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def test_writing(here: Path) -> None:
    (here / "small").write_bytes(b"abc")
    (here / "large").write_bytes(os.urandom(5_000_001))
    with open(here / "appended", "ab", buffering=0) as file:
        for _ in range(100):
            file.write(b"line\n")
    with open(here / "sparse", "wb") as file:
        file.seek(1 << 30)
        file.write(b"end")
    fd = os.open(here / "synced", os.O_CREAT | os.O_WRONLY | os.O_SYNC)
    os.write(fd, b"durable")
    os.close(fd)
    fd = os.open(here / "small", os.O_RDWR)
    os.pwrite(fd, b"X", 1)
    os.fsync(fd)
    os.fdatasync(fd)
    os.close(fd)
    assert (here / "small").read_bytes() == b"aXc"


def test_mapped_memory(here: Path) -> None:
    path = here / "mapped"
    path.write_bytes(bytes(100_000))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[50_000:50_005] = b"hello"
        memory.flush()
    assert path.read_bytes()[50_000:50_005] == b"hello"


def test_names(here: Path) -> None:
    for name in ("with space", "with\nnewline", "ünïcode", "x" * 255, "-dash", "'quote\""):
        (here / name).write_text(name)
        (here / name).rename(here / (name[:200] + ".moved"))
    with pytest.raises(OSError, match="too long") as caught:
        (here / ("y" * 256)).touch()
    assert caught.value.errno == errno.ENAMETOOLONG


def test_directories(here: Path) -> None:
    (here / "a/b/c").mkdir(parents=True)
    (here / "a/b/c/file").touch()
    with pytest.raises(OSError) as caught:
        (here / "a/b").rmdir()
    assert caught.value.errno == errno.ENOTEMPTY
    (here / "a/b").rename(here / "moved")
    (here / "moved/c/file").unlink()
    (here / "moved/c").rmdir()
    assert os.listdir(here / "moved") == []
    for number in range(500):
        (here / f"many{number}").mkdir()
    assert len(os.listdir(here)) == 502


def test_links_and_special_files(here: Path) -> None:
    (here / "file").write_text("one")
    os.link(here / "file", here / "hard")
    os.symlink("../nowhere", here / "soft")
    os.symlink("t" * 4000, here / "long")
    os.mkfifo(here / "fifo", 0o640)
    os.mknod(here / "device", stat.S_IFCHR | 0o600, os.makedev(300, 70000))
    os.mknod(here / "socket", stat.S_IFSOCK | 0o600)
    (here / "hard").write_text("two")
    assert (here / "file").read_text() == "two" and (here / "file").stat().st_nlink == 2
    assert (here / "file").stat().st_ino == (here / "hard").stat().st_ino
    assert os.stat(here / "device").st_rdev == os.makedev(300, 70000)
    (here / "file").unlink()
    assert (here / "hard").stat().st_nlink == 1
    with pytest.raises(FileExistsError):
        os.symlink("x", here / "soft")


def test_renames(here: Path) -> None:
    for name in ("a", "b", "c", "d"):
        (here / name).write_text(name)
    os.rename(here / "a", here / "b")
    rename(here / "c", here / "d", EXCHANGE)
    assert ((here / "b").read_text(), (here / "c").read_text()) == ("a", "d")
    with pytest.raises(OSError) as caught:
        rename(here / "c", here / "d", NOREPLACE)
    assert caught.value.errno == errno.EEXIST
    (here / "x").mkdir()
    (here / "y").mkdir()
    rename(here / "x", here / "c", EXCHANGE)
    os.rename(here / "y", here / "c")
    with pytest.raises(OSError):
        os.rename(here / "d", here / "c")


def test_attributes(here: Path) -> None:
    path = here / "file"
    path.write_text("x")
    path.chmod(0o4755)
    os.chown(path, 1000, 1001)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755, "chown takes suid away, as on any file system"
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    assert path.stat().st_mtime_ns == 1_234_567_890_123_456_789
    os.truncate(path, 1_000_000)
    os.truncate(path, 10)
    os.symlink("x", here / "link")
    os.chown(here / "link", 7, 8, follow_symlinks=False)
    os.utime(here / "link", ns=(5, 6), follow_symlinks=False)
    here.chmod(0o2775)
    (here / "inherits").mkdir()
    assert (here / "inherits").stat().st_mode & stat.S_ISGID
    os.utime(here, ns=(1, 2))


def test_extended_attributes(here: Path) -> None:
    path = here / "file"
    path.touch()
    os.setxattr(path, "user.one", b"1" * 1000)
    os.setxattr(path, "user.empty", b"")
    os.setxattr(path, "security.ours", b"s")
    os.setxattr(path, "trusted.ours", b"t")
    os.setxattr(here, "user.directory", b"d")
    with pytest.raises(OSError) as caught:
        os.setxattr(path, "user.one", b"2", os.XATTR_CREATE)
    assert caught.value.errno == errno.EEXIST
    os.setxattr(path, "user.one", b"2", os.XATTR_REPLACE)
    os.removexattr(path, "user.empty")
    assert sorted(name for name in os.listxattr(path) if "lockstep" in name or "user" in name) == ["user.one"]
    with pytest.raises(OSError) as caught:
        os.setxattr(path, "trusted.lockstep.id", b"0" * 16)
    assert caught.value.errno == errno.EPERM


def test_fallocate(here: Path) -> None:
    fd = os.open(here / "file", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x" * 1_000_000)
    fallocate(fd, 0, 0, 2_000_000)
    fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 65536, 131072)
    fallocate(fd, ZERO_RANGE, 500_000, 100_000)
    fallocate(fd, KEEP_SIZE, 2_000_000, 1_000_000)
    assert os.fstat(fd).st_size == 2_000_000
    assert os.pread(fd, 10, 70_000) == bytes(10)
    assert os.lseek(fd, 65536, os.SEEK_HOLE) == 65536
    os.close(fd)


def test_open_files_without_a_name(here: Path) -> None:
    path = here / "gone"
    file = open(path, "w+b")  # noqa: SIM115 - it outlives its name
    file.write(b"before")
    file.flush()
    path.unlink()
    assert os.fstat(file.fileno()).st_nlink == 0
    file.write(b" after")
    file.flush()
    os.fsync(file.fileno())
    file.seek(0)
    assert file.read() == b"before after"
    file.close()
    (here / "old").write_text("old")
    with open(here / "old") as old:
        (here / "new").write_text("new")
        os.rename(here / "new", here / "old")
        assert old.read() == "old" and (here / "old").read_text() == "new"


def test_as_a_user_with_a_umask(here: Path) -> None:
    here.chmod(0o777)
    script = f"umask 027; cd '{here}'; echo x > mine; mkdir d; ln -s x l; echo y >> mine; chmod 600 mine; rm l"
    subprocess.run(["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "sh", "-c", script], check=True)
    assert ((here / "mine").stat().st_uid, stat.S_IMODE((here / "d").stat().st_mode)) == (1234, 0o750)
    (here / "locked").mkdir(mode=0o700)
    refused = subprocess.run(
        ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "touch", str(here / "locked/x")], capture_output=True
    )
    assert refused.returncode != 0


def test_two_directories_are_two_file_trees(pair: Pair) -> None:
    (pair.root / "in-one").write_text("1")
    with pytest.raises(OSError) as caught:
        os.rename(pair.root / "in-one", pair.second_root / "in-two")
    assert caught.value.errno == errno.EXDEV
    (pair.second_root / "in-two").write_text("2")


def test_many_writers_on_one_file(here: Path) -> None:
    """Overlapping parallel writes end alike on both sides, whatever their order was."""
    path = here / "contended"
    path.write_bytes(bytes(1 << 16))

    def write(letter: int) -> None:
        fd = os.open(path, os.O_WRONLY)
        for index in range(200):
            os.pwrite(fd, bytes([letter]) * 4096, index * 1777 % 61440)
        os.close(fd)

    threads = [threading.Thread(target=write, args=(65 + number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_the_secondary_is_guarded(pair: Pair) -> None:
    with pytest.raises(OSError) as caught:
        (pair.secondary.directories[0] / "x").touch()
    assert caught.value.errno == errno.EROFS

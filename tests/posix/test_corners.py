"""Corners that test suites for file systems look into: holes, handles, names, depth, limits, and files that have lost their name."""

from __future__ import annotations

import errno
import mmap
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.posix.conftest import Pair
from tests.posix.rules import answer, in_child
from tests.posix.syscalls import (
    AT_SYMLINK_FOLLOW,
    COLLAPSE_RANGE,
    INSERT_RANGE,
    KEEP_SIZE,
    PUNCH_HOLE,
    ZERO_RANGE,
    fallocate,
    linkat,
    name_to_handle_at,
    open_by_handle_at,
    utimensat,
)

pytestmark = pytest.mark.mount

PAGE = 4096


@pytest.fixture
def here(pair: Pair) -> Iterator[Path]:
    """A directory that is the same on both nodes in the end."""
    path = pair.root / "corner"
    path.mkdir()
    yield path
    pair.mirrored("corner")
    shutil.rmtree(path)


@pytest.fixture
def plain() -> Iterator[Path]:
    """A directory of the same backing file system, without us."""
    with tempfile.TemporaryDirectory(prefix="lockstep-plain-", dir="/var/tmp") as path:
        yield Path(path)


# ---- holes and sizes ---------------------------------------------------------------------------------------------------------------------


def pieces(fd: int) -> list[tuple[int, int]]:
    """Where the data is, as lseek says."""
    found: list[tuple[int, int]] = []
    at = 0
    while True:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as failure:
            assert failure.errno == errno.ENXIO
            return found
        at = os.lseek(fd, start, os.SEEK_HOLE)
        found.append((start, at))


def sought(fd: int, offset: int, whence: int) -> str:
    return answer(lambda: os.lseek(fd, offset, whence))


def test_holes_are_where_a_plain_file_has_them(here: Path, plain: Path) -> None:
    both: list[list[object]] = []
    for root in (here, plain):
        chance, out = random.Random(5), list[object]()
        for how in (os.O_RDWR, os.O_WRONLY):
            path = root / str(how)
            path.touch()
            fd, reader = os.open(path, how), os.open(path, os.O_RDONLY)
            for _ in range(40):
                offset, length = chance.randrange(200) * PAGE, chance.randrange(1, 20) * PAGE
                match chance.randrange(5):
                    case 0:
                        fallocate(fd, PUNCH_HOLE | KEEP_SIZE, offset, length)
                    case 1:
                        fallocate(fd, ZERO_RANGE, offset, length)
                    case 2:
                        os.ftruncate(fd, offset)
                    case _:
                        os.pwrite(fd, b"d" * length, offset)
                os.fsync(fd)  # or what is not written out yet shows as it likes
                out.append((pieces(reader), os.fstat(fd).st_size))  # st_blocks counts the extents' own blocks too, which are chance
            end = os.fstat(reader).st_size
            out += [sought(reader, place, whence) for place in (-1, 0, 1, end - 1, end, end + 1) for whence in (os.SEEK_DATA, os.SEEK_HOLE)]
            os.close(fd)
            os.close(reader)
        both.append(out)
    assert both[0] == both[1]


def test_a_sparse_file_of_a_tebibyte(here: Path) -> None:
    size = 1 << 40
    fd = os.open(here / "sparse", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, size)
    os.pwrite(fd, b"first", 12345)
    os.pwrite(fd, b"last", size - 4)
    fallocate(fd, KEEP_SIZE, size // 2, PAGE)
    assert os.pread(fd, 10, size - 4) == b"last" and os.pread(fd, 5, size // 3) == bytes(5)
    assert len(pieces(fd)) == 3 or len(pieces(fd)) == 2  # an allocated block that was never written may show or not
    os.ftruncate(fd, size * 2)
    os.ftruncate(fd, size - 2)
    assert os.pread(fd, 10, size - 4) == b"la" and os.fstat(fd).st_blocks < 1000
    os.close(fd)


def test_what_moves_bytes_is_refused(here: Path) -> None:
    """docs/posix.md says why; programs fall back to copying."""
    with open(here / "file", "w+b") as file:
        file.write(bytes(10 * PAGE))
        file.flush()
        for mode in (COLLAPSE_RANGE, INSERT_RANGE):
            with pytest.raises(OSError) as caught:
                fallocate(file.fileno(), mode, 0, PAGE)
            assert caught.value.errno == errno.EOPNOTSUPP


def test_direct_io_need_not_be_aligned(here: Path) -> None:
    """docs/posix.md: only the kernel's cache is left out. And it is seen by who reads through the cache."""
    path = here / "direct"
    path.write_bytes(bytes(2 * PAGE))
    fd, reader = os.open(path, os.O_RDWR | os.O_DIRECT), os.open(path, os.O_RDONLY)
    assert os.pread(reader, 1, 0) == b"\0"
    for offset, length in ((0, PAGE), (1, 1), (511, 513), (PAGE - 1, 2), (2 * PAGE - 3, 5)):
        os.pwrite(fd, b"d" * length, offset)
        assert os.pread(reader, length, offset) == b"d" * length == os.pread(fd, length, offset)
    for open_ in (fd, reader):
        os.close(open_)


def over_the_limit(root: Path) -> list[str]:
    """What a process with a file size limit hears."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    out = []
    for how in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND):
        fd = os.open(root / f"limited-{how}", how | os.O_CREAT)
        calls: tuple[Callable[[int], object], ...] = (
            lambda fd: os.write(fd, bytes(9990)),
            lambda fd: os.write(fd, bytes(100)),
            lambda fd: os.write(fd, bytes(100)),
            lambda fd: os.pwrite(fd, b"x", 20_000),
            lambda fd: os.ftruncate(fd, 10_001),
            lambda fd: os.posix_fallocate(fd, 0, 20_000),
            lambda fd: os.ftruncate(fd, 9_000),
            lambda fd: os.fstat(fd).st_size,
        )
        out += [answer(partial(call, fd)) for call in calls]
        os.close(fd)
    return out


def test_a_limit_of_file_size(here: Path, plain: Path) -> None:
    assert in_child(lambda: over_the_limit(here)) == in_child(lambda: over_the_limit(plain))


def test_the_last_moment_that_is_mirrored(here: Path) -> None:
    """Times travel as 64 bits of nanoseconds: until 2262. What lies behind that, which ext4 could keep, becomes its last moment."""
    path = here / "file"
    path.touch()
    for seconds in (9_223_372_037, 15_032_385_535, 1 << 40):
        utimensat(path, (seconds, 0), (seconds, 5))
        assert path.stat().st_mtime_ns == (1 << 63) - 1 and path.stat().st_atime_ns == (1 << 63) - 1


# ---- files without a name, and handles ---------------------------------------------------------------------------------------------------


def test_a_mapping_outlives_the_name(here: Path) -> None:
    path = here / "gone"
    path.write_bytes(bytes(3 * PAGE))
    fd = os.open(path, os.O_RDWR)
    with mmap.mmap(fd, 3 * PAGE) as memory:
        path.unlink()
        memory[PAGE : PAGE + 5] = b"hello"
        memory.flush()
        os.pwrite(fd, b"world", 2 * PAGE)
        assert memory[2 * PAGE : 2 * PAGE + 5] == b"world"
    assert os.pread(fd, 5, PAGE) == b"hello" and os.fstat(fd).st_nlink == 0
    os.ftruncate(fd, 1)
    os.fchmod(fd, 0o600)
    os.utime(fd, ns=(5, 6))
    status = os.fstat(fd)
    assert (status.st_size, status.st_mode & 0o777, status.st_mtime_ns) == (1, 0o600, 6)
    os.close(fd)


def linked_again(root: Path) -> list[str]:
    """By its descriptor: while it has a name, and when it has none."""
    (root / "file").write_text("content")
    fd = os.open(root / "file", os.O_RDWR)
    out = [answer(lambda: linkat(f"/proc/self/fd/{fd}", root / "second", AT_SYMLINK_FOLLOW))]
    (root / "file").unlink()
    out += [str(os.fstat(fd).st_nlink), answer(lambda: linkat(f"/proc/self/fd/{fd}", root / "file", AT_SYMLINK_FOLLOW))]
    (root / "file").unlink()
    (root / "second").unlink()
    out += [str(os.fstat(fd).st_nlink), answer(lambda: linkat(f"/proc/self/fd/{fd}", root / "file", AT_SYMLINK_FOLLOW))]
    out += [answer(lambda: os.open(f"/proc/self/fd/{fd}", os.O_RDONLY) and None)]  # opened once more, without a name
    os.close(fd)
    return out


def overwritten(root: Path) -> list[str]:
    """Open files and directories whose name another one has got."""
    out = []
    for name in ("old", "new"):
        (root / name).write_text(name)
        (root / f"{name}-directory").mkdir()
    old, directory = os.open(root / "old", os.O_RDWR), os.open(root / "old-directory", os.O_RDONLY)
    os.rename(root / "new", root / "old")
    os.rename(root / "new-directory", root / "old-directory")
    out += [str(os.fstat(fd).st_nlink) for fd in (old, directory)]
    os.pwrite(old, b"more", 3)
    out += [str(os.pread(old, 10, 0)), answer(lambda: os.listdir(directory))]
    out += [answer(lambda: os.mkdir("below", dir_fd=directory)), answer(lambda: os.stat("..", dir_fd=directory).st_nlink)]
    out += [answer(lambda: os.close(os.open("below", os.O_CREAT | os.O_WRONLY, dir_fd=directory)))]
    os.rmdir(root / "old-directory")
    for fd in (old, directory):
        os.close(fd)
    return out


@pytest.mark.parametrize("do", [linked_again, overwritten])
def test_what_has_lost_its_name(here: Path, plain: Path, do: Callable[[Path], list[str]]) -> None:
    assert in_child(lambda: do(here)) == in_child(lambda: do(plain))


def test_handles_lead_back_to_open_files(here: Path) -> None:
    """While the kernel knows the file. Later the answer is ESTALE: the mount is not meant to be exported, as docs/posix.md says."""
    path = here / "file"
    path.write_text("content")
    handle = name_to_handle_at(path)
    keeping, mount = os.open(path, os.O_RDONLY), os.open(here, os.O_RDONLY)
    path.rename(here / "renamed")
    fd = open_by_handle_at(mount, handle, os.O_RDONLY)
    assert os.pread(fd, 7, 0) == b"content"
    for open_ in (fd, keeping):
        os.close(open_)
    (here / "renamed").unlink()
    with pytest.raises(OSError) as caught:
        open_by_handle_at(mount, handle, os.O_RDONLY)
    assert caught.value.errno == errno.ESTALE
    os.close(mount)


# ---- names and depth ---------------------------------------------------------------------------------------------------------------------


def test_names_of_any_bytes(here: Path) -> None:
    root = os.fsencode(here)
    names = {b"x" + bytes([byte]) for byte in range(1, 256) if byte != ord("/")} | {
        bytes([byte]) for byte in range(1, 256) if byte not in b"/."
    }
    names |= {
        b"\xff" * 255,
        b"\n" * 200,
        "ü".encode() * 127,
        b"...",
        b" ",
        b"..x",
        random.Random(1).randbytes(255).replace(b"/", b"s").replace(b"\0", b"n"),
    }
    for number, name in enumerate(sorted(names)):
        path = os.path.join(root, name)
        if number % 3 == 0:
            os.mkdir(path)
        elif number % 3 == 1:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        else:
            os.symlink(name, path)
            assert os.readlink(path) == name
    assert set(os.listdir(root)) == names
    for name in names:
        os.lstat(os.path.join(root, name))


def test_deep_paths(here: Path) -> None:
    """300 levels, and a path that is longer than any call could take."""
    deep = here
    for level in range(300):
        deep = deep / f"level{level}"
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep")
    (here / "level0").rename(here / "moved")
    assert (here / "moved" / deep.relative_to(here / "level0") / "file").read_text() == "deep"
    fds = [os.open(here, os.O_RDONLY)]
    for _ in range(25):
        os.mkdir("n" * 250, dir_fd=fds[-1])
        fds.append(os.open("n" * 250, os.O_RDONLY, dir_fd=fds[-1]))
    fd = os.open("file", os.O_CREAT | os.O_RDWR, dir_fd=fds[-1])
    os.write(fd, b"deeper")
    os.fsync(fd)
    assert os.pread(fd, 9, 0) == b"deeper" and os.listdir(fds[-1]) == ["file"]
    for open_ in (fd, *fds):
        os.close(open_)
    shutil.rmtree(here / ("n" * 250))


def test_a_running_program_cannot_be_written(here: Path, plain: Path) -> None:
    answers = []
    for root in (here, plain):
        program = root / "program"
        shutil.copy("/bin/sleep", program)
        with subprocess.Popen([program, "1000"]) as running:
            calls: tuple[Callable[[], object], ...] = (
                lambda: os.open(program, os.O_WRONLY),  # noqa: B023 - called at once
                lambda: os.truncate(program, 0),  # noqa: B023
                lambda: os.close(os.open(program, os.O_RDONLY)),  # noqa: B023
                lambda: os.chmod(program, 0o755),  # noqa: B023
                lambda: os.rename(program, program.with_name("renamed")),  # noqa: B023
                lambda: os.unlink(program.with_name("renamed")),  # noqa: B023
            )
            said = [answer(call) for call in calls]
            running.kill()
        shutil.copy("/bin/true", program)
        writing = os.open(program, os.O_RDWR)
        said.append(answer(lambda: subprocess.run([program], check=True) and None))  # noqa: B023
        os.close(writing)
        answers.append(said)
    assert answers[0] == answers[1]
    assert answers[0][:2] == ["ETXTBSY", "ETXTBSY"] and answers[0][-1] == "ETXTBSY"

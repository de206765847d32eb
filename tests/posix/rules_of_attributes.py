"""Modes, owners, sizes and times: who may change them, and what a change costs."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

from tests.posix.rules import Case
from tests.posix.syscalls import KEEP_SIZE, PUNCH_HOLE, UTIME_NOW, UTIME_OMIT, ZERO_RANGE, fallocate, utimensat

EVERYONE = ("root", "one", "two", "member", "owner")
KINDS = ("file", "dir", "fifo", "sock", "char")


# ---- chmod -----------------------------------------------------------------------------------------------------------------------------


def chmods() -> Iterator[Case]:
    for kind, user, owner, mode in product(
        ("file", "dir"), EVERYONE, ("one", "one:team", "one:two"), (0, 0o644, 0o1777, 0o2755, 0o4755, 0o7777)
    ):
        yield Case(f"chmod {mode:o} of a {kind} of {owner}", f"{kind} f 711 {owner}", user, partial(os.chmod, "f", mode))
    for kind, user in product(KINDS, ("root", "one", "two")):
        yield Case(f"chmod of a {kind}", f"{kind} f 644 one", user, partial(os.chmod, "f", 0o7541))
        yield Case(f"chmod of a {kind}, same mode", f"{kind} f 644 one", user, partial(os.chmod, "f", 0o644))
        yield Case(f"chmod of a {kind} by a link", f"{kind} f 644 one; link l f one", user, partial(os.chmod, "l", 0o600))

    def by_descriptor(mode: int) -> None:
        fd = os.open("f", os.O_RDONLY)
        os.fchmod(fd, mode)
        os.close(fd)

    for kind, user, mode in product(("file", "dir"), EVERYONE, (0o600, 0o6755, 0o1666)):
        yield Case(f"fchmod {mode:o} of a {kind}", f"{kind} f 755 one:two", user, partial(by_descriptor, mode))


# ---- chown -----------------------------------------------------------------------------------------------------------------------------

OWNERS = ((-1, -1), (65534, -1), (65533, -1), (-1, 65534), (-1, 65533), (-1, 65500), (65534, 65500), (0, 0), (65533, 65500))


def chowns() -> Iterator[Case]:
    for (uid, gid), user, mode, kind in product(OWNERS, EVERYONE, (0o6755, 0o2745, 0o4711, 0o6666, 0o1777), ("file", "dir")):
        foreign = kind == "file" and mode & 0o6000 and user in ("two", "member") and uid == gid == -1
        do = partial(os.chown, "f", uid, gid)
        yield Case(f"chown {uid}:{gid} of a {kind} {mode:o}", f"{kind} f {mode:o} one", user, do, on_mount="ok" if foreign else None)
    for kind, user, follow in product(KINDS, ("root", "one", "owner"), (True, False)):
        yield Case(
            f"chown of a {kind} by a link, followed {follow}",
            f"{kind} f 6711 one; link l f one",
            user,
            partial(os.chown, "l", -1, 65500, follow_symlinks=follow),
        )
    for user in EVERYONE:  # of the group and with no right to execute for it: setgid is a mark then
        yield Case("chown in a group of his", "file f 2745 one:team", user, partial(os.chown, "f", -1, 65534))
        on_mount = None if user == "root" else "ok"
        yield Case("chown of what is root's", "file f 6755 root:team", user, partial(os.chown, "f", -1, -1), on_mount=on_mount)


# ---- what writing costs, and what changes the times --------------------------------------------------------------------------------------


def _open(flags: int, do: Callable[[int], object]) -> Callable[[], object]:
    def run() -> object:
        fd = os.open("f", flags)
        try:
            return do(fd)
        finally:
            os.close(fd)

    return run


def _mapped(fd: int) -> None:
    with mmap.mmap(fd, 10) as memory:
        memory[3:5] = b"mm"
        memory.flush()


def _copied(fd: int) -> int:
    other = os.open("source", os.O_RDONLY)
    try:
        os.read(other, 1)  # its atime: a copy done by the file system below is not seen there at once
        return os.copy_file_range(other, fd, 4, 0, 3)
    finally:
        os.close(other)


CHANGES: dict[str, Callable[[], object]] = {
    "write": _open(os.O_WRONLY, lambda fd: os.write(fd, b"new")),
    "write, O_RDWR": _open(os.O_RDWR, lambda fd: os.pwrite(fd, b"new", 4)),
    "write, O_SYNC": _open(os.O_WRONLY | os.O_SYNC, lambda fd: os.pwrite(fd, b"new", 4)),
    "write of nothing": _open(os.O_WRONLY, lambda fd: os.write(fd, b"")),
    "write of nothing, O_RDWR": _open(os.O_RDWR, lambda fd: os.write(fd, b"")),
    "append": _open(os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"new")),
    "append, O_RDWR": _open(os.O_RDWR | os.O_APPEND, lambda fd: os.write(fd, b"new")),
    "writev": _open(os.O_WRONLY, lambda fd: os.writev(fd, [b"ab", b"cd"])),
    "mmap": _open(os.O_RDWR, _mapped),
    "truncate": lambda: os.truncate("f", 3),
    "truncate to more": lambda: os.truncate("f", 10_000),
    "truncate to nothing": lambda: os.truncate("f", 0),
    "ftruncate": _open(os.O_RDWR, lambda fd: os.ftruncate(fd, 3)),
    "ftruncate to the same": _open(os.O_WRONLY, lambda fd: os.ftruncate(fd, 10)),
    "ftruncate of a reader": _open(os.O_RDONLY, lambda fd: os.ftruncate(fd, 10)),
    "O_TRUNC": _open(os.O_WRONLY | os.O_TRUNC, lambda fd: None),
    "O_TRUNC, O_RDONLY": _open(os.O_RDONLY | os.O_TRUNC, lambda fd: None),
    "O_CREAT and O_TRUNC": _open(os.O_RDWR | os.O_CREAT | os.O_TRUNC, lambda fd: None),
    "open to write": _open(os.O_WRONLY, lambda fd: None),
    "fallocate": _open(os.O_RDWR, lambda fd: fallocate(fd, 0, 5, 5000)),
    "fallocate of nothing new": _open(os.O_RDWR, lambda fd: fallocate(fd, 0, 0, 5)),
    "fallocate, size kept": _open(os.O_WRONLY, lambda fd: fallocate(fd, KEEP_SIZE, 5, 50_000)),
    "punch": _open(os.O_RDWR, lambda fd: fallocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, 4)),
    "zero range": _open(os.O_RDWR, lambda fd: fallocate(fd, ZERO_RANGE, 2, 40)),
    "posix_fallocate": _open(os.O_RDWR, lambda fd: os.posix_fallocate(fd, 0, 20)),
    "copy_file_range": _open(os.O_RDWR, _copied),
    "read": _open(os.O_RDONLY, lambda fd: os.read(fd, 5)),
    "read, O_RDWR": _open(os.O_RDWR, lambda fd: os.read(fd, 5)),
    "fsync": _open(os.O_RDONLY, os.fsync),
}


def changes() -> Iterator[Case]:
    for (name, do), user, mode in product(
        CHANGES.items(), ("root", "one", "two", "member"), (0o666, 0o4777, 0o2777, 0o6777, 0o6767, 0o6666)
    ):
        yield Case(f"{name} on {mode:o}", f"file f {mode:o} one:team; file source 644", user, do)
    for name, do in CHANGES.items():
        yield Case(f"{name}, not allowed", "file f 4711 two; file source 644", "one", do)
        yield Case(f"{name}, through a link", "file g 6777 two; link f g; file source 644", "one", do)


TRUNCATE_SIZES = (-1, 0, 1, 4096, 1 << 31, 1 << 32, (1 << 44) - 4096, (1 << 44) - 4095, 1 << 44, 1 << 62, (1 << 63) - 1)


def _ftruncate(bytes_: int, fd: int) -> None:
    os.ftruncate(fd, bytes_)


def _pwrite(offset: int, fd: int) -> int:
    return os.pwrite(fd, b"abc", offset)


def _pread(offset: int, fd: int) -> bytes:
    return os.pread(fd, 3, offset)


def _fallocate(how: int, offset: int, length: int, fd: int) -> None:
    fallocate(fd, how, offset, length)


def sizes() -> Iterator[Case]:
    for bytes_, (kind, mode), user in product(TRUNCATE_SIZES, (("file", "644"), ("dir", "755"), ("fifo", "644")), ("root", "one", "two")):
        yield Case(f"truncate a {kind} to {bytes_}", f"{kind} f {mode} one", user, partial(os.truncate, "f", bytes_))
    for bytes_ in TRUNCATE_SIZES:
        yield Case(f"ftruncate to {bytes_}", "file f 644 one", "one", _open(os.O_RDWR, partial(_ftruncate, bytes_)))
    offsets = (-1, 0, 1 << 32, (1 << 44) - 4099, (1 << 44) - 4096, 1 << 44, 1 << 62)
    for offset, flags in product(offsets, (os.O_WRONLY, os.O_RDWR)):
        yield Case(f"write at {offset}", "file f 644 one", "one", _open(flags, partial(_pwrite, offset)))
        read = _open(os.O_RDWR, partial(_pread, offset))
        yield Case(f"read at {offset}", "file f 644 one", "one", read, on_mount="b''")  # behind the end: the kernel leaves the atime
    for how, offset, length in product(
        (0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, 0x1000), (-1, 0, 1 << 44), (-1, 0, 10)
    ):
        do = _open(os.O_RDWR, partial(_fallocate, how, offset, length))
        yield Case(f"fallocate {how} {offset} {length}", "file f 644 one", "one", do)
    yield Case("fallocate on a reader", "file f 644", "root", _open(os.O_RDONLY, lambda fd: fallocate(fd, 0, 0, 10)), "EBADF")
    yield Case("fallocate on a directory", "dir f", "root", _open(os.O_RDONLY, lambda fd: fallocate(fd, 0, 0, 10)), "EBADF")


# ---- times -----------------------------------------------------------------------------------------------------------------------------

NOW, OMIT, SOME = (0, UTIME_NOW), (0, UTIME_OMIT), (1_500_000_000, 123_456_789)
MOMENTS = (  # ext4's first is in 1901: before it, it says nothing and takes that. Behind 2262: see test_rules.py
    *((0, 0), (0, 1), (-1, 999_999_999), (-1, 0), (-(1 << 31), 0), (-(1 << 31) - 1, 0), (1 << 31, 5), ((1 << 31) - 1, 999_999_999)),
    *((1 << 32, 7), (9_223_372_036, 0), (5, 1_000_000_000), (5, -1)),
)


def times() -> Iterator[Case]:
    for kind, mode, user in product(("file", "dir"), ("644", "666", "600"), ("root", "one", "two")):
        for atime, mtime in product((NOW, OMIT, SOME), repeat=2):
            yield Case(f"utimensat {atime} {mtime} of a {kind}", f"{kind} f {mode} one", user, partial(utimensat, "f", atime, mtime))
    for moment in MOMENTS:
        yield Case(f"mtime {moment}", "file f 644 one", "one", partial(utimensat, "f", OMIT, moment))
        yield Case(f"atime {moment}", "file f 644 one", "one", partial(utimensat, "f", moment, OMIT))
        yield Case(f"both {moment} of a directory", "dir f 755 one", "one", partial(utimensat, "f", moment, moment))
    for kind, flags in product(KINDS, (0, 0x100)):
        yield Case(f"times of a {kind} by a link", f"{kind} f 644 one; link l f one", "one", partial(utimensat, "l", SOME, NOW, flags))


# ---- extended attributes ---------------------------------------------------------------------------------------------------------------

NAMES = ("user.some", "trusted.some", "security.some", "system.some", "none", "user.", "", "user." + "n" * 250, "user." + "n" * 251)


def _all_of(path: str) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def _set_and_get(path: str, name: str, value: bytes, flags: int = 0) -> tuple[int, list[str]]:
    os.setxattr(path, name, value, flags, follow_symlinks=False)
    return len(os.getxattr(path, name, follow_symlinks=False)), _all_of(path)


def _replaced(path: str, name: str) -> list[str]:
    os.setxattr(path, name, b"1", os.XATTR_CREATE)
    os.setxattr(path, name, b"22", os.XATTR_REPLACE)
    os.removexattr(path, name)
    return _all_of(path)


def extended() -> Iterator[Case]:
    for name, kind, user in product(NAMES, (*KINDS, "link"), ("root", "one", "two")):
        thing = "link f nowhere one" if kind == "link" else f"{kind} f 644 one"
        yield Case(f"setxattr {name} of a {kind}", thing, user, partial(_set_and_get, "f", name, b"value"))
        yield Case(f"removexattr {name} of a {kind}", thing, user, partial(os.removexattr, "f", name, follow_symlinks=False))
        yield Case(f"listxattr of a {kind} for {name}", thing, user, partial(_all_of, "f"))
    for name, user, mode in product(("user.some", "trusted.some", "security.some"), ("root", "one", "two"), ("600", "644", "666", "1777")):
        yield Case(f"all of {name} on {mode}", f"file f {mode} one", user, partial(_replaced, "f", name))
        yield Case(f"all of {name} on a directory {mode}", f"dir f {mode} one", user, partial(_replaced, "f", name))
    for bytes_ in (0, 1, 1000, 3900, 4100, 65536, 65537):
        yield Case(f"a value of {bytes_} bytes", "file f", "root", partial(_set_and_get, "f", "user.some", b"v" * bytes_))
    for flags, expected in ((os.XATTR_CREATE, "(5, ['user.some'])"), (os.XATTR_REPLACE, "ENODATA"), (3, None), (8, "EINVAL")):
        yield Case(f"setxattr with flags {flags}", "file f", "root", partial(_set_and_get, "f", "user.some", b"value", flags), expected)


CHAPTERS = {"chmod": chmods, "chown": chowns, "changes": changes, "sizes": sizes, "times": times, "xattrs": extended}

"""What a tree holds, and where two trees differ: csrc/manifest.c writes it, here it is read and compared.

`compare` is pure: two rows of entries, both sorted, in one pass. What differs in its content is found by its whole hash here; in which
ranges, the block hashes tell (comparison.py asks for them).
"""

import os
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO

import trio

from rfs.engine import _check, _flags, _library
from rfs.patterns import Patterns

_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<HIIIQQq16s16sQHH")
ENTRY_BYTES_MAX = 16384
BLOCK_BYTES = 65536
HASH_BYTES = 16
DIRECTORIES_MAX = 32


class BadManifest(Exception):
    """It is none: cut off, or damaged."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name. `number` ties the names of one file together; 0: it has one name."""

    directory: int
    mode: int
    uid: int
    gid: int
    size: int
    rdev: int
    mtime_ns: int
    content: bytes
    xattrs: bytes
    number: int
    path: bytes  # empty: the directory itself
    target: bytes

    @property
    def order(self) -> tuple[int, bytes]:
        """What is below a directory comes right behind it."""
        return self.directory, self.path.replace(b"/", b"\0")

    @property
    def kind(self) -> str:
        return _KINDS.get(stat.S_IFMT(self.mode), "other")


_KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device", stat.S_IFBLK: "device",
}  # fmt: skip


class Where(StrEnum):
    """On which side an entry is."""

    HERE = "here"
    THERE = "there"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Difference:
    """One name that is not the same on both; `what` says in which respects, if it is on both."""

    where: Where
    mine: Entry | None
    theirs: Entry | None
    what: tuple[str, ...] = ()

    @property
    def entry(self) -> Entry:
        found = self.mine or self.theirs
        assert found is not None
        return found


# ---- reading ----------------------------------------------------------------------------------------------------------------------------


def read(file: BinaryIO, directories: int = DIRECTORIES_MAX) -> Iterator[Entry]:
    """The entries of a manifest; the peer's is checked as everything from it is. `directories`: so many there are."""
    before: tuple[int, bytes] | None = None
    while head := file.read(_LENGTH.size):
        if len(head) != _LENGTH.size:
            raise BadManifest("it is cut off")
        length = _LENGTH.unpack(head)[0]
        row = file.read(length) if _HEAD.size <= length <= ENTRY_BYTES_MAX else b""
        if not row or len(row) != length:
            raise BadManifest("it is cut off, or an entry has an impossible length")
        directory, mode, uid, gid, size, rdev, mtime_ns, content, xattrs, number, path_bytes, target_bytes = _HEAD.unpack_from(row)
        if _HEAD.size + path_bytes + target_bytes != length:
            raise BadManifest("an entry's lengths do not add up")
        path = row[_HEAD.size : _HEAD.size + path_bytes]
        target = row[_HEAD.size + path_bytes :]
        entry = Entry(directory, mode, uid, gid, size, rdev, mtime_ns, content, xattrs, number, path, target)
        if size >= 2**63 or directory >= directories or not _is_plain(path) or (before is not None and entry.order <= before):
            raise BadManifest("its places or sizes are not what they should be")
        before = entry.order
        yield entry


def _is_plain(path: bytes) -> bool:
    return not path or (b"\0" not in path and all(name not in (b"", b".", b"..") for name in path.split(b"/")))


# ---- comparing --------------------------------------------------------------------------------------------------------------------------


class _Groups:
    """Names of one file belong together alike on both sides: each group goes by its first name."""

    def __init__(self) -> None:
        self._first: dict[tuple[int, int], bytes] = {}

    def name_of(self, entry: Entry) -> bytes:
        return self._first.setdefault((entry.directory, entry.number), entry.path) if entry.number else entry.path


def compare(mine: Iterable[Entry], theirs: Iterable[Entry], local_mtimes: frozenset[int] = frozenset()) -> Iterator[Difference]:
    """In the order of the paths. `local_mtimes`: directories in which local files come and go, whose own times say nothing."""
    left, right = iter(mine), iter(theirs)
    here, there = _Groups(), _Groups()
    a, b = next(left, None), next(right, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a.order < b.order):
            assert a is not None
            here.name_of(a)
            yield Difference(Where.HERE, a, None)
            a = next(left, None)
        elif a is None or b.order < a.order:
            there.name_of(b)
            yield Difference(Where.THERE, None, b)
            b = next(right, None)
        else:
            what = _what_differs(a, b, mtime=not (stat.S_ISDIR(a.mode) and a.directory in local_mtimes))
            if here.name_of(a) != there.name_of(b):
                what += ("links",)
            if what:
                yield Difference(Where.BOTH, a, b, what)
            a, b = next(left, None), next(right, None)


def _what_differs(a: Entry, b: Entry, *, mtime: bool) -> tuple[str, ...]:
    if stat.S_IFMT(a.mode) != stat.S_IFMT(b.mode):
        return ("type",)
    is_link = stat.S_ISLNK(a.mode)
    tests = (
        ("content", a.content != b.content or a.size != b.size),
        ("target", a.target != b.target),
        ("device", a.rdev != b.rdev),
        ("mode", not is_link and a.mode != b.mode),
        ("owner", (a.uid, a.gid) != (b.uid, b.gid)),
        ("mtime", mtime and a.mtime_ns != b.mtime_ns),
        ("xattrs", a.xattrs != b.xattrs),
    )
    return tuple(name for name, differs in tests if differs)


def ranges(mine: bytes, theirs: bytes, size: int) -> list[tuple[int, int]]:
    """Where the blocks with these hashes differ, as (offset, length) within `size`; a block that one side lacks differs."""
    found: list[tuple[int, int]] = []
    for index in range((size + BLOCK_BYTES - 1) // BLOCK_BYTES):
        at = slice(index * HASH_BYTES, (index + 1) * HASH_BYTES)
        if mine[at] == theirs[at] and mine[at]:
            continue
        offset, length = index * BLOCK_BYTES, min(BLOCK_BYTES, size - index * BLOCK_BYTES)
        if found and sum(found[-1]) == offset:
            found[-1] = (found[-1][0], found[-1][1] + length)
        else:
            found.append((offset, length))
    return found


# ---- writing: csrc/manifest.c -----------------------------------------------------------------------------------------------------------


@contextmanager
def _manifest(tree: int, position: int, patterns: Patterns, with_content: bool) -> Iterator[Any]:
    library = _library().lib
    made = library.rfs_manifest_new(tree, position, int(with_content))
    if made == _library().ffi.NULL:
        raise MemoryError
    try:
        for pattern, only in _flags(patterns):
            _check(library.rfs_manifest_pattern(made, pattern.encode(), only), f"the pattern {pattern}")
        yield made
    finally:
        library.rfs_manifest_free(made)


async def write(trees: Sequence[int], patterns: Sequence[Patterns], file: BinaryIO, *, with_content: bool) -> tuple[int, int]:
    """The manifest of all trees; returns how many entries, and the bytes that were read. Cancelled, it stops soon."""
    entries = read_bytes = 0
    for position, tree in enumerate(trees):
        with _manifest(tree, position, patterns[position] if patterns else Patterns(), with_content) as made:
            counted = await _write_one(made, file)
            entries, read_bytes = entries + counted[0], read_bytes + counted[1]
    return entries, read_bytes


async def _write_one(made: Any, file: BinaryIO) -> tuple[int, int]:
    module = _library()

    async def stop_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            module.lib.rfs_manifest_stop(made)

    async with trio.open_nursery() as nursery:  # its end waits for the thread, which uses `made`
        nursery.start_soon(stop_when_cancelled)
        result = await trio.to_thread.run_sync(module.lib.rfs_manifest_write, made, file.fileno())
        nursery.cancel_scope.cancel()
    _check(result, "cannot list a directory")
    counts = module.ffi.new("uint64_t[2]")
    module.lib.rfs_manifest_progress(made, counts, counts + 1)
    return int(counts[0]), int(counts[1])


def block_hashes(tree: int, path: bytes, offset: int, count: int) -> tuple[int, bytes]:
    """(size, hashes) of a file beneath the tree, from a block's offset on; OSError when it cannot be read. Blocks."""
    module = _library()
    out, size = module.ffi.new("uint8_t[]", max(count, 1) * HASH_BYTES), module.ffi.new("uint64_t *")
    done = _check(module.lib.rfs_block_hashes(tree, path, offset, count, out, size), os.fsdecode(path))
    return int(size[0]), bytes(module.ffi.buffer(out, done * HASH_BYTES))

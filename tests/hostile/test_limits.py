"""A hostile peer that wants too much: memory, descriptors, a stack. And one that listens to what our answers hold."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator

import pytest

from tests.hostile.frames import BODY_BYTES, ROOT, Body, Flag, Header, Type, crc32c
from tests.hostile.world import FFI, FILE, LIB, LINK, NEW, Outcome, World, is_possible, made

pytestmark = pytest.mark.skipif(bool(is_possible()), reason=is_possible() or "possible")
DIR, REG = stat.S_IFDIR, stat.S_IFREG
DEEP = 3000  # more directories than a stack of this size takes, or a process may have open by default


@pytest.fixture
def world() -> Iterator[World]:
    with made() as made_world:
        made_world.open()
        made_world.session()
        yield made_world


def _dig(world: World, depth: int) -> None:
    for level in range(depth):
        world.op(Type.MKDIR, fid=NEW + level - 1 if level else ROOT, name=b"d", child=NEW + level, mode=DIR | 0o755)
    assert world.outcome().acknowledged == world.seq


def test_a_tree_deeper_than_a_stack_is_removed(world: World) -> None:
    """What is not listed goes to the holding directory, and is purged when the next session compares everything."""
    _dig(world, DEEP)
    world.op(Type.BEGIN)
    world.op(Type.END_OF_DIRECTORY, mode=DIR | 0o755)
    assert world.outcome().acknowledged == world.seq
    assert len(os.listdir(world.tree / ".lockstep-holding")) == 1
    open_files = len(os.listdir("/proc/self/fd"))
    assert LIB.rfs_session_close(world.engine) == 0
    assert LIB.rfs_purge_holding(world.engine, LIB.RFS_HELD | LIB.RFS_ARRIVING) == 0
    assert os.listdir(world.tree) == []
    assert len(os.listdir("/proc/self/fd")) < open_files


def test_a_tree_deeper_than_a_stack_is_looked_through(world: World) -> None:
    """BIND without a place: all of it is searched, in vain, which ends the session; the next one removes it."""
    _dig(world, DEEP)
    world.op(Type.BIND, fid=0, child=NEW - 1)
    ended = world.ended()
    assert ended.failed is not None
    assert LIB.rfs_session_close(world.engine) == 0
    world.session()
    world.op(Type.BEGIN)
    world.op(Type.END_OF_DIRECTORY, mode=DIR | 0o755)
    assert world.outcome().acknowledged == world.seq
    assert LIB.rfs_session_close(world.engine) == 0
    assert LIB.rfs_purge_holding(world.engine, LIB.RFS_HELD | LIB.RFS_ARRIVING) == 0
    assert os.listdir(world.tree) == []


def test_syncs_do_not_use_up_descriptors(world: World) -> None:
    """A sync has a descriptor until it is done: no more than 4096 wait, whatever the peer asks for."""
    world.furnish()
    most, frames = 0, 20000
    for number in range(frames):
        world.op(Type.FSYNC, fid=FILE, header_flags=Flag.DURABLE)
        if number % 1000 == 0:
            most = max(most, len(os.listdir("/proc/self/fd")))
    outcome = world.outcome()
    assert outcome.acknowledged == world.seq
    assert most < 4200


def test_who_reads_no_answer_is_let_go(world: World) -> None:
    """Names that are not there, asked for again and again: the answers do not pile up."""
    count = 300
    names = b"".join(struct.pack("<QIH", NEW + number, REG, 200) + b"%0200d" % number for number in range(count))
    payload = Body(data=names).encode()
    checksum = crc32c(payload)
    for _ in range(3000):
        world.frame(Header(type=Type.VERIFY_NAMES, fid=ROOT, payload_crc=checksum), payload)
    ended = world.ended()
    assert ended.lost is not None and "reads no answer" in ended.lost.text and ended.failed is None
    world.next_session_works()


def test_answers_hold_nothing_but_the_answer(world: World) -> None:
    """An answer of uninitialised memory tells a peer where this process has what (rsync 2024-12085)."""
    world.furnish()
    world.op(Type.BEGIN)
    world.op(Type.ENTRY, name=b"fresh", child=NEW, mode=REG | 0o644)
    world.op(Type.HASHES, fid=FILE, length=4096 * 3, data=bytes(16 * 3))
    world.op(Type.VERIFY_ATTRIBUTES, fid=LINK, data=bytes(32), length=77)
    world.op(Type.VERIFY_NAMES, length=20, offset=0)
    world.op(Type.FSYNC, fid=FILE, header_flags=Flag.DURABLE)
    outcome = Outcome([])
    while not any(heard.type == Type.SYNCED for heard in outcome.heard):
        world.listen(outcome, 1.0)
    kinds = {heard.type for heard in outcome.heard}
    assert {Type.ACK, Type.FRESH, Type.DIFFERENT, Type.VERIFIED, Type.SYNCED} <= kinds
    for heard in outcome.heard:
        assert (heard.flags, heard.length, heard.mtime) == (0, 0, 0)
        if heard.type == Type.FRESH:
            assert heard.fid == NEW and heard.payload == bytes(BODY_BYTES) and heard.offset == 0
        elif heard.type == Type.DIFFERENT:
            assert heard.offset == 0b111  # a block that is not there differs, and so does one that is cut off
        elif heard.type != Type.VERIFIED:
            assert (heard.fid, heard.offset, heard.payload) == (0, 0, b"")


def test_what_is_told_is_printable(world: World) -> None:
    """Names, links and attributes of the peer's stand in no sentence of ours, whatever fails."""
    evil = b"\x1b[2J\n\rlevel=ERROR"
    for frame in (
        {"type": Type.CREATE, "name": evil, "child": FILE, "mode": REG | 0o644},
        {"type": Type.UNLINK, "name": evil, "child": NEW},
        {"type": Type.CREATE, "name": b"../" + evil, "child": NEW, "mode": REG | 0o644},
        {"type": Type.SET_XATTR, "fid": FILE, "name": evil, "data": evil},
    ):
        world.furnish() if not world.seq else None
        world.op(**frame)  # type: ignore[arg-type]
        for event in world.ended().events:
            assert event.text.isprintable(), event
        assert LIB.rfs_session_close(world.engine) == 0
        world.session(seq=1000)


@pytest.mark.parametrize("flags", ["", "openat2"])
def test_a_path_of_the_peers_stays_beneath(world: World, flags: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one whole path that a peer gives (comparison.py: whose blocks?), with openat2() and without it."""
    (world.tree / "a" / "b").mkdir(parents=True)
    (world.tree / "a" / "b" / "file").write_bytes(b"within")
    (world.tree / "way").symlink_to(world.outside)
    (world.tree / "a" / "out").symlink_to(world.outside / "file")
    if flags and os.fork() == 0:  # a filter stays for good, and is of this process alone
        os._exit(0 if _refuse_openat2() and _stays_beneath(world) else 1)
    if flags:
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    else:
        assert _stays_beneath(world)


def _stays_beneath(world: World) -> bool:
    out, size = FFI.new("uint8_t[]", 16 * 4), FFI.new("uint64_t *")
    tree = LIB.rfs_tree_open(os.fsencode(world.tree))

    def ask(path: bytes) -> int:
        return int(LIB.rfs_block_hashes(tree, path, 0, 4, out, size))

    good = ask(b"a/b/file") == 1 and size[0] == 6
    bad = (
        b"way/file",
        b"a/out",
        b"../../outside/file",
        b"a/../../../outside/file",
        os.fsencode(world.outside / "file"),
        b"/proc/self/root/etc/passwd",
        b"a//",
        b"",
    )
    return good and all(ask(path) < 0 for path in bad)


def _refuse_openat2() -> bool:
    """A seccomp filter as container runtimes have them: EPERM for a call that it does not know."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    openat2, eperm = 437, 1
    rows = [(0x20, 0, 0, 0), (0x15, 0, 1, openat2), (0x06, 0, 0, 0x00050000 | eperm), (0x06, 0, 0, 0x7FFF0000)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *row) for row in rows))

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("rows", ctypes.c_void_p)]

    filter_ = Filter(len(rows), ctypes.addressof(program))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(filter_), 0, 0):
        return False
    how = ctypes.create_string_buffer(24)
    return libc.syscall(openat2, -100, b"/", how, 24) == -1 and ctypes.get_errno() == eperm

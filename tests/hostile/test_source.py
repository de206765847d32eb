"""A hostile target: what it answers to a primary that mirrors to it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.hostile.frames import ROOT, U64, Body, Flag, Header, Type
from tests.hostile.world import FILE, LIB, NEW, World, is_possible, made

pytestmark = pytest.mark.skipif(bool(is_possible()), reason=is_possible() or "possible")
ENTRIES, CHUNK = 1, 8


@dataclass(frozen=True, slots=True)
class Lie:
    """What a target says, and whether the link survives it."""

    name: str
    say: Callable[[World], None]
    ends: bool = True


def answer(type: int, **fields: int) -> Callable[[World], None]:
    return lambda world: world.frame(Header(type=type, **fields))  # type: ignore[arg-type]


def mark(path: bytes, *, fids: int = 0, **fields: object) -> Callable[[World], None]:
    """A mark of the target's, at this path."""
    data = path + b"\0" + b"".join(struct.pack("<Q", NEW + number) for number in range(fids))
    body = Body(**({"flags": ENTRIES, "data": data, "other": fids} | fields))  # type: ignore[arg-type]
    return lambda world: world.frame(Header(type=Type.PEER_MARK, fid=NEW), body.encode())


def plain_mark(data: bytes) -> Callable[[World], None]:
    """Whatever it holds."""
    return lambda world: world.frame(Header(type=Type.PEER_MARK, fid=NEW), Body(flags=ENTRIES, data=data).encode())


def both(*said: Callable[[World], None]) -> Callable[[World], None]:
    def say(world: World) -> None:
        for one in said:
            one(world)

    return say


LIES = [
    Lie("an acknowledgement of what was never sent", answer(Type.ACK, seq=2**40)),
    Lie("an acknowledgement of the last number", answer(Type.ACK, seq=U64)),
    Lie("one op of the future alone", answer(Type.ACK_ALONE, seq=2**40)),
    Lie("a sync that nobody asked for", answer(Type.SYNCED, seq=1)),
    Lie("differences that nobody asked for", answer(Type.DIFFERENT, seq=1, offset=U64)),
    Lie("a verify's answer without a verify", answer(Type.VERIFIED, seq=1, offset=U64)),
    Lie("an acknowledgement with a payload", lambda world: world.frame(Header(type=Type.ACK), bytes(4096))),
    Lie("ops, as if it were the source", lambda world: world.op(Type.CREATE, name=b"n", child=NEW, mode=0o100644)),
    Lie("bytes, as if it were the source", lambda world: world.write(FILE, b"hostile")),
    Lie("a sync of its own", lambda world: world.op(Type.FSYNC, fid=ROOT, header_flags=Flag.DURABLE)),
    Lie("an old acknowledgement", answer(Type.ACK, seq=0), ends=False),
    Lie("that an unknown object was made", lambda world: world.frame(Header(type=Type.FRESH, fid=NEW), Body().encode()), ends=False),
    Lie("that the root was made", lambda world: world.frame(Header(type=Type.FRESH, fid=ROOT), Body().encode()), ends=False),
    Lie("a mark above the tree", mark(b"../outside/file")),
    Lie("a mark in the middle above", mark(b"a/../../outside/file", fids=3)),
    Lie("a mark at an absolute path", mark(b"/etc/passwd")),
    Lie("a mark of a directory that there is not", mark(b"a", rdev=31)),
    Lie("a mark of a directory by a number that wraps", mark(b"a", rdev=2**16)),
    Lie("a mark of no kind", mark(b"a", flags=64)),
    Lie("a mark of every kind", mark(b"a", flags=0xFF)),
    Lie("a mark beyond the end of any file", lambda world: world.frame(
        Header(type=Type.PEER_MARK, fid=NEW, offset=2**62), Body(flags=CHUNK, data=b"a\0").encode())),
    Lie("a mark with more directories than its path", mark(b"a", fids=5, other=60000)),
    Lie("a mark without an end of its path", plain_mark(b"a" * 400)),
    Lie("a mark longer than any", plain_mark(b"a" * 4000)),
    Lie("a mark after the last", both(lambda world: world.frame(Header(type=Type.PEER_MARKS), Body().encode()), mark(b"a"))),
    Lie("garbage", lambda world: world.send(b"\0" * 200)),
    Lie("another session's answer", answer(Type.ACK, seq=0, session=8)),
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.name.replace(" ", "-"))
def test_lie(lie: Lie) -> None:
    with made() as world:
        (world.tree / "kept").write_text("by the primary")
        world.open()
        world.become_source()
        lie.say(world)
        if lie.ends:
            ended = world.ended()
            assert ended.lost is not None and ended.lost.text.isprintable() and ended.event(LIB.RFS_EVENT_LOCAL_FAILED) is None
        else:
            world.frame(Header(type=Type.ACK, seq=2**40))  # the link was there to end
            assert world.ended().lost is not None
        assert (world.tree / "kept").read_text() == "by the primary"
        assert LIB.rfs_session_close(world.engine) == 0
        assert LIB.rfs_grant(world.engine, 10, 1) == 0  # it goes on alone
        world.session(source=True)  # and the next target may come

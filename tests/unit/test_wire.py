"""A bad cable's decisions about frames: what is lost, doubled, late, too long, of whom, and what an announcement is."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from orchestrator.lab.wire import Flaws, Wire, is_announcement

HERE, THERE, OTHER = bytes(range(6)), bytes(range(6, 12)), bytes(range(12, 18))
FRAME = HERE + THERE + b"\x08\x00" + bytes(100)


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """What the wire sends to either end can be read here."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
    opened = iter(pairs)
    monkeypatch.setattr(Wire, "_open", staticmethod(lambda name: next(opened)[0]))
    for pair in pairs:
        for each in pair:
            each.setblocking(False)
    yield [pair[1] for pair in pairs]
    for pair in pairs:
        for each in pair:
            each.close()


def arrived(end: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(end.recv(65536))
        except BlockingIOError:
            return found


def test_a_whole_cable_hands_everything_on(ends: list[socket.socket]) -> None:
    wire = Wire(("a", "b"), Flaws())
    for to in (0, 1):
        wire.take(FRAME, to)
        assert [arrived(end) for end in ends] == [[FRAME] * (to == 0), [FRAME] * (to == 1)]


def test_a_share_is_lost_and_a_share_is_doubled(ends: list[socket.socket]) -> None:
    wire = Wire(("a", "b"), Flaws(loss=0.3, duplicated=0.5, seed=1))
    count = 0
    for _ in range(2000):
        wire.take(FRAME, 1)
        count += len(arrived(ends[1]))
    assert 1950 < count < 2250  # 2000 x 0.7 x 1.5
    assert not arrived(ends[0])


def test_what_is_late_comes_in_the_order_of_its_time(ends: list[socket.socket]) -> None:
    wire = Wire(("a", "b"), Flaws(delay_s=0.01, jitter_s=5.0, seed=2))
    for _ in range(20):
        wire.take(FRAME, 1)
    assert not arrived(ends[1])
    assert len(wire.late) == 20 and all(when > time.monotonic() for when, *_ in wire.late)
    assert [place for _, place, _, _ in sorted(wire.late)] != list(range(1, 21)), "a jitter that keeps the order"


def test_long_frames_vanish(ends: list[socket.socket]) -> None:
    wire = Wire(("a", "b"), Flaws(longest_bytes=len(FRAME)))
    wire.take(FRAME + b"x", 1)
    wire.take(FRAME, 1)
    assert arrived(ends[1]) == [FRAME]


def test_the_barred_peer_is_not_heard_and_not_reached(ends: list[socket.socket]) -> None:
    wire = Wire(("a", "b"), Flaws(without_peer=THERE.hex(":")))
    wire.take(FRAME, 1)
    wire.take(THERE + HERE + FRAME[12:], 1)
    wire.take(HERE + OTHER + FRAME[12:], 1)
    assert arrived(ends[1]) == [HERE + OTHER + FRAME[12:]]


def test_an_announcement_tells_of_its_sender() -> None:
    def packet(sender: bytes, target: bytes) -> bytes:
        return b"\xff" * 6 + HERE + b"\x08\x06" + bytes.fromhex("0001080006040001") + HERE + sender + bytes(6) + target

    assert is_announcement(packet(b"\x0a\x4d\x00\x64", b"\x0a\x4d\x00\x64"))
    assert not is_announcement(packet(b"\x0a\x4d\x00\x0b", b"\x0a\x4d\x00\x64"))
    assert not is_announcement(FRAME)

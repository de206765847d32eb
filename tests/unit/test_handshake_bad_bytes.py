"""Strangers and garbage on the port: dropped, counted, and nothing else."""

import contextlib
from dataclasses import replace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rfs import handshake, peer_messages
from rfs.control_link import ControlLink
from rfs.errors import PeerProtocolError
from rfs.handshake import HELLO_BYTES, PREAMBLE_BYTES, Answer, Hello, Kind, Preamble
from rfs.security import Security
from rfs.settings import Address
from rfs.supervisor import Supervisor, listen_on

MINE = Hello("plant7", "pg", "node1", 7, "3f0b5c6e-boot", 0xABC)
THEIRS = Hello("plant7", "pg", "node2", 5, "aa0b5c6e-boot", 0xDEF)


def test_a_hello_survives_the_wire() -> None:
    assert handshake.decode(handshake.encode(MINE)) == MINE
    assert len(handshake.encode(MINE)) == HELLO_BYTES


@given(st.binary(max_size=2 * HELLO_BYTES))
def test_random_bytes_are_no_hello(raw: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        handshake.decode(raw)


@given(st.integers(0, HELLO_BYTES - 1), st.integers(1, 255))
def test_one_wrong_byte_is_seen(position: int, change: int) -> None:
    raw = bytearray(handshake.encode(MINE))
    raw[position] ^= change
    with pytest.raises(PeerProtocolError):
        handshake.decode(bytes(raw))


@given(st.binary(max_size=200))
def test_random_bytes_are_no_message(body: bytes) -> None:
    with contextlib.suppress(PeerProtocolError):
        peer_messages.check(peer_messages.decode(body))


@pytest.mark.parametrize(
    "message",
    [
        {"type": "no such"},
        {"type": ["state"]},
        {"type": "turn", "term": -1, "owner": 1},
        {"type": "turn", "term": True, "owner": 1},
        {"type": "turn", "term": 2**64, "owner": 1},
        {"type": "turn", "owner": 1},
        {"type": "refused", "reason": "x" * 2000},
        {"type": "adopted", "record": []},
        {"type": "manifest_part", "data": bytes(50_000)},
        {"type": "manifest_part", "data": "text"},
        {"type": "blocks", "directory": 0, "path": b"f", "offset": -1, "count": 1},
    ],
)
def test_messages_that_do_not_fit(message: peer_messages.Message) -> None:
    with pytest.raises(PeerProtocolError):
        peer_messages.check(message)


def test_who_dials_whom() -> None:
    assert handshake.judge(MINE, THEIRS) is Answer.ACCEPTED
    assert handshake.judge(THEIRS, MINE) is Answer.WAIT_FOR_MY_CALL
    assert handshake.judge(MINE, replace(THEIRS, node_id=7)) is Answer.SAME_NODE
    assert handshake.judge(MINE, replace(THEIRS, cluster="other")) is Answer.UNRELATED
    assert "'pg' of cluster 'other'" in handshake.unrelated_sentence(MINE, replace(THEIRS, cluster="other"))


PLAIN = Preamble(Kind.CONTROL, secure=False)


def test_a_preamble_survives_the_wire() -> None:
    for preamble in (PLAIN, Preamble(Kind.DATA, True, 2**64 - 1, Answer.NEEDS_TLS)):
        raw = handshake.encode_preamble(preamble)
        assert handshake.decode_preamble(raw) == preamble and len(raw) == PREAMBLE_BYTES


@given(st.binary(max_size=2 * PREAMBLE_BYTES))
def test_random_bytes_are_no_preamble(raw: bytes) -> None:
    with pytest.raises(PeerProtocolError):
        handshake.decode_preamble(raw)


@given(st.integers(0, PREAMBLE_BYTES - 1), st.integers(1, 255))
def test_one_wrong_byte_of_a_preamble_is_seen(position: int, change: int) -> None:
    raw = bytearray(handshake.encode_preamble(PLAIN))
    raw[position] ^= change
    with pytest.raises(PeerProtocolError):
        handshake.decode_preamble(bytes(raw))


class Host:
    """What the supervisor needs of a replica."""

    def __init__(self, hello: Hello) -> None:
        self._hello = hello
        self.unrelated: list[str] = []

    def hello(self) -> Hello:
        return self._hello

    def peer_refused(self, code: str, sentence: str) -> None:
        self.unrelated.append(sentence)


async def start(nursery: trio.Nursery, host: Host, sessions: trio.MemorySendChannel[ControlLink]) -> tuple[Supervisor, Address]:
    """A supervisor on a free port, whose sessions are handed to the test."""

    async def enter(link: ControlLink) -> None:
        await sessions.send(link)
        await trio.sleep_forever()

    supervisor = Supervisor(host, Address("127.0.0.1", 0), Address("127.0.0.1", 1), enter, Security(None))
    listener = await listen_on(Address("127.0.0.1", 0))
    nursery.start_soon(supervisor.run, listener)
    return supervisor, Address("127.0.0.1", listener.socket.getsockname()[1])


async def test_garbage_is_dropped_and_counted_and_the_peer_still_gets_in(nursery: trio.Nursery) -> None:
    sessions_in, sessions_out = trio.open_memory_channel[ControlLink](4)
    host = Host(MINE)
    supervisor, address = await start(nursery, host, sessions_in)
    control = handshake.encode_preamble(PLAIN)
    other = control + handshake.encode(replace(THEIRS, cluster="other"))
    for raw in (b"GET / HTTP/1.1\r\n" * 100, b"\0" * PREAMBLE_BYTES, b"LOCKSTEP", control + b"\0" * HELLO_BYTES, other):
        stream = await trio.open_tcp_stream(address.host, address.port)
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(raw)
            await stream.send_eof()
            while await stream.receive_some():
                pass
        await stream.aclose()
    with trio.fail_after(5):  # whoever is reset in the middle of its garbage may know before it is counted
        while supervisor.dropped_connections < 5:
            await trio.testing.wait_all_tasks_blocked()
    assert supervisor.dropped_connections == 5 and len(host.unrelated) == 1
    stream = await trio.open_tcp_stream(address.host, address.port)
    assert await handshake.open_connection(stream, PLAIN) is Answer.ACCEPTED
    answered = await handshake.call(stream, THEIRS)
    assert answered.answer is Answer.ACCEPTED and answered.node == "node1"
    with trio.fail_after(5):
        assert (await sessions_out.receive()).theirs.node == "node2"
    nursery.cancel_scope.cancel()


async def test_a_silent_stranger_is_dropped_after_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    ours, strangers = trio.testing.memory_stream_pair()
    began = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        await handshake.hear_preamble(ours)
    assert trio.current_time() - began == pytest.approx(handshake.HELLO_TIMEOUT_S)
    await strangers.aclose()


async def test_only_the_wanted_data_link_is_taken(nursery: trio.Nursery) -> None:
    sessions_in, _sessions_out = trio.open_memory_channel[ControlLink](4)
    supervisor, address = await start(nursery, Host(MINE), sessions_in)
    data = Preamble(Kind.DATA, secure=False, session=99)
    stream = await trio.open_tcp_stream(address.host, address.port)
    assert await handshake.open_connection(stream, data) is Answer.NO_SUCH_SESSION
    async with supervisor.data_links.expected(99) as arriving:
        stream = await trio.open_tcp_stream(address.host, address.port)
        assert await handshake.open_connection(stream, data) is Answer.ACCEPTED
        with trio.fail_after(5):
            await (await arriving.receive()).aclose()
    nursery.cancel_scope.cancel()

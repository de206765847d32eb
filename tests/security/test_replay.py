"""What was recorded is worth nothing: a session of rfsmount, a call of hactld's, a pairing. (Heartbeats: tests/unit/test_heartbeat.py and
test_seal.py; records within a session: `tls meddling` of tests/native; a witness' answer: tests/unit/test_etcd.py.)"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from orchestrator import peer
from orchestrator.doors import CallDoor
from orchestrator.heartbeat import Network
from rfs import handshake, tls
from rfs.handshake import Answer, Kind, Preamble
from tests.unit.keyring import paired_keys
from tests.unit.test_doors import free_port
from tests.unit.test_link_security import HERE, SECURE, TWO, Port, keys_of

Recorded = bytearray


@asynccontextmanager
async def recorder(port: int, host: str = HERE, source: str = HERE) -> AsyncIterator[tuple[int, Recorded]]:
    """Somebody on the path, who notes what the dialer sends."""
    said = Recorded()

    async def serve(here: trio.SocketStream) -> None:
        there = await trio.open_tcp_stream(host, port, local_address=source)

        async def pump(one: trio.SocketStream, other: trio.SocketStream, note: Recorded | None) -> None:
            try:
                while piece := await one.receive_some():
                    if note is not None:
                        note += piece
                    await other.send_all(piece)
                await other.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, here, there, said)
            nursery.start_soon(pump, there, here, None)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host=HERE)
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[1], said
        nursery.cancel_scope.cancel()


async def play(said: bytes, port: int, host: str = HERE, source: str = HERE) -> bytes:
    """Everything that was recorded, once more; what comes back until the other end has had enough."""
    heard = bytearray()
    stream = await trio.open_tcp_stream(host, port, local_address=source)
    with trio.fail_after(10):
        try:
            await stream.send_all(said)
            while piece := await stream.receive_some():
                heard += piece
        except trio.BrokenResourceError:
            pass
    await stream.aclose()
    return bytes(heard)


@pytest.fixture
async def port(tmp_path: Path, nursery: trio.Nursery) -> Port:
    one, _ = paired_keys(tmp_path)
    made = Port(one)
    await nursery.start(made.run)
    return made


async def test_a_session_of_rfsmount(tmp_path: Path, port: Port, nursery: trio.Nursery) -> None:
    """Whole, and each beginning of it: TLS has asked for something fresh."""
    two = keys_of(tmp_path, "node2")
    async with recorder(port.number) as (number, said):
        stream = await trio.open_tcp_stream(HERE, number)
        assert await handshake.open_connection(stream, SECURE) is Answer.ACCEPTED
        secured, _ = await tls.secure(stream, two, ["node1"], dialed=True)
        assert (await handshake.call(secured, TWO)).answer is Answer.ACCEPTED
        await port.sessions.receive()
        recorded = bytes(said)
    assert len(recorded) > 800, "a preamble, a handshake with a certificate, a hello"
    before = port.security.refused.total()
    assert two.own().known.certificate.encode() not in recorded, "nor was a certificate in the clear"
    for length in (len(recorded), len(recorded) // 2):
        await play(recorded[:length], port.number)
    with trio.fail_after(10):
        while port.security.refused.total() < before + 2:
            await trio.sleep(0.01)
    assert port.sessions.statistics().current_buffer_used == 0
    nursery.cancel_scope.cancel()


async def test_the_number_of_a_data_connection(tmp_path: Path, port: Port, nursery: trio.Nursery) -> None:
    """It is in the clear, and good for one session that waits for it: afterwards it is nobody's."""
    data = Preamble(Kind.DATA, secure=True, session=4711)
    async with port.supervisor.data_links.expected(4711):
        stream = await trio.open_tcp_stream(HERE, port.number)
        assert await handshake.open_connection(stream, data) is Answer.ACCEPTED
    for _ in range(3):
        stream = await trio.open_tcp_stream(HERE, port.number)
        assert await handshake.open_connection(stream, data) is Answer.NO_SUCH_SESSION
    with trio.fail_after(5):
        while port.security.refused["no-session"] < 3:
            await trio.sleep(0.01)
    nursery.cancel_scope.cancel()


async def test_a_call_of_hactld(tmp_path: Path) -> None:
    """An order of yesterday is not carried out again."""
    one, two = paired_keys(tmp_path)
    number, carried_out, logged = free_port(), list[str](), list[str]()

    async def handle(method: str, parameters: peer.Message, pin: str) -> peer.Message:
        carried_out.append(method)
        return {}

    server = peer.PeerServer("plant7", "node2", handle, one, logged.append)
    door = CallDoor(logged.append, number)
    door.expect(Network("lan", "127.0.3.1", "127.0.3.2"), server.serve)
    async with trio.open_nursery() as nursery:
        await nursery.start(door.run)
        async with recorder(number, "127.0.3.1", "127.0.3.2") as (between, said):
            client = peer.PeerClient("plant7", "node2", "node1", (Network("lan", HERE, HERE),), two, between)
            await client.call("command", {"verb": "stop"}, 5.0)
            recorded = bytes(said)
        assert carried_out == ["command"]
        for _ in range(2):
            await play(recorded, number, "127.0.3.1", "127.0.3.2")
        with trio.fail_after(10):
            while server.refused.total() < 2:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert carried_out == ["command"] and len(logged) <= 2

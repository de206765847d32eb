"""The control socket: framing, hello, calls, refusals, the stream of status, and clients that misbehave."""

import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from rfs import exit_codes
from rfs.control import protocol, server
from rfs.control.blocking import BlockingClient
from rfs.control.client import ControlLost, open_client
from rfs.errors import PeerProtocolError, SaidNo


class Counter:
    """A service whose status is a number that can be raised."""

    def __init__(self) -> None:
        self.number = 0
        self.age = 0
        self.event = trio.Event()

    def grow_older(self) -> None:
        """Nothing but time passes."""
        self.age += 1
        self.event.set()
        self.event = trio.Event()

    def raise_it(self) -> None:
        self.number += 1
        self.event.set()
        self.event = trio.Event()

    async def changed(self) -> None:
        await self.event.wait()

    async def echo(self, params: protocol.Message) -> protocol.Message:
        return params

    async def refuse(self, params: protocol.Message) -> protocol.Message:
        raise SaidNo("the peer may have gone on: only --force goes on")

    def service(self) -> server.Service:
        methods = {"echo": self.echo, "refuse": self.refuse}
        return server.Service("pg", methods, lambda: {"number": self.number, "since_s": self.age}, self.changed)


@pytest.fixture
async def counter(nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Counter]:
    made = Counter()
    await nursery.start(server.serve, str(tmp_path), made.service())
    yield made
    nursery.cancel_scope.cancel()


async def test_calls_by_number(counter: Counter, tmp_path: Path) -> None:
    async with open_client(str(tmp_path)) as client:
        assert client.server["module"] == "pg"
        assert await client.call("echo", {"a": 1}) == {"a": 1}
        with pytest.raises(SaidNo, match="only --force") as refusal:
            await client.call("refuse")
        assert refusal.value.exit_code == exit_codes.REFUSED
        with pytest.raises(SaidNo, match="no method 'fly'") as unknown:
            await client.call("fly")
        assert unknown.value.exit_code == exit_codes.USAGE


async def test_status_is_pushed_at_once_and_at_every_change(counter: Counter, tmp_path: Path) -> None:
    seen = []
    with trio.fail_after(5):
        async with open_client(str(tmp_path)) as client, contextlib.aclosing(client.subscribe()) as statuses:
            async for status in statuses:
                seen.append(status["number"])
                if len(seen) == 3:
                    break
                counter.raise_it()
    assert seen == [0, 1, 2]


async def test_what_only_grows_older_is_pushed_now_and_then(counter: Counter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    with trio.fail_after(5):
        async with open_client(str(tmp_path)) as client, contextlib.aclosing(client.subscribe()) as statuses:
            async for status in statuses:
                seen.append((status["number"], status["since_s"]))
                if len(seen) == 3:
                    break
                if len(seen) == 2:
                    monkeypatch.setattr(server, "IDLE_PUSH_EVERY_S", 0.0)
                    counter.grow_older()
                    continue
                for _ in range(5):
                    counter.grow_older()
                    await trio.testing.wait_all_tasks_blocked(0.01)
                counter.raise_it()
    assert seen == [(0, 0), (1, 5), (1, 6)]


async def test_a_blocking_client_speaks_the_same(counter: Counter, tmp_path: Path) -> None:
    def ask() -> protocol.Message:
        with BlockingClient(str(tmp_path)) as client:
            return client.call("echo", {"x": "y"})

    assert await trio.to_thread.run_sync(ask) == {"x": "y"}


async def test_the_socket_is_for_root_alone(counter: Counter, tmp_path: Path) -> None:
    assert (tmp_path / "control.sock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff" + b"x" * 100,
        b"\0\0\0\0",
        b"\0\0\0\1\xc1",
        protocol.encode({"hello": "client", "version": 99}),
        protocol.encode(protocol.client_hello()) + b"\0\0\0\3abc",
        protocol.encode(protocol.client_hello()) + protocol.encode({"id": "one", "method": "echo", "params": {}}),
    ],
)
async def test_bad_bytes_cost_only_their_own_connection(counter: Counter, tmp_path: Path, raw: bytes) -> None:
    stream = await trio.open_unix_socket(str(tmp_path / "control.sock"))
    with trio.fail_after(5):
        await stream.send_all(raw)
        with contextlib.suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
    async with open_client(str(tmp_path)) as client:
        assert await client.call("echo", {}) == {}


async def test_a_socket_left_behind_is_replaced_and_nobody_is_one_sentence(nursery: trio.Nursery, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control.sock"))
    with pytest.raises(ControlLost, match="no rfsmount answers"):
        async with open_client(str(tmp_path)):
            pass
    with pytest.raises(SaidNo, match="start it with") as refusal, BlockingClient(str(tmp_path)):
        pass
    assert refusal.value.exit_code == exit_codes.DAEMON_NOT_REACHABLE
    await nursery.start(server.serve, str(tmp_path), Counter().service())
    async with open_client(str(tmp_path)) as client:
        assert await client.call("echo", {}) == {}
    nursery.cancel_scope.cancel()


def test_frames_are_bounded() -> None:
    with pytest.raises(PeerProtocolError):
        protocol.decode_length(b"\x7f\0\0\0")
    with pytest.raises(PeerProtocolError):
        protocol.decode_body(b"\x93\1\2\3")

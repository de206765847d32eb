"""The health address, over real TCP: who serves, who does not, and that nobody can hold it up."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from orchestrator.api import health
from orchestrator.api.health import HealthServer, respond
from orchestrator.core.states import Module, Readiness, State
from orchestrator.runner import LATE_S, TICK_S, Runner
from tests.unit.test_runner import FakeEffects, make_runner, serving, waiting


def runner_in(state: State, readiness: Readiness = Readiness.READY) -> Runner:
    module: Module = serving() if state in (State.ALONE, State.PRIM) else waiting()
    return make_runner(FakeEffects(), replace(module, shown=(state, readiness)))


@asynccontextmanager
async def listening(runner: Runner) -> AsyncIterator[int]:
    """The port."""
    async with trio.open_nursery() as nursery:
        server = HealthServer("127.0.0.1", 0, {"pg": runner}, lambda text: None)
        listeners = await nursery.start(server.run)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def send(port: int, request: bytes) -> bytes:
    """All that is answered until the connection ends."""
    with trio.fail_after(5):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(request)
            answer = b""
            while data := await stream.receive_some():
                answer += data
            return answer


async def ask(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    answer = await send(port, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


@pytest.mark.parametrize(
    ("state", "readiness", "serves"),
    [
        (State.PRIM, Readiness.READY, True),
        (State.ALONE, Readiness.READY, True),
        (State.PRIM, Readiness.TRANSIENT, False),
        (State.ALONE, Readiness.NOT_READY, False),
        (State.SECOND, Readiness.READY, False),
        (State.WAIT, Readiness.NOT_READY, False),
        (State.STOP, Readiness.NOT_READY, False),
    ],
)
async def test_only_who_serves_says_200(state: State, readiness: Readiness, serves: bool) -> None:
    async with listening(runner_in(state, readiness)) as port:
        line = f"pg {state.value} {readiness.value}\n"
        assert await ask(port, "/health/pg") == (200 if serves else 503, line)
        assert await ask(port, "/var/modules/pg/ready.txt") == (200 if serves else 404, line)


async def test_what_is_not_there() -> None:
    async with listening(runner_in(State.PRIM)) as port:
        assert await ask(port, "/health/other") == (404, "no such module\n")
        for path in ("/", "/health", "/health/pg/more", "/var/modules/pg/ready.html", "/v1/status", "/health/%2e%2e/pg"):
            assert (await ask(port, path))[0] == 404
        assert (await ask(port, "/health/pg?from=lb"))[0] == 200
        assert (await ask(port, "/health/pg", "DELETE"))[0] == 405


async def test_head_has_no_body() -> None:
    async with listening(runner_in(State.PRIM)) as port:
        answer = await send(port, b"HEAD /health/pg HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"\r\n\r\n") and b"content-length: 14\r\n" in answer.lower()


async def test_who_stood_still_does_not_say_that_it_serves() -> None:
    runner = runner_in(State.PRIM)
    async with listening(runner) as port:
        runner._alive_at = trio.current_time() - TICK_S - LATE_S - 0.1  # just thawed: the loop has not taken a step yet
        assert await ask(port, "/health/pg") == (503, "pg unsure\n")
        runner._alive_at = trio.current_time()
        around = runner.node.around
        runner.node = replace(runner.node, around=replace(around, unsure_until=around.now + 3))  # and now it knows that it stood still
        assert await ask(port, "/health/pg") == (503, "pg unsure\n")
        assert (await ask(port, "/var/modules/pg/ready.txt"))[0] == 404
        runner.node = replace(runner.node, around=around)
        assert (await ask(port, "/health/pg"))[0] == 200


async def test_nonsense_is_answered_and_ends() -> None:
    async with listening(runner_in(State.PRIM)) as port:
        assert (await send(port, b"\x16\x03\x01 is TLS\r\n\r\n")).startswith(b"HTTP/1.1 400")
        long = b"GET /health/pg HTTP/1.1\r\nHost: x\r\nX: " + b"x" * health.REQUEST_BYTES_MAX + b"\r\n"
        assert (await send(port, long)).startswith(b"HTTP/1.1 431")
        assert (await send(port, b"GET /health/pg HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")).startswith(b"HTTP/1.1 413")
        assert (await ask(port, "/health/pg"))[0] == 200


async def test_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "DEADLINE_S", 0.2)
    async with listening(runner_in(State.PRIM)) as port:
        assert await send(port, b"GET /health/pg HTT") == b""


async def test_many_idle_connections_keep_nobody_out() -> None:
    async with listening(runner_in(State.PRIM)) as port:
        idle = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(health.CONNECTIONS_MAX + 20)]
        assert (await ask(port, "/health/pg"))[0] == 200
        with trio.fail_after(1):
            assert await idle[0].receive_some() == b"", "the oldest had to go"
        for stream in idle:
            await stream.aclose()


async def test_everywhere_is_both_families() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(HealthServer("::", 0, runner_in(State.PRIM), lambda text: None).run)
        assert {listener.socket.family for listener in listeners} == {socket.AF_INET, socket.AF_INET6}
        nursery.cancel_scope.cancel()


async def test_a_place_in_use_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "AGAIN_S", 0.01)
    told: list[str] = []
    blocker = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = blocker.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(HealthServer("127.0.0.1", port, {"pg": runner_in(State.PRIM)}, told.append).run)
        with trio.fail_after(5):
            while not told:
                await trio.sleep(0.01)
            await trio.sleep(0.05)
            await blocker.aclose()
            while True:
                try:
                    assert (await ask(port, "/health/pg"))[0] == 200
                    break
                except OSError:
                    await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert len(told) == 1 and "in use" in told[0]


@pytest.mark.parametrize("target", ["//[", "//[::1", "/%", "/health/%ff", "?", "/health/pg?x=[", "*", "//"])
def test_no_target_ends_hactld(target: str) -> None:
    status, _ = respond({}, "GET", target)
    assert status == 404

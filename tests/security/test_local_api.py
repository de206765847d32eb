"""The local API against whoever may talk to it a little: sizes, time, numbers of connections and streams; nothing is changed by a GET."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator.api import health, roles, server
from orchestrator.api.server import ApiServer, Request, Send, Stream, has_room
from tests.unit.test_api_roles import BIN, DAEMON, TABLE, Child, Echo, needs_root, place  # noqa: F401 - fixture
from tests.unit.test_api_routes import FakePeer, ask, make_routes

LINE = "GET /v1/status HTTP/1.1\r\nhost: x\r\n"


@asynccontextmanager
async def serving(path: Path, route: server.Route, logged: list[str] | None = None) -> AsyncIterator[ApiServer]:
    made = ApiServer(path, route, lambda: TABLE, (logged if logged is not None else []).append)
    async with trio.open_nursery() as nursery:
        await nursery.start(made.run)
        yield made
        nursery.cancel_scope.cancel()


async def answer_to(path: Path, *pieces: bytes) -> bytes:
    """What comes back until hactld ends the connection."""
    said = bytearray()
    with trio.fail_after(10):
        stream = await trio.open_unix_socket(path)
        try:
            for piece in pieces:
                await stream.send_all(piece)
        except trio.BrokenResourceError:
            pass  # it has said its word already
        try:
            while piece := await stream.receive_some():
                said += piece
        except trio.BrokenResourceError:
            pass
        await stream.aclose()
    return bytes(said)


# ---- sizes ----------------------------------------------------------------------------------------------------------------------------


async def test_a_body_has_a_size(place: Path) -> None:  # noqa: F811
    """Announced, or in chunks without an end: what is too long reaches nobody, and no more of it is kept."""
    echo, big = Echo(), server.BODY_BYTES_MAX + 1
    head = b"POST /v1/modules/pg/note HTTP/1.1\r\nhost: x\r\n"
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    async with serving(place, echo.route):
        announced = await answer_to(place, head + f"content-length: {big}\r\n\r\n".encode(), b" " * big)
        endless = await answer_to(place, head + b"transfer-encoding: chunked\r\n\r\n", *([chunk] * (big // 0x10000 + 2)))
    for said in (announced, endless):
        assert said.startswith(b"HTTP/1.1 400") and b"the request is too long" in said
    assert echo.reached == []


async def test_a_head_has_a_size(place: Path) -> None:  # noqa: F811
    echo = Echo()
    async with serving(place, echo.route):
        long = await answer_to(place, b"GET /v1/status HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 200_000)
        many = await answer_to(place, LINE.encode() + b"".join(b"x%d: y\r\n" % number for number in range(20_000)))
        target = await answer_to(place, b"GET /v1/" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n")
    assert all(said.startswith(b"HTTP/1.1 400") for said in (long, many, target))
    assert echo.reached == []


async def test_json_that_is_too_deep_or_none(place: Path) -> None:  # noqa: F811
    echo = Echo()
    async with serving(place, echo.route):
        for body in (b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"nonsense", b"[1]", b'"text"', b"1e999999"):
            head = f"POST /v1/modules/pg/note HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
            said = await answer_to(place, head.encode() + body)
            assert said.startswith(b"HTTP/1.1 400"), body[:10]
    assert echo.reached == []


# ---- time -----------------------------------------------------------------------------------------------------------------------------


HALF_A_POST = b"POST /v1/modules/pg/note HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"


@pytest.mark.parametrize("begun", [b"", b"GET /v1/st", LINE.encode(), HALF_A_POST])
async def test_a_request_that_does_not_end_is_not_waited_for(
    begun: bytes,
    place: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Slow loris, in each part of a request. A byte now and then does not help."""
    monkeypatch.setattr(server, "REQUEST_DEADLINE_S", 0.3)
    echo = Echo()
    async with serving(place, echo.route):
        stream = await trio.open_unix_socket(place)

        async def trickle() -> None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while True:
                    await trio.sleep(0.05)
                    await stream.send_all(b"x" if begun and not begun.endswith(b"\r\n\r\n") else b"")

        with trio.fail_after(5):
            await stream.send_all(begun)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trickle)
                with suppress(trio.BrokenResourceError):  # reset, because we had more to say
                    assert await stream.receive_some() == b"", "an end, and no answer"
                nursery.cancel_scope.cancel()
        await stream.aclose()
    assert echo.reached == []


# ---- numbers --------------------------------------------------------------------------------------------------------------------------

HOLD = """
import socket, sys
path, count, said = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
held = []
for _ in range(count):
    each = socket.socket(socket.AF_UNIX)
    each.connect(path)
    each.settimeout(5)
    each.sendall(said)
    held.append(each)
told = held[-1].recv(100)
print(told.split(b" ")[1].decode() if told else "away", flush=True)
sys.stdin.read()
"""


async def hold(nursery: trio.Nursery, path: Path, uid: int, count: int, said: str = "") -> tuple[trio.Process, bytes]:
    """A user's process that holds connections; what the last one was told."""
    words = ["/usr/bin/python3", "-I", "-S", "-c", HOLD, str(path), str(count), said]
    start = partial(trio.run_process, words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=uid, cwd="/", check=False)
    process = await nursery.start(start)
    with trio.fail_after(15):
        return process, bytes(await process.stdout.receive_some()).strip()


@needs_root
async def test_one_user_cannot_use_hactld_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Who holds all the connections that he may have keeps neither another user nor root out; it is logged once."""
    monkeypatch.setattr(server, "CONNECTIONS_MAX_PER_USER", 4)
    logged: list[str] = []
    async with serving(place, Echo().route, logged) as api, trio.open_nursery() as nursery:
        holding, told = await hold(nursery, place, DAEMON, 6)
        assert told == b"away" and api.sent_away[DAEMON] == 2
        for uid in (BIN, 0):
            assert (await trio.to_thread.run_sync(Child(uid).ask, place, [("GET", "/v1/status", "")]))[0][0] == 200
        holding.terminate()
        with trio.fail_after(10):
            while (await trio.to_thread.run_sync(Child(DAEMON).ask, place, [("GET", "/v1/status", "")]))[0][0] != 200:
                await trio.sleep(0.01)  # and when he lets go, he is served again
        nursery.cancel_scope.cancel()
    assert len(logged) == 1 and f"uid {DAEMON}" in logged[0]


@needs_root
async def test_event_streams_are_bounded_for_each_user(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(server, "STREAMS_MAX_PER_USER", 2)

    async def run(send: Send) -> None:
        await send(b": hello\n\n")
        await trio.sleep_forever()

    async def route(request: Request) -> dict[str, Any] | Stream:
        return Stream(run)

    async with serving(place, route), trio.open_nursery() as nursery:
        said = "GET /v1/events/stream HTTP/1.1\r\nhost: x\r\n\r\n"
        _, told = await hold(nursery, place, DAEMON, 2, said)
        assert told == b"200"
        _, told = await hold(nursery, place, DAEMON, 1, said)
        assert told == b"503"
        for uid in (BIN, 0):
            assert (await hold(nursery, place, uid, 1, said))[1] == b"200"
        nursery.cancel_scope.cancel()


def test_all_users_together_leave_room_for_root() -> None:
    held = Counter({0: 1000, 1: 3, 2: 3})
    assert has_room(held, 0, 4, 6) and not has_room(held, 3, 4, 6) and has_room(held, 3, 4, 7) and not has_room(held, 1, 3, 100)
    assert server.OTHERS_MAX > 2 * server.CONNECTIONS_MAX_PER_USER, "two who hold all they may leave a third some"
    assert server.OTHERS_STREAMS_MAX < server.STREAMS_MAX and server.OTHERS_STREAMS_MAX > 2 * server.STREAMS_MAX_PER_USER


# ---- what a browser can do ------------------------------------------------------------------------------------------------------------


def files_in(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*"))


async def test_no_get_changes_anything(tmp_path: Path) -> None:
    """Every GET of the table, on real routes: no line of the history, no command, no state."""
    gets = [path for method, path in roles.ROUTES if method == "GET"]
    assert len(gets) > 10
    routes = make_routes(FakePeer({}), tmp_path)
    node = routes.here.sides[0].runner.node
    before = (routes.here.history.last, dict(node.modules), files_in(tmp_path))
    for path in gets:
        for query in ({}, {"force": "1", "verb": "stop"}):
            asked = path.replace("/v1/modules/*", "/v1/modules/pg").replace("schemas/*", "schemas/hactl.status-1").replace("*", "history")
            try:
                await ask(routes, "GET", asked, query)
            except Exception as refusal:  # this half of a daemon has no configuration and no doctor
                assert type(refusal).__name__ in ("ApiError", "AttributeError", "ExceptionGroup", "AssertionError"), refusal
    assert (routes.here.history.last, dict(node.modules), files_in(tmp_path)) == before
    changing = {path for (method, path), role in roles.ROUTES.items() if method == "GET" and role is roles.ADMIN}
    assert changing == {"/v1/config/diff"}, "what only an admin may is no GET, but for a look at secret lines"


async def test_a_browser_gets_no_leave(place: Path) -> None:  # noqa: F811
    """The API has no network address (its only door is a path), so no name of a host leads to it; no other page is given leave to ask."""
    head = b"GET /v1/status HTTP/1.1\r\nhost: evil.example\r\norigin: http://evil.example\r\nconnection: close\r\n\r\n"
    before = listening()
    async with serving(place, Echo().route):
        assert listening() <= before, "no port was opened"
        said = await answer_to(place, head)
    assert b"access-control" not in said.lower()


def listening() -> set[str]:
    """The ports on which this process listens."""
    links = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    inodes = {link[8:-1] for link in links if link.startswith("socket:")}
    rows = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A" and row[9] in inodes}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_ordered_at_the_health_address(method: str) -> None:
    for target in ("/health/pg", "/v1/modules/pg/stop", "/v1/cluster/rotate-keys"):
        assert health.respond({}, method, target) == (405, "only GET and HEAD")
    for target in ("/v1/status", "/v1/events", "/v1"):
        assert health.respond({}, "GET", target)[0] == 404


async def test_requests_without_end_on_one_connection(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """One after the other is answered, in order; the connection has an end all the same."""
    monkeypatch.setattr(server, "CONNECTION_DEADLINE_S", 0.5)
    echo = Echo()
    async with serving(place, echo.route):
        said = await answer_to(place, *([LINE.encode() + b"\r\n"] * 50))
    answers = [json.loads(part.partition(b"\r\n\r\n")[2]) for part in said.split(b"HTTP/1.1 200 ")[1:]]
    assert len(answers) == len(echo.reached) == 50

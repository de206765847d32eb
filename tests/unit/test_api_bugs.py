"""Whatever is asked, and whatever mistake of ours it finds: it ends in an answer, and hactld goes on. On real sockets."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator import bugs, peer
from orchestrator.api import health
from orchestrator.api.access import Access
from orchestrator.api.doctor import Doctor
from orchestrator.api.health import HealthServer
from orchestrator.api.peer_calls import PeerCalls
from orchestrator.api.routes import Routes
from orchestrator.api.server import ApiServer, Request, Send, Stream
from orchestrator.api.works import Works
from orchestrator.bugs import Bugs
from orchestrator.core.states import State
from rfs.control.client import ControlLost
from tests.unit.test_api_roles import place  # noqa: F401 - a fixture
from tests.unit.test_api_routes import FakePeer, make_routes, watched_routes
from tests.unit.test_data_commands import Copy
from tests.unit.test_health import ask as ask_health
from tests.unit.test_health import runner_in
from tests.unit.test_health import send as send_health
from tests.unit.test_heartbeat import THERE, free_port, listening

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hactld's socket is root's")


@asynccontextmanager
async def serving(routes: Routes, path: Path, table: Access | None = None) -> AsyncIterator[None]:
    """Ends with the daemon's own nursery still whole."""
    mistakes = Bugs(lambda text: routes.here.history.add("", "bug", text))
    async with trio.open_nursery() as nursery:
        for side in routes.here.sides:
            nursery.start_soon(side.runner.run)
        await nursery.start(ApiServer(path, routes.route, None if table is None else lambda: table, bugs=mistakes).run)
        yield
        assert (await ask(path, "GET", "/v1/status"))[0] == 200, "it goes on"
        nursery.cancel_scope.cancel()


async def send(path: Path, request: bytes) -> bytes:
    """All that is answered until the connection ends."""
    with trio.fail_after(10):
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(request)
            answer = b""
            while piece := await stream.receive_some():
                answer += piece
            return answer


async def ask(path: Path, method: str, target: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
    head = f"{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    first, _, rest = (await send(path, head.encode() + body)).partition(b"\r\n\r\n")
    return int(first.split()[1]), json.loads(rest) if rest else {}


def noted(routes: Routes) -> list[str]:
    return [line.text for line in routes.here.history.after(0) if line.kind == "bug"]


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/v1/status", b"[" * 100_000),
        ("GET", "/v1/status", b'{"a":' * 100_000),
        ("GET", "/v1/events/stream?after=%C2%B2", b""),
        ("GET", "/v1/events/stream?after=" + "9" * 5000, b""),
        ("GET", "/v1/events/stream?after=node1:" + "9" * 5000, b""),
        ("GET", "/v1/events?after=%C2%B2", b""),
        ("GET", "/v1/events?node=node2&after=" + "9" * 4000, b""),
        ("GET", "/v1/modules/pg/logs?lines=" + "9" * 5000, b""),
        ("GET", "/v1/doctor?what=snapshot&token=x&offset=%C2%B2", b""),
        ("GET", "/v1/doctor?what=snapshot&token=x&offset=" + "9" * 5000, b""),
        ("POST", "/v1/modules/pg/checkers/custom.farm", b'{"state": []}'),
        ("POST", "/v1/modules/pg/checkers/custom.farm", b'{"state": {}}'),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_what_nobody_means_is_a_usage_error(method: str, target: str, body: bytes, tmp_path: Path) -> None:
    routes = await watched_routes(tmp_path)
    runner = routes.here.runner_of("pg")
    runner.node.modules["pg"].watched["custom.farm"] = "prim"  # type: ignore[index]
    routes.here.doctor = Doctor("node1", tmp_path, tmp_path, True, dict, list)
    async with serving(routes, tmp_path / "sock"):
        status, document = await ask(tmp_path / "sock", method, target, body)
        assert (status, document["code"]) == (400, 2), document
    assert noted(routes) == []


@pytest.mark.parametrize("target", ["/v1/status", "/v1/events/stream", "/", "/v1/modules/pg/swap"])
async def test_head_is_refused_without_a_body(target: str, tmp_path: Path) -> None:
    routes = make_routes(FakePeer({}), tmp_path)
    async with serving(routes, tmp_path / "sock"):
        answer = await send(tmp_path / "sock", f"HEAD {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 404") and answer.endswith(b"\r\n\r\n")
    assert noted(routes) == []


STRANGER = """
import socket
for request in {requests!r}:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect({place!r})
        try:
            sock.sendall(request)
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
        except OSError:
            pass
        print(answer[:12].decode(), answer.endswith(b"\\r\\n\\r\\n"), flush=True)
"""


async def test_who_has_no_role_ends_nothing(place: Path, tmp_path: Path) -> None:  # noqa: F811
    routes = make_routes(FakePeer({}), tmp_path)
    requests = [
        b"HEAD /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"HEAD /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET /v1/events/stream?after=%C2%B2 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n" + b"[" * 100_000,
    ]
    async with serving(routes, place, {"viewer": ("daemon",), "operator": (), "admin": ()}):
        await trio.Path(place).chmod(0o666)
        words = ["/usr/bin/python3", "-I", "-S", "-c", STRANGER.format(requests=requests, place=str(place))]
        with trio.fail_after(60):
            done = await trio.run_process(words, capture_stdout=True, stderr=subprocess.STDOUT, user=65534, group=65534, cwd="/")
        lines = done.stdout.decode().splitlines()
        assert lines[:2] == ["HTTP/1.1 403 True"] * 2 and len(lines) == 4 and lines[2] == "HTTP/1.1 403 False", lines
    assert noted(routes) == []


async def test_a_configuration_of_a_peer_takes_no_time_from_whoever_asks(tmp_path: Path) -> None:
    there = FakePeer({"schema": "hactl.config-state/1"})
    routes = make_routes(there, tmp_path)
    async with serving(routes, tmp_path / "sock"):
        assert (await ask(tmp_path / "sock", "GET", "/v1/config?node=node2&wait_s=soon"))[0] == 200
    assert noted(routes) == [] and there.asked[0][0] == "config"


# ---- one place for each kind of mistake ----------------------------------------------------------------------------------------------


async def broken(*_: Any) -> Any:
    """A mistake that nobody has found yet."""
    raise KeyError("what is not there")


async def broken_in_a_nursery(*_: Any) -> Any:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broken)
        await trio.sleep_forever()


async def not_json(_: Request) -> dict[str, Any]:
    return {"a": object()}


async def a_stream(_: Request) -> Stream:
    async def run(send_piece: Send) -> None:
        await send_piece(b"data: 1\n\n")
        await broken()

    return Stream(run)


@pytest.mark.parametrize("mistake", [broken, broken_in_a_nursery, not_json], ids=lambda each: each.__name__)
async def test_a_mistake_is_answered_and_noted(mistake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    routes = make_routes(FakePeer({}), tmp_path)
    async with serving(routes, tmp_path / "sock"):
        with monkeypatch.context() as patch:
            patch.setattr(routes.here, "status", dict)
            patch.setattr(Routes, "_status", lambda self, wanted: mistake(wanted))
            for _ in range(3):
                status, document = await ask(tmp_path / "sock", "GET", "/v1/status")
                assert (status, document["schema"], document["code"]) == (500, "hactl.error/1", 1)
                assert "hactl history --kind bug" in document["message"]
    [line] = noted(routes)
    assert line.startswith("GET /v1/status: ") and ".py:" in line, "once for a place, with the place"
    assert ("KeyError" in line) == (mistake is not not_json)


async def test_what_the_machine_refuses_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(_: Any) -> Any:
        raise PermissionError(13, "Permission denied", "/var/lib/lockstep")

    routes = make_routes(FakePeer({}), tmp_path)
    async with serving(routes, tmp_path / "sock"):
        with monkeypatch.context() as patch:
            patch.setattr(Routes, "_status", lambda self, wanted: refused(wanted))
            status, document = await ask(tmp_path / "sock", "GET", "/v1/status")
            assert status == 500 and "/var/lib/lockstep" in document["message"]
    assert noted(routes) == []


async def test_a_mistake_in_a_stream_ends_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    routes = make_routes(FakePeer({}), tmp_path)
    async with serving(routes, tmp_path / "sock"):
        with monkeypatch.context() as patch:
            patch.setattr(Routes, "_status", lambda self, wanted: a_stream(wanted))
            answer = await send(tmp_path / "sock", b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"data: 1" in answer
    assert len(noted(routes)) == 1 and "KeyError" in noted(routes)[0]


async def test_after_a_minute_it_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    mistakes = Bugs(lines.append)
    for now, count in ((100.0, 1), (159.0, 1), (161.0, 2)):
        monkeypatch.setattr(bugs.time, "monotonic", lambda now=now: now)
        mistakes.told("a request", ExceptionGroup("", [KeyError("x" * 9000)]))
        assert len(lines) == count and len(lines[0]) < 600


async def test_a_mistake_in_long_work_fails_the_work(tmp_path: Path) -> None:
    routes = make_routes(FakePeer({}), tmp_path)
    file = tmp_path / "differences.jsonl"
    file.write_text('{"where": "here"}\n{"whe')
    answers: Mapping[str, list[Any]] = {
        "verify": [{"running": False}],
        "diff": [{"differences": 2, "file": str(file)}],
        "repair": [ControlLost("rfsmount went away")],
    }
    lines: list[str] = []
    works = Works({"pg": Copy(tmp_path, dict(answers))}, bugs=Bugs(lines.append))
    routes.here.works = works

    async def done(verb: str) -> dict[str, Any]:
        number = (await ask(tmp_path / "sock", "POST", f"/v1/modules/pg/{verb}"))[1]["work"]["number"]
        with trio.fail_after(10):
            while (work := works.look("pg")) is None or work["number"] != number or work["state"] == "running":
                await trio.testing.wait_all_tasks_blocked(0.01)
        return work

    async with trio.open_nursery() as nursery:
        await nursery.start(works.run)
        async with serving(routes, tmp_path / "sock"):
            work = await done("verify")
            assert (work["state"], work["code"]) == ("failed", 1) and "KeyError" in work["message"] and len(lines) == 1
            work = await done("diff")
            assert (work["state"], work["result"]["found"]) == ("done", [{"where": "here"}]), "what is whole of a torn file"
            work = await done("resync")
            assert (work["state"], work["message"]) == ("failed", "rfsmount went away") and len(lines) == 1
        nursery.cancel_scope.cancel()


async def test_a_mistake_in_a_peers_call_fails_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    routes, port, lines = make_routes(FakePeer({}), tmp_path), free_port(), list[str]()
    server = peer.PeerServer("plant7", "node2", PeerCalls(routes.here, routes.here.sides[0]).answer, None, [].append, Bugs(lines.append))
    client = peer.PeerClient("plant7", "node2", "node1", (THERE,), None, port)
    async with trio.open_nursery() as nursery:
        await nursery.start(listening(server, port))
        with monkeypatch.context() as patch:
            patch.setattr(routes.here, "status", lambda: {}["schema"])
            with pytest.raises(peer.PeerRefused, match="has made a mistake") as refused:
                await client.call("status", {}, 5.0)
            assert refused.value.code == 1 and len(lines) == 1 and "the call 'status' of node2's" in lines[0]
            patch.setattr(routes.here, "status", lambda: {"number": 1 << 80})  # msgpack has none such
            with pytest.raises(peer.PeerUnreachable):
                await client.call("status", {}, 5.0)
            assert len(lines) == 2
        assert await client.call("hello", {}, 5.0) == {"node": "node1"}
        for nonsense in (float("nan"), -1.0, "long"):
            assert (await client.call("events", {"after": 1, "wait_s": nonsense}, 5.0))["newest"] == 1
        assert len(lines) == 2
        nursery.cancel_scope.cancel()


async def test_the_health_address_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    server = HealthServer("127.0.0.1", 0, {"pg": runner_in(State.PRIM)}, lambda text: None, Bugs(lines.append))
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(server.run)
        port = listeners[0].socket.getsockname()[1]
        with monkeypatch.context() as patch:
            patch.setattr(health, "judge", lambda runners, module: {}["pg"])
            status, text = await ask_health(port, "/health/pg")
            assert status == 500 and "KeyError" in text and len(lines) == 1
        answer = await send_health(port, b"HEAD /health/pg HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
        assert answer.startswith(b"HTTP/1.1 413") and answer.endswith(b"\r\n\r\n")
        assert (await ask_health(port, "/health/pg"))[0] == 200 and len(lines) == 1
        nursery.cancel_scope.cancel()

"""The event stream on a real socket: what happens arrives, a place can be resumed, what is gone is said, who is slow is dropped."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import trio
import trio.testing

from orchestrator.api import feed, schemas, server
from orchestrator.api import routes as routes_file
from orchestrator.api.client import QUIET, ApiClient, ApiFailure, Event
from orchestrator.api.feed import cursors_from, gap
from orchestrator.api.routes import Routes
from orchestrator.api.server import ApiError, ApiServer
from orchestrator.effects.notify import EVENTS_MAX
from orchestrator.peer import PeerUnreachable
from tests.unit.schemas import check
from tests.unit.test_api_routes import FakePeer, make_routes

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hactld's socket is root's")


@asynccontextmanager
async def serving(routes: Routes, path: Path) -> AsyncIterator[ApiClient]:
    async with trio.open_nursery() as nursery:
        await nursery.start(ApiServer(path, routes.route).run)
        yield ApiClient(path, 10.0)
        nursery.cancel_scope.cancel()


def take(client: ApiClient, count: int, after: str | None = None, node: str | None = None) -> list[Event]:
    """The first events of a stream; then the reader goes."""
    found: list[Event] = []
    for event in client.stream(after, node, tick_s=10.0):
        assert event is not QUIET, f"nothing more came after {found}"
        found.append(event)
        if len(found) == count:
            break
    return found


async def reading(client: ApiClient, count: int, after: str | None = None, node: str | None = None) -> list[Event]:
    return await trio.to_thread.run_sync(take, client, count, after, node)


async def test_what_is_kept_and_what_happens(tmp_path: Path) -> None:
    routes = make_routes(FakePeer({}), tmp_path)
    history = routes.here.history
    async with serving(routes, tmp_path / "sock") as client, trio.open_nursery() as nursery:
        first = await reading(client, 1, "0")
        assert [event.document["text"] for event in first] == ["something happened"]
        for number in range(3):
            history.add("pg", "transition", f"number {number}")
        more = await reading(client, 3, first[0].identity)
        assert [event.document["text"] for event in more] == ["number 0", "number 1", "number 2"]
        assert more[-1].identity == "4" and all(check(event.document) == "hactl.event/1" for event in more)

        async def soon() -> None:
            await trio.testing.wait_all_tasks_blocked(0.05)
            history.add("pg", "transition", "while somebody reads")

        nursery.start_soon(soon)
        [live] = await reading(client, 1, more[-1].identity)
        assert live.document["text"] == "while somebody reads"


async def test_a_line_that_comes_from_a_thread(tmp_path: Path) -> None:
    """rfsmount is started in one, and says so."""
    routes = make_routes(FakePeer({}), tmp_path)
    async with serving(routes, tmp_path / "sock") as client, trio.open_nursery() as nursery:

        async def soon() -> None:
            await trio.testing.wait_all_tasks_blocked(0.05)
            await trio.to_thread.run_sync(routes.here.history.add, "pg", "rfs-start", "from a thread")

        nursery.start_soon(soon)
        [event] = await reading(client, 1)
        assert event.document["text"] == "from a thread"
    routes.here.history.add("pg", "transition", "nobody waits any more")


async def test_without_a_place_from_now_on(tmp_path: Path) -> None:
    routes = make_routes(FakePeer({}), tmp_path)
    async with serving(routes, tmp_path / "sock") as client, trio.open_nursery() as nursery:

        async def soon() -> None:
            await trio.testing.wait_all_tasks_blocked(0.05)
            routes.here.history.add("pg", "transition", "news")

        nursery.start_soon(soon)
        [event] = await reading(client, 1)
        assert event.document["text"] == "news"


async def test_what_is_not_kept_any_more_is_said(tmp_path: Path) -> None:
    routes = make_routes(FakePeer({}), tmp_path)
    for number in range(EVENTS_MAX + 10):
        routes.here.history.add("pg", "transition", f"number {number}")
    async with serving(routes, tmp_path / "sock") as client:
        gone, oldest = await reading(client, 2, "3")
        assert (gone.kind, check(gone.document)) == ("gone", "hactl.gone/1")
        assert "events 4 to 11 of node1 are not kept in memory any more" in gone.document["text"]
        assert oldest.document["number"] == 12
        [everything] = await reading(client, 1, "0")
        assert everything.document["number"] == 12, "who asks for what there is has missed nothing"
        [anew, _] = await reading(client, 2, "99999")
        assert "began anew" in anew.document["text"]


class Peer(FakePeer):
    """Its events are those of a list; a question waits until there are some."""

    def __init__(self) -> None:
        super().__init__({})
        self.events: list[dict[str, Any]] = []
        self.silent = False
        self.more = trio.Event()

    def add(self, number: int, text: str) -> None:
        line = {"time": "", "wall_s": 1e9 + number, "monotonic_s": 1.0, "node": "node2", "module": "pg", "kind": "transition"}
        self.events.append({"number": number, "text": text, **line})
        self.more.set()

    async def call(self, method: str, parameters: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        self.asked.append((method, parameters))
        if self.silent:
            raise PeerUnreachable("gone")
        while parameters["wait_s"] and not any(event["number"] > parameters["after"] for event in self.events):
            self.more = trio.Event()
            await self.more.wait()
        found = [event for event in self.events if event["number"] > parameters["after"]]
        return {"node": "node2", "events": found, "first": 1, "newest": self.events[-1]["number"] if self.events else 0, "last": 0}


async def test_of_all_nodes(tmp_path: Path) -> None:
    peer = Peer()
    routes = make_routes(peer, tmp_path)
    peer.add(1, "over there")
    async with serving(routes, tmp_path / "sock") as client:
        found = await reading(client, 2, "node1:0,node2:0", "all")
        assert {event.document["text"] for event in found} == {"something happened", "over there"}
        place = found[-1].identity
        assert place == "node1:1,node2:1" or place == "node2:1,node1:1"
        peer.add(2, "again there")
        [event] = await reading(client, 1, place, "all")
        assert event.document["text"] == "again there" and cursors_from(event.identity, ("node1", "node2"))["node2"] == 2
        assert peer.asked[0][1]["role"] == "admin", "asked in the name of who reads"


async def test_a_peer_that_is_silent_is_named_and_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "AGAIN_S", 0.01)
    peer = Peer()
    peer.silent = True
    routes = make_routes(peer, tmp_path)
    async with serving(routes, tmp_path / "sock") as client:
        [silent] = await reading(client, 1, "node2:0", "node2")
        assert silent.kind == "silent" and silent.document["text"] == "node2 does not answer: gone"
        peer.silent = False
        peer.add(1, "back")
        [event] = await reading(client, 1, "node2:0", "node2")
        assert event.document["text"] == "back"


async def test_a_reader_that_takes_nothing_is_dropped_and_can_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SEND_DEADLINE_S", 0.05)
    dropped, pour = trio.Event(), ApiServer._pour

    async def watched(*arguments: Any) -> None:
        await pour(*arguments)
        dropped.set()

    monkeypatch.setattr(ApiServer, "_pour", watched)
    routes = make_routes(FakePeer({}), tmp_path)
    for number in range(400):
        routes.here.history.add("pg", "transition", f"{number} " + "x" * 4000)
    async with serving(routes, tmp_path / "sock") as client:
        stream = await trio.open_unix_socket(str(tmp_path / "sock"))
        await stream.send_all(b"GET /v1/events/stream?after=0 HTTP/1.1\r\nhost: x\r\n\r\n")
        await dropped.wait()
        received = b""
        with trio.fail_after(10):
            while piece := await stream.receive_some():
                received += piece  # what was on the way, and then the end
        assert received.count(b"data: ") < 400
        last = received.rpartition(b"id: ")[2].split(b"\n")[0].decode()
        [event] = await reading(client, 1, last)
        assert event.document["number"] == int(last) + 1


async def test_who_follows_other_nodes_leaves_room_for_the_daemons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes_file, "FOLLOWING_MAX", 1)
    peer = Peer()
    async with serving(make_routes(peer, tmp_path), tmp_path / "sock") as client:
        stream = await trio.open_unix_socket(str(tmp_path / "sock"))
        await stream.send_all(b"GET /v1/events/stream?node=all HTTP/1.1\r\nhost: x\r\n\r\n")
        with trio.fail_after(10):
            await stream.receive_some()
        with pytest.raises(ApiFailure, match="1 readers follow other nodes from here already"):
            await reading(client, 1, "0", "all")
        assert len(await reading(client, 1, "0")) == 1, "this node's own are for everybody"
        await stream.aclose()
        with trio.fail_after(10):
            while True:  # it is gone when the server has seen it
                try:
                    assert len(await reading(client, 1, "0", "all")) == 1
                    break
                except ApiFailure:
                    await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_browser_comes_back_to_where_it_was(tmp_path: Path) -> None:
    """Its address is that of the beginning; the header is newer."""
    routes = make_routes(FakePeer({}), tmp_path)
    routes.here.history.add("pg", "transition", "the second")
    async with serving(routes, tmp_path / "sock"):
        stream = await trio.open_unix_socket(str(tmp_path / "sock"))
        await stream.send_all(b"GET /v1/events/stream?after=0 HTTP/1.1\r\nhost: x\r\nlast-event-id: 1\r\n\r\n")
        received = b""
        with trio.fail_after(10):
            while b"data: " not in received:
                received += await stream.receive_some()
        assert b"the second" in received and b"something happened" not in received


async def test_keepalive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "KEEPALIVE_S", 0.01)
    routes = make_routes(FakePeer({}), tmp_path)
    async with serving(routes, tmp_path / "sock"):
        stream = await trio.open_unix_socket(str(tmp_path / "sock"))
        await stream.send_all(b"GET /v1/events/stream HTTP/1.1\r\nhost: x\r\n\r\n")
        received = b""
        with trio.fail_after(10):
            while received.count(b":\n\n") < 3:
                received += await stream.receive_some()
        assert b"content-type: text/event-stream" in received.lower() and b"retry: 1000" in received


async def test_too_many_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STREAMS_MAX", 0)
    async with serving(make_routes(FakePeer({}), tmp_path), tmp_path / "sock") as client:
        with pytest.raises(ApiFailure, match="too many event streams"):
            await reading(client, 1, "0")


def test_places() -> None:
    nodes = ("node1", "node2")
    assert cursors_from("", nodes) == {} and cursors_from("7", nodes) == {"node1": 7}
    assert cursors_from("node1:7,node2:9", nodes) == {"node1": 7, "node2": 9}
    for text in ("soon", "node1:", "node1:x", "7,"):
        with pytest.raises(ApiError):
            cursors_from(text, nodes)
    assert gap("n", 0, 50, 90) is None and gap("n", 49, 50, 90) is None and gap("n", 48, 50, 90) is not None


def test_every_document_that_is_made_has_a_schema() -> None:
    """Whatever is written as "hactl.NAME/N" anywhere in the source."""
    package = Path(schemas.__file__).parents[1]
    texts = [path.read_text() for path in package.rglob("*.py") if path != Path(schemas.__file__)]
    named = {name for text in texts for name in re.findall(r'"(hactl\.[a-z-]+/\d+)"', text)}
    assert len(named) > 30 and named <= set(schemas.NAMES), f"no schema: {named - set(schemas.NAMES)}"
    assert set(schemas.NAMES) <= named, f"nobody makes one: {set(schemas.NAMES) - named}"


def test_every_schema_is_one() -> None:
    for name in schemas.NAMES:
        jsonschema.Draft202012Validator.check_schema(schemas.schema(name))


async def read_line(stream: trio.abc.ReceiveStream, buffer: bytearray) -> bytes:
    with trio.fail_after(30):
        while b"\n" not in buffer:
            piece = await stream.receive_some()
            assert piece, "it ended"
            buffer += piece
    line, _, rest = bytes(buffer).partition(b"\n")
    buffer[:] = rest
    return line


@pytest.mark.parametrize("words", [("status", "-w", "60"), ("events", "-f")], ids=" ".join)
async def test_a_command_follows_the_stream(tmp_path: Path, words: tuple[str, ...]) -> None:
    """As a process: something happens, and a line comes; nothing is polled meanwhile."""
    routes = make_routes(FakePeer({}), tmp_path)
    buffer = bytearray()
    async with serving(routes, tmp_path / "sock"), trio.open_nursery() as nursery:
        code = "import sys; from orchestrator.hactl.cli import main; main(sys.argv[1:])"
        command = [sys.executable, "-c", code, "--socket", str(tmp_path / "sock"), *words, "-o", "jsonl"]
        process = await nursery.start(partial(trio.run_process, command, stdout=subprocess.PIPE, check=False))
        assert json.loads(await read_line(process.stdout, buffer))
        with trio.fail_after(30):
            while not any(task.name.endswith("Feed._of_this_node") for task in every_task()):
                await trio.testing.wait_all_tasks_blocked(0.01)
        routes.here.history.add("pg", "transition", "while it is followed")
        shown = json.loads(await read_line(process.stdout, buffer))
        assert shown.get("text") == "while it is followed" or check(shown) == "hactl.status/1"
        process.terminate()


def every_task() -> list[trio.lowlevel.Task]:
    """All that run."""
    found, waiting = list[trio.lowlevel.Task](), [trio.lowlevel.current_root_task()]
    while waiting:
        task = waiting.pop()
        assert task is not None
        found.append(task)
        waiting += [child for inner in task.child_nurseries for child in inner.child_tasks]
    return found

"""`data`, `verify`, `resync` and `resolve` from the command line down to rfsmount's control calls: the real CLI, the real socket and
routes, an rfsmount that answers from a script. And: every document that comes out of it is what its schema says."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator.api.client import ApiClient
from orchestrator.api.peer_calls import PeerCalls
from orchestrator.api.routes import Routes
from orchestrator.api.server import ApiServer
from orchestrator.api.works import Works, progress_of
from orchestrator.core.states import State
from orchestrator.core.what_if import QUESTIONS
from orchestrator.hactl.cli import run
from orchestrator.hactl.progress import words_of
from rfs.control.client import ControlLost
from rfs.errors import SaidNo
from tests.unit.schemas import check
from tests.unit.test_api_routes import FakePeer, make_routes

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hactld's socket is root's")

STATUS = {
    "schema": "rfsmount.status/1", "role": "primary", "link": "paired", "data": "UPTODATE", "generation": "9f3c61d0a2b47e15", "term": 3,
    "seq": 812, "acked_seq": 812, "ack": "memory", "marked_bytes": 0, "hot_bytes": 8 << 20, "everything_marked": False, "resync": None,
    "reason": "", "code": "PAIRED", "last_heard_s": 0.4, "peer": {"node": "node2", "data": "UPTODATE", "rtt_us": 71},
    "directories": [{"path": "/srv/pg", "mounted": True, "exclude": ["*.tmp"], "only": []}],
}  # fmt: skip
DIFFERENT = {"path": "/srv/pg/a", "kinds": ["content"], "offset": 4096, "length": 10}


def comparing(**more: Any) -> dict[str, Any]:
    """What `verification` says."""
    return {
        "running": False, "cut_off": "", "bytes_done": 1 << 20, "total_bytes": 1 << 20, "files_done": 3, "total_files": 3, "differences": 0,
        "listed": 0, "shown": [], **more,
    }  # fmt: skip


@dataclass
class Copy:
    """An rfsmount that answers from a script: by method, the next answer, the last one for ever."""

    state_directory: Path
    answers: dict[str, list[Any]] = field(default_factory=dict)
    last: Mapping[str, Any] = field(default_factory=lambda: dict(STATUS))
    asked: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    async def ask(self, method: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append((method, dict(parameters)))
        script = self.answers.get(method, [self.last])
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            return await answer()  # type: ignore[no-any-return]
        return answer  # type: ignore[no-any-return]


@dataclass
class Node:
    """hactld, as far as it is needed."""

    routes: Routes
    copy: Copy
    socket: Path
    capsys: pytest.CaptureFixture[str]

    async def hactl(self, *words: str) -> tuple[int, str, str]:
        code = await trio.to_thread.run_sync(run, ["--socket", str(self.socket), *words])
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def diverged(self) -> None:
        runner = self.routes.here.sides[0].runner
        module = runner.node.modules["pg"]
        assert module.view is not None
        view = replace(module.view, link="diverged", code="DIVERGED")
        runner.node = replace(runner.node, modules={"pg": replace(module, view=view)})


@pytest.fixture
async def node(
    nursery: trio.Nursery, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Node]:
    monkeypatch.setattr("orchestrator.api.works.LOOK_S", 0.01)
    monkeypatch.setattr("orchestrator.hactl.data_commands.LOOK_S", 0.01)
    routes = make_routes(FakePeer({}), tmp_path)
    copy = Copy(tmp_path / "state")
    history = routes.here.history
    routes.here.works = Works({"pg": copy}, lambda module, text: history.add(module, "work", text), "node1")
    for side in routes.here.sides:
        nursery.start_soon(side.runner.run)
    await nursery.start(routes.here.works.run)
    await nursery.start(ApiServer(tmp_path / "sock", routes.route).run)
    yield Node(routes, copy, tmp_path / "sock", capsys)
    nursery.cancel_scope.cancel()


# ---- data ---------------------------------------------------------------------------------------------------------------------------


async def test_data(node: Node) -> None:
    (node.copy.state_directory / "kept" / "20261126T101500Z").mkdir(parents=True)
    os.utime(node.copy.state_directory / "kept" / "20261126T101500Z", (0, 0))
    code, out, err = await node.hactl("data")
    assert (code, err) == (0, "")
    assert out.splitlines()[:7] == [
        "pg on node1: primary, UPTODATE",
        "  generation   9f3c61d0a2b47e15, term 3",
        "  sequence     812, acknowledged 812 (memory)",
        "  link         paired with node2 (UPTODATE), 71 µs, heard 0.4 s ago",
        "  marked       8.0 MiB since the last checkpoint, compared only if a node loses power",
        "  directory    /srv/pg: mounted, exclude *.tmp",
        f"  kept         {node.copy.state_directory}/kept/20261126T101500Z, 1970-01-01 00:00",
    ]
    document = json.loads((await node.hactl("data", "--json"))[1])
    assert check(document) == "hactl.data/1" and document["rfs"]["peer"]["rtt_us"] == 71
    node.copy.last = {}
    node.copy.answers["status"] = [ControlLost("no")]
    assert "rfsmount does not run here; 'hactl start pg' starts it" in (await node.hactl("data"))[1]


# ---- verify -------------------------------------------------------------------------------------------------------------------------


async def test_verify_of_equal_copies(node: Node) -> None:
    node.copy.answers = {"verify": [comparing(running=True)], "verification": [comparing(running=True), comparing()]}
    code, out, err = await node.hactl("verify", "pg")
    assert (code, err) == (0, "") and out == "pg: both copies are equal (3 files and 1.0 MiB compared in 0 s)\n"
    kinds = [line.as_json("")["kind"] for line in node.routes.here.history.after(0)]
    assert kinds[-2:] == ["command", "work"]


async def test_verify_of_copies_that_differ(node: Node) -> None:
    found = comparing(differences=1, listed=1, shown=[DIFFERENT])
    node.copy.answers = {"verify": [found], "verification": [found]}
    code, out, _ = await node.hactl("verify")
    assert code == 1 and out.splitlines() == [
        "content: /srv/pg/a at 4096, 10 bytes",
        "1 differences (3 files and 1.0 MiB compared in 0 s); 'hactl verify pg --repair' makes them equal",
    ]
    summary = json.loads((await node.hactl("verify", "--json"))[1].splitlines()[-1])
    assert check(summary) == "hactl.summary/1" and summary["code"] == 1 and summary["result"]["found"] == [DIFFERENT]


async def test_verify_repairs(node: Node) -> None:
    differ = comparing(differences=1, listed=1, shown=[DIFFERENT])
    node.copy.answers = {"verify": [differ, comparing()], "verification": [differ], "repair": [{}]}
    code, out, _ = await node.hactl("verify", "--repair")
    assert code == 0 and out.startswith("pg: 1 differences were repaired; both copies are equal")
    assert [method for method, _ in node.copy.asked] == ["verify", "verification", "repair", "verify"]


@pytest.mark.parametrize(
    ("answer", "code", "sentence"),
    [
        (comparing(cut_off="Transport endpoint is not connected"), 1, "cut off before its end"),
        (SaidNo("there is no second copy up to date to compare with"), 6, "no second copy"),
        (ControlLost("rfsmount is not running here; start the module first"), 1, "start the module first"),
    ],
)
async def test_verify_that_cannot_be(node: Node, answer: Any, code: int, sentence: str) -> None:
    node.copy.answers = {"verify": [answer]}
    found, out, err = await node.hactl("verify")
    assert (found, out) == (code, "") and sentence in err and err.count("\n") == 1


async def test_one_work_at_a_time(node: Node) -> None:
    release = trio.Event()

    async def later() -> Mapping[str, Any]:
        await release.wait()
        return comparing()

    node.copy.answers = {"verify": [later], "verification": [comparing()]}
    client = ApiClient(node.socket, 10.0)
    begun = await trio.to_thread.run_sync(client.command, "pg", "verify", {})
    assert check(begun) == "hactl.work/1" and begun["work"]["state"] == "running" and begun["work"]["who"] == "root on node1"
    code, _, err = await node.hactl("resync", "--full")
    assert code == 6 and "'verify' of pg still runs (begun by root on node1)" in err
    release.set()
    assert (await node.hactl("verify"))[0] in (0, 6)  # the first may be over by now, or not


# ---- resync -------------------------------------------------------------------------------------------------------------------------


async def test_a_full_resync(node: Node) -> None:
    node.copy.answers = {"repair": [{}]}
    assert (await node.hactl("resync", "pg", "--full"))[:2] == (0, "pg: both copies are a pair again\n")
    assert "nothing was" not in (await node.hactl("resync", "--full", "--dry-run"))[1]
    assert [method for method, _ in node.copy.asked] == ["repair"], "a dry run asks for nothing"


async def test_there_is_no_resync(node: Node) -> None:
    code, _, err = await node.hactl("resync")
    assert code == 5 and "no resync of pg runs" in err and "--wait waits for one" in err
    assert (await node.hactl("resync", "--wait", "--timeout", "50ms"))[0] == 7
    node.diverged()
    assert (await node.hactl("resync"))[0] == 6


# ---- resolve ------------------------------------------------------------------------------------------------------------------------


def differences(path: Path) -> dict[str, Any]:
    lines = [
        {"directory": 0, "path": "a", "where": "both", "what": ["content"], "type": "file", "ranges": [[0, 10]]},
        {"directory": 0, "path": "b", "where": "here", "what": [], "type": "file", "size_here": 2048},
        {"directory": 0, "path": "c", "where": "there", "what": [], "type": "directory"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    counted = {"only_here": 1, "only_there": 1, "different": 1, "differences": 3, "differing_bytes": 2058, "entries": 9}
    return {"file": str(path), **counted}


async def test_resolve_shows_first_and_does_then(node: Node, tmp_path: Path) -> None:
    node.diverged()
    saved = {"yields": "node2", "kept": "/var/lib/x/kept/1", "places": 2, "bytes": 2058}
    node.copy.answers = {"diff": [differences(tmp_path / "diff.jsonl")], "resolve": [saved]}
    shown = [
        "  content: /srv/pg/a",
        "  only on node1: /srv/pg/b (file, 2.0 KiB)",
        "  only on node2: /srv/pg/c (directory)",
        "3 differences: 1 only on node1, 1 only on node2, 1 different; 2.0 KiB in them",
        "node1's data stays. What differs on node2 is saved there first, in kept/ of the module's state directory.",
    ]
    code, out, _ = await node.hactl("resolve", "pg", "--keep", "node1", "--dry-run")
    assert code == 0 and out.splitlines() == shown
    assert [method for method, _ in node.copy.asked] == ["diff"]
    code, out, _ = await node.hactl("resolve", "pg", "--keep", "node1")
    assert code == 0 and out.splitlines() == [
        *shown, "node2 gives its data up: 2 places that differed are saved on it in /var/lib/x/kept/1",
    ]  # fmt: skip
    assert node.copy.asked[-1] == ("resolve", {"keep": "here"})
    await node.hactl("resolve", "pg", "--keep", "node2")
    assert node.copy.asked[-1] == ("resolve", {"keep": "peer"})
    for words in (("--dry-run",), ()):
        lines = (await node.hactl("resolve", "pg", "--keep", "node2", "--json", *words))[1].splitlines()
        assert {check(json.loads(line)) for line in lines} == {"hactl.summary/1"}


async def test_a_resolve_that_is_refused(node: Node, tmp_path: Path) -> None:
    node.diverged()
    refusal = SaidNo("what differs on this node does not fit: nothing was changed")
    node.copy.answers = {"diff": [differences(tmp_path / "diff.jsonl")], "resolve": [refusal]}
    code, _, err = await node.hactl("resolve", "pg", "--keep", "node1")
    assert code == 6 and "nothing was changed" in err


# ---- discard ------------------------------------------------------------------------------------------------------------------------


async def test_discard_asks_and_does(node: Node) -> None:
    node.copy.answers = {"discard": [{}, SaidNo("nothing is set aside on this node: there is nothing to discard")]}
    code, out, _ = await node.hactl("discard", "pg", "--dry-run")
    assert code == 0 and "gone for good" in out and node.copy.asked == []
    code, out, _ = await node.hactl("discard", "pg")
    assert code == 0 and out == "pg: what was set aside on this node is gone for good\n"
    code, _, err = await node.hactl("discard", "pg")
    assert code == 6 and "nothing is set aside" in err
    assert node.copy.asked == [("discard", {})] * 2


# ---- where it is done ---------------------------------------------------------------------------------------------------------------


async def test_a_verify_goes_to_the_primary(tmp_path: Path) -> None:
    there = FakePeer({"schema": "hactl.work/1", "node": "node2", "module": "pg", "work": None})
    routes = make_routes(there, tmp_path, State.SECOND)
    async with trio.open_nursery() as nursery:
        await nursery.start(ApiServer(tmp_path / "sock", routes.route).run)
        await trio.to_thread.run_sync(ApiClient(tmp_path / "sock", 10.0).command, "pg", "verify", {})
        nursery.cancel_scope.cancel()
    [(method, parameters)] = there.asked
    assert method == "begin" and parameters["verb"] == "verify" and parameters["who"] == "root on node1"


async def test_a_peer_begins_work_here(node: Node) -> None:
    node.copy.answers = {"verify": [comparing()], "verification": [comparing()]}
    calls = PeerCalls(node.routes.here, node.routes.here.sides[0])
    begun = await calls.answer("begin", {"module": "pg", "verb": "verify", "who": "ann (operator) on node2", "role": "operator"})
    assert check(begun) == "hactl.work/1" and begun["work"]["who"] == "ann (operator) on node2"
    assert check(await calls.answer("work", {"module": "pg", "role": "viewer"})) == "hactl.work/1"


async def test_a_module_that_mirrors_nothing(node: Node) -> None:
    node.routes.here.works = Works({})
    code, _, err = await node.hactl("data")
    assert code == 2 and "mirrors nothing on this node" in err


# ---- every answer, and what is printed of it, has the shape of its schema --------------------------------------------------------------

IMAGINED = (*(what for what in QUESTIONS if what != "resource-down"), "prim&options=force", "start", "pause")
ANSWERS = [
    ("GET", "/v1", "hactl.index/1"),
    ("GET", "/v1/status", "hactl.status/1"),
    ("GET", "/v1/events?after=0", "hactl.events/1"),
    ("GET", "/v1/modules/pg/why", "hactl.why/1"),
    ("GET", "/v1/modules/pg/logs", "hactl.log/1"),
    ("GET", "/v1/modules/pg/data", "hactl.data/1"),
    ("GET", "/v1/modules/pg/work", "hactl.work/1"),
    *(("GET", f"/v1/modules/pg/simulate?what={what}", "hactl.simulate/1") for what in QUESTIONS if what != "resource-down"),
    *(("GET", f"/v1/modules/pg/simulate?what={what}", "hactl.simulate/1") for what in ("prim&options=force", "start", "pause")),
    *(("POST", f"/v1/modules/pg/{verb}", "hactl.answer/1") for verb in ("pause", "resume", "checkers-off", "boot-on", "note", "restart")),
]


@pytest.mark.parametrize(("method", "path", "schema"), ANSWERS, ids=[path for _, path, _ in ANSWERS])
async def test_every_answer_is_what_its_schema_says(node: Node, method: str, path: str, schema: str) -> None:
    client = ApiClient(node.socket, 10.0)
    ask: Callable[[], Any] = lambda: client._call(method, path, {}, {} if method == "POST" else None)  # noqa: E731
    assert check(await trio.to_thread.run_sync(ask)) == schema


async def test_a_schema_can_be_asked_for(node: Node) -> None:
    client = ApiClient(node.socket, 10.0)
    index = await trio.to_thread.run_sync(lambda: client._call("GET", "/v1", {}))
    assert index["you"] == {"name": "root", "role": "admin"}
    assert {"method": "GET", "path": "/v1/status", "role": "viewer"} in index["routes"]
    for name in index["schemas"]:
        found = await trio.to_thread.run_sync(lambda name=name: client._call("GET", f"/v1/schemas/{name.replace('/', '-')}", {}))
        assert found["title"] == name


PRINTED = [
    (("status",), "hactl.status/1"), (("events",), "hactl.events/1"), (("history",), "hactl.history/1"), (("logs",), "hactl.log/1"),
    (("logs", "-H", "all"), "hactl.logs/1"), (("why",), "hactl.why/1"), (("simulate", "isolated"), "hactl.simulate/1"),
    (("stop", "--dry-run"), "hactl.simulate/1"), (("pause",), "hactl.answer/1"), (("restart",), "hactl.answer/1"),
    (("data",), "hactl.data/1"), (("explain", "WAIT"), "hactl.explanation/1"), (("why", "-H", "all"), "hactl.nodes/1"),
    ((), "hactl.status/1"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "schema"), PRINTED, ids=[" ".join(words) for words, _ in PRINTED])
async def test_everything_that_is_printed_as_json_is_what_its_schema_says(node: Node, words: tuple[str, ...], schema: str) -> None:
    peer = node.routes.here.sides[0].client
    peer.answer = await node.routes.here.look(words[0], {"module": "pg"}) if "-H" in words else {"code": 0, "message": "done"}
    code, out, _ = await node.hactl(*words, "--json")
    assert code == 0 and check(json.loads(out)) == schema
    code, out, _ = await node.hactl(*words, "-o", "jsonl")
    assert code == 0 and all(check(json.loads(line)) for line in out.splitlines() if "schema" in json.loads(line))


def test_progress_in_words() -> None:
    now = comparing(bytes_done=50 << 20, total_bytes=100 << 20, files_done=5, total_files=10)
    progress = progress_of(now, 10.0)
    assert words_of(progress) == "50 %, 50.0 MiB of 100.0 MiB, 5 of 10 files, 5.0 MiB/s, 10s left"
    assert words_of({}) == "begins"



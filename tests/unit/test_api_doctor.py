"""The doctor's desk: what hactld answers to a hactl, and to its peer, that asks for facts, the time or a snapshot."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator.api import doctor as desk
from orchestrator.api.doctor import Doctor
from orchestrator.api.routes import Routes
from orchestrator.api.server import ApiError, Request
from orchestrator.doctor import gather
from orchestrator.peer import PeerRefused, PeerUnreachable
from orchestrator.snapshot import part
from rfs.errors import SaidNo
from tests.unit.test_api_routes import ANN, FakePeer, answer_peer, make_routes


def with_desk(tmp_path: Path, peer: FakePeer | None = None) -> Routes:
    routes = make_routes(peer or FakePeer(PeerUnreachable("gone")), tmp_path)
    events = [{"kind": "command", "text": "swap: pg moves", "wall_s": time.time() - 100, "module": "pg"}]
    routes.here.doctor = Doctor("node1", tmp_path / "etc", tmp_path, False, routes.here.status, lambda: events)
    return routes


async def question(routes: Routes, **query: str) -> dict[str, Any]:
    return await routes.route(Request("GET", ("v1", "doctor"), query, {}, ANN))


async def test_facts_out_of_a_child(tmp_path: Path) -> None:
    facts = await question(with_desk(tmp_path))
    assert (facts["schema"], facts["node"]) == (gather.SCHEMA, "node1")
    assert facts["configuration"]["complaints"], "there is no cluster.toml, and that is a fact"
    assert facts["status"]["verdict"] and "modules" not in facts["status"], "what judgements read, no more"
    assert 99 < facts["history"]["last_move_age_s"] < 200


async def test_the_time_at_once(tmp_path: Path) -> None:
    routes = with_desk(tmp_path)
    assert abs((await question(routes, what="clock"))["wall_s"] - time.time()) < 5
    assert abs((await answer_peer(routes, "doctor", {"what": "clock"}))["wall_s"] - time.time()) < 5


async def test_the_peer_is_asked_over_the_call_channel(tmp_path: Path) -> None:
    peer = FakePeer({"node": "node2", "wall_s": 1.0})
    assert (await question(with_desk(tmp_path, peer), what="clock", node="node2"))["node"] == "node2"
    assert peer.asked == [("doctor", {"what": "clock", "token": "", "offset": "", "role": "operator"})]


async def test_what_there_is_not(tmp_path: Path) -> None:
    routes = with_desk(tmp_path)
    for query in ({"what": "everything"}, {"what": "snapshot", "token": "x"}, {"what": "snapshot", "token": "x", "offset": "-1"}):
        with pytest.raises(ApiError):
            await question(routes, **query)
    with pytest.raises(PeerRefused):
        await answer_peer(routes, "doctor", {"what": ["facts"]})


async def test_a_child_that_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*words: object, **more: object) -> dict[str, Any]:
        raise SaidNo("the doctor found nothing", 7)

    monkeypatch.setattr(gather, "gather", nothing)
    with pytest.raises(ApiError, match="found nothing") as caught:
        await question(with_desk(tmp_path))
    assert caught.value.code == 7


def collecting(monkeypatch: pytest.MonkeyPatch, collect: Callable[[], bytes]) -> None:
    monkeypatch.setattr(part, "collect", lambda *words, **more: collect())


async def test_a_snapshot_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 4000
    go_on = threading.Event()
    collecting(monkeypatch, lambda: data if go_on.wait(10) else b"")
    monkeypatch.setattr(desk, "PATIENCE_S", 0.01)
    routes = with_desk(tmp_path)
    token = (await question(routes, what="snapshot"))["token"]
    again = await answer_peer(routes, "doctor", {"what": "snapshot", "role": "operator"})
    assert again["token"] == token, "who asks meanwhile gets the same"
    assert await question(routes, what="snapshot", token=token, offset="0") == {"pending": True}
    go_on.set()
    found = bytearray()
    with trio.fail_after(10):
        while len(found) < len(data):
            answer = await question(routes, what="snapshot", token=token, offset=str(len(found)))
            piece = base64.b64decode(answer.get("data", ""))
            assert len(piece) <= desk.PIECE_BYTES
            found += piece
    assert found == data
    with pytest.raises(ApiError):
        await question(routes, what="snapshot", token=token, offset="0")  # fetched, and forgotten


async def test_a_collection_that_fails_is_told_and_the_next_one_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> bytes:
        raise SaidNo("nothing in time")

    collecting(monkeypatch, fails)
    routes = with_desk(tmp_path)
    token = (await question(routes, what="snapshot"))["token"]
    with pytest.raises(ApiError, match="nothing in time"):
        await question(routes, what="snapshot", token=token, offset="0")
    assert (await question(routes, what="snapshot"))["token"] != token

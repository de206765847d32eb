"""`verify` on fake engines: whom it is asked of, how it ends, and that a repair is a session that compares everything."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from rfs.engine import Difference, Verification
from rfs.errors import SaidNo
from rfs.show import printable
from rfs.verify_command import _progress_line
from tests.unit.fake_engine import FakeEngine
from tests.unit.pair import Node, make_pair
from tests.unit.test_session import free_ports

Nodes = tuple[Node, Node]


@pytest.fixture
async def nodes(nursery: trio.Nursery, tmp_path: Path, no_relay: None) -> AsyncIterator[Nodes]:
    a, b = make_pair(nursery, tmp_path, free_ports())
    await a.start()
    await b.start()
    await a.until(link="paired", role="primary")
    await b.until(link="paired", role="secondary")
    yield a, b
    nursery.cancel_scope.cancel()


def found(node: Node, monkeypatch: pytest.MonkeyPatch, *differences: Difference, now: Verification | None = None) -> list[int]:
    """What the engine is to find; how often it was asked."""
    starts: list[int] = []

    async def start(self: FakeEngine) -> None:
        starts.append(1)

    total = len(differences)
    monkeypatch.setattr(FakeEngine, "verify_start", start)
    monkeypatch.setattr(FakeEngine, "verification", lambda self: now or Verification(differences=total, listed=total, bytes_done=5))
    monkeypatch.setattr(FakeEngine, "difference", lambda self, index: differences[index] if index < total else None)
    return starts


async def method(node: Node, name: str, **params: object) -> dict[str, object]:
    return dict(await node.commands.table()[name](params))


async def test_it_is_asked_of_the_primary_of_a_pair(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = nodes
    starts = found(a, monkeypatch)
    assert (await method(a, "verify"))["differences"] == 0 and starts == [1]
    with pytest.raises(SaidNo, match="run it on a"):
        await method(b, "verify")
    await b.kill()
    await a.until(link="frozen")
    with pytest.raises(SaidNo, match="no second copy up to date"):
        await method(a, "verify")


async def test_one_that_runs_is_joined(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    a, _ = nodes
    found(a, monkeypatch, now=Verification(running=1, bytes_done=7, total_bytes=3))

    async def busy(self: FakeEngine) -> None:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(FakeEngine, "verify_start", busy)
    joined = await method(a, "verify")
    assert joined["running"] is True and joined["total_bytes"] == 7
    found(a, monkeypatch, now=Verification(result=-errno.ENOTCONN))
    assert (await method(a, "verification"))["cut_off"] == "Transport endpoint is not connected"


async def test_what_is_found_is_told_in_bounded_pieces(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    a, _ = nodes
    found(a, monkeypatch, *(Difference(0, ("content",), 9, i, 1, b"\xff" * 4000) for i in range(300)))
    shown: list[object] = []
    while len(shown) < 300:
        piece = (await method(a, "verification", after=len(shown)))["shown"]
        assert isinstance(piece, list) and 0 < len(piece) < 30
        shown += piece
    assert [one["offset"] for one in shown] == list(range(300))  # type: ignore[index]
    assert str(shown[0]["path"]).endswith("data/" + "\\xff" * 4000)  # type: ignore[index]


async def test_a_repair_is_a_session_that_compares_everything(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = nodes
    found(a, monkeypatch)
    before = a.replica.session
    a.engine.calls.clear()
    b.engine.calls.clear()
    with trio.fail_after(10):
        await method(a, "repair")
    assert a.replica.session is not before and a.status["link"] == "paired"
    assert "source" in a.engine.calls and "resume" not in a.engine.calls and "target" in b.engine.calls
    with pytest.raises(SaidNo, match="run it on a"):
        await method(b, "repair")


def test_the_line_for_who_watches() -> None:
    progress = {"bytes_done": 50 << 20, "total_bytes": 100 << 20, "files_done": 1, "total_files": 2, "differences": 0}
    assert _progress_line(progress, 10.0) == " 50.0 %, 1 of 2 files, 50 of 100 MiB, 0 different, about 10 s left"
    assert _progress_line(dict.fromkeys(progress, 0), 10.0).startswith("  0.0 %")


def test_names_are_no_commands_to_a_terminal() -> None:
    assert printable("ä b/\n\x1b[2J") == "ä b/\\n\\x1b[2J"

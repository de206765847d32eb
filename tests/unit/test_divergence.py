"""Two replicas that have diverged, on fake engines: what is asked of which, in which order it becomes durable, and what cuts it off."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from rfs import comparison, divergence, kept_differences
from rfs.errors import SaidNo
from tests.unit.pair import Node, make_pair
from tests.unit.test_session import free_ports

Nodes = tuple[Node, Node]


@pytest.fixture
async def diverged(nursery: trio.Nursery, tmp_path: Path, no_relay: None) -> AsyncIterator[Nodes]:
    """Two primaries with a file each."""
    a, b = make_pair(nursery, tmp_path, free_ports())
    for node in (a, b):
        node.layers.empty = False
        (node.path / "data").mkdir(parents=True)
        (node.path / "data" / "file").write_text(node.settings.node)
        node.layers.trees = [os.open(node.path / "data", os.O_RDONLY)]
    await a.start()
    await b.restart(wish_primary=True)
    for node in (a, b):
        await node.until(link="diverged", mode="alone")
    yield a, b
    nursery.cancel_scope.cancel()


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


async def test_a_comparison_disturbs_nobody(diverged: Nodes) -> None:
    a, b = diverged
    found = await b.commands.diff({})
    assert found["different"] == found["differences"] == len(_lines(found["file"]))
    assert found["counts"]["content"] == 1 and found["differing_bytes"] == 1
    assert a.status["mode"] == b.status["mode"] == "alone" and not (b.path / "kept").exists()


@pytest.mark.parametrize(("keep", "on"), [("here", 0), ("peer", 1)])
async def test_the_loser_saves_first_and_then_yields(diverged: Nodes, monkeypatch: pytest.MonkeyPatch, keep: str, on: int) -> None:
    a, b = diverged
    seen: list[tuple[str, str, bool]] = []
    save = kept_differences.save

    def watched(*arguments: object) -> kept_differences.Kept:
        seen.append((b.replica.record.role.name, b.replica.mode.name, b.replica.record.used))
        return save(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(kept_differences, "save", watched)
    done = await diverged[on].commands.resolve({"keep": keep})
    assert done["yields"] == "b" and (Path(done["kept"]) / "0" / "file").read_text() == "b"
    assert seen == [("SECONDARY", "IDLE", True)]
    await a.until(link="paired", role="primary")
    await b.until(link="paired", role="secondary", data="UPTODATE")
    with pytest.raises(SaidNo, match="have not diverged"):
        await a.commands.diff({})


async def test_opposite_words_are_refused(diverged: Nodes) -> None:
    a, b = diverged
    refused: list[str] = []

    async def ask(node: Node) -> None:
        try:
            await node.commands.resolve({"keep": "here"})
        except SaidNo as refusal:
            refused.append(refusal.sentence)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, a)
        nursery.start_soon(ask, b)
    assert len(refused) == 2 and any("both nodes were told" in sentence for sentence in refused)
    assert a.status["mode"] == b.status["mode"] == "alone"


async def test_one_at_a_time_and_only_in_a_divergence(diverged: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = diverged
    go_on = trio.Event()
    compare = comparison.compare

    async def slow(*arguments: object) -> comparison.Summary:
        await go_on.wait()
        return await compare(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(comparison, "compare", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a.commands.diff, {})
        with trio.fail_after(5):
            while a.replica.asked is None:
                await trio.sleep(0.01)
        with pytest.raises(SaidNo, match="already"):
            await a.commands.diff({})
        go_on.set()
    with pytest.raises(ValueError, match="neither here nor peer"):
        await a.commands.resolve({"keep": "both"})


async def test_a_lost_peer_is_told(diverged: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = diverged

    async def never(*arguments: object) -> comparison.Summary:
        await b.kill()
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(comparison, "compare", never)
    with pytest.raises(SaidNo, match="cut off"):
        await a.commands.diff({})
    assert a.status["mode"] == "alone"


async def test_a_peer_that_does_not_come(diverged: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = diverged
    monkeypatch.setattr(divergence, "MEET_TIMEOUT_S", 0.2)
    await b.kill()
    with pytest.raises(SaidNo, match="was not met"):
        await a.commands.diff({})


async def test_nothing_is_given_up_that_could_not_be_saved(diverged: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = diverged

    def full(*arguments: object) -> kept_differences.Kept:
        raise SaidNo("it does not fit")

    monkeypatch.setattr(kept_differences, "save", full)
    with pytest.raises(SaidNo, match="b does not yield: it does not fit"):
        await a.commands.resolve({"keep": "here"})
    assert b.replica.record.used and b.replica.record.generation
    await b.until(link="diverged", role="secondary")


async def test_what_a_resync_would_cost(diverged: Nodes) -> None:
    a, _ = diverged
    assert await a.commands.estimate({}) == {"kind": "full", "places": 2, "files": 1, "compare_bytes": 1}
    a.engine.marked = 1
    assert await a.commands.estimate({}) == {"kind": "marks", "places": 1, "files": None, "compare_bytes": 0}

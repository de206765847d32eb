"""Checkpoints between two replicas on fake engines: what is written on both nodes, and what the next session compares."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from rfs import checkpoint
from tests.unit.pair import make_pair
from tests.unit.test_session import Nodes, free_ports, paired


@pytest.fixture
async def nodes(nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Nodes]:
    async def no_relay(engine: object) -> None:  # pyfuse3 needs the real engine
        await trio.sleep_forever()

    monkeypatch.setattr("rfs.relay.run", no_relay)
    monkeypatch.setattr(checkpoint, "LOOK_S", 0.01)
    yield make_pair(nursery, tmp_path, free_ports())
    nursery.cancel_scope.cancel()


async def until(condition: Callable[[], Any], what: str) -> None:
    with trio.move_on_after(10):
        while not condition():
            await trio.sleep(0.01)
        return
    raise AssertionError(f"not within 10 s: {what}")


async def test_a_checkpoint_follows_a_resync_at_once(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    await until(lambda: "checkpoint" in a.engine.calls, "the first checkpoint")
    await until(lambda: b.replica.record.base == b.replica.record.generation, "the secondary hears of it")
    one, two = a.replica.record, b.replica.record
    assert one.base == one.generation == two.generation
    assert 0 < one.peer_confirmed_number <= two.number
    assert (a.engine.marked, b.engine.marked) == (0, 0)


async def test_where_nothing_is_marked_nothing_is_compared(nodes: Nodes) -> None:
    a, b = await paired(nodes)
    await until(lambda: b.replica.record.base == b.replica.record.generation, "the checkpoint")
    assert (a.status["last_scope"], b.status["last_scope"]) == ("everything", "everything")
    a.replica.resumable = 0  # else the window would be shipped again
    await a.engine.cut()
    await until(lambda: a.status["last_scope"] == b.status["last_scope"] == "nothing", "the direct session")
    await a.until(link="paired")
    await b.until(link="paired", data="UPTODATE")
    assert a.replica.record.peer_has and b.replica.record.peer_has


async def test_a_failed_sync_drops_nothing(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = await paired(nodes)
    await until(lambda: b.replica.record.base == b.replica.record.generation, "the first checkpoint")
    tried = 0

    async def failing() -> None:
        nonlocal tried
        tried += 1
        raise OSError(5, "the disk lies")

    monkeypatch.setattr(a.engine, "sync", failing)
    monkeypatch.setattr(checkpoint, "MOST_PLACES", 1)
    before = a.engine.calls.count("checkpoint")
    a.engine.marked = 1
    await until(lambda: tried >= 2, "it is tried, and tried again")
    assert a.engine.calls.count("checkpoint") == before and a.engine.marked == 1

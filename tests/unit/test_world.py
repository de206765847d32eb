"""What the effects do beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from orchestrator.core import actions as act
from orchestrator.effects.notify import History
from orchestrator.effects.rfs import Rfs
from orchestrator.effects.vip import Vip
from orchestrator.effects.world import World
from orchestrator.paths import Paths
from tests.unit.test_api_routes import CLUSTER, CONFIG, FakePeer


async def test_the_addresses_are_looked_for_while_the_data_side_is_promoted(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = trio.Event()

    async def look_ahead(self: Vip) -> None:
        looked.set()

    async def call(self: Rfs, method: str, parameters: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        assert method == "promote"
        with trio.fail_after(1):
            await looked.wait()
        return {}

    monkeypatch.setattr(Vip, "look_ahead", look_ahead)
    monkeypatch.setattr(Rfs, "call", call)
    async with trio.open_nursery() as nursery:
        world = World(CLUSTER, {"pg": CONFIG}, "node1", Paths(tmp_path), "boot", FakePeer({}), History(None), nursery, None)
        await world.perform(act.PromoteRfs("pg", 1, granted=True, force=False, reason="said so"))
        nursery.cancel_scope.cancel()

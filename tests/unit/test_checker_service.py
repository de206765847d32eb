"""The checker of a unit, over a real D-Bus daemon with a systemd that does what the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from orchestrator.checkers.checker import Finding
from orchestrator.checkers.service import ServiceChecker
from orchestrator.effects import systemd
from tests.unit.scripted_systemd import HAVE_DBUS, PrivateBus, ScriptedSystemd, Unit, on_bus

pytestmark = pytest.mark.skipif(not HAVE_DBUS, reason="needs dbus-daemon (Debian: dbus-daemon)")


@asynccontextmanager
async def bench(tmp_path: Path, unit: Unit) -> AsyncIterator[tuple[PrivateBus, ScriptedSystemd, ServiceChecker]]:
    bus = PrivateBus(tmp_path)
    bus.start()
    fake = ScriptedSystemd(bus.address, (unit,))
    try:
        async with on_bus(bus, fake):
            yield bus, fake, ServiceChecker(unit.name.removesuffix(".service"), bus.address)
    finally:
        bus.stop()


async def start(fake: ScriptedSystemd, unit: Unit, bus: PrivateBus) -> None:
    async with systemd.connect(bus.address) as manager:
        await manager.finished(await manager.queue("StartUnit", unit.name))


async def look(checker: ServiceChecker) -> Finding:
    with trio.fail_after(30):
        return await checker.look()


async def test_a_unit_that_dies_is_seen_at_once(tmp_path: Path) -> None:
    unit = Unit("app.service")
    async with bench(tmp_path, unit) as (bus, fake, checker):
        assert await look(checker) == Finding(False, "unit app.service is inactive (dead); see 'systemctl status app.service'")
        await start(fake, unit, bus)
        assert await look(checker) == Finding(True, "app.service is active (running)")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(checker.changed)
            await fake.become(unit, "reloading", "reload")  # still up
            await fake.become(unit, "active", "running")
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert nursery.child_tasks
            with trio.fail_after(30):
                await fake.die(unit)
                while nursery.child_tasks:
                    await trio.sleep(0.01)
        assert await look(checker) == Finding(False, "unit app.service is failed (failed); see 'systemctl status app.service'")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(checker.changed)
            await start(fake, unit, bus)  # it comes back: seen at once as well
        assert (await look(checker)).up


async def test_a_unit_on_its_way_is_waited_for(tmp_path: Path) -> None:
    unit, again, found = Unit("app.service"), trio.Event(), list[Finding]()

    async with bench(tmp_path, unit) as (bus, fake, checker):
        await start(fake, unit, bus)
        await fake.die(unit, restart_after=again)

        async def look_once() -> None:
            found.append(await look(checker))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look_once)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not found
            again.set()
        assert found == [Finding(True, "app.service is active (running)")]


async def test_a_bus_that_is_gone_restarts_no_service(tmp_path: Path) -> None:
    unit = Unit("app.service")
    async with bench(tmp_path, unit) as (bus, fake, checker):
        await start(fake, unit, bus)
        assert (await look(checker)).up
        bus.stop()
        finding = await look(checker)
        assert finding.up and finding.text.startswith(f"the main process of app.service, {unit.alive()[0]}, runs; ")
        fake.close()
        finding = await look(checker)
        assert not finding.up and finding.text.startswith("app.service cannot be asked for: ")


@pytest.mark.parametrize(
    ("load", "said"),
    [
        ("not-found", "unit app.service does not exist on this node"),
        ("masked", "unit app.service is masked; 'systemctl unmask app.service' lets it start"),
    ],
)
async def test_a_unit_that_cannot_run(tmp_path: Path, load: str, said: str) -> None:
    async with bench(tmp_path, Unit("app.service", load=load)) as (_, _, checker):
        assert await look(checker) == Finding(False, said)


async def test_a_machine_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "systemd_runs", lambda: False)
    monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS", raising=False)
    assert await look(ServiceChecker("app")) == Finding(False, "systemd does not run on this node")

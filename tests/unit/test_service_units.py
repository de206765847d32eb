"""Units of systemd as services of a module, over a real D-Bus daemon with a systemd that does what the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from orchestrator import shutdown
from orchestrator.config import ModuleConfig, ReplicatedConfig, ServiceConfig
from orchestrator.effects import EffectFailed, ending, service_unit
from orchestrator.effects.services import Services
from orchestrator.effects.systemd import Standing, UnitState, full_name
from orchestrator.paths import Paths
from tests.unit.scripted_systemd import HAVE_DBUS, PrivateBus, ScriptedSystemd, Unit, on_bus

pytestmark = pytest.mark.skipif(not HAVE_DBUS, reason="needs dbus-daemon (Debian: dbus-daemon)")


class Bench:
    """A module of units, its systemd, and what was reported."""

    def __init__(self, tmp_path: Path, units: tuple[Unit, ...], services: tuple[ServiceConfig, ...]) -> None:
        self.paths = Paths(tmp_path)
        self.paths.make()
        self.bus = PrivateBus(tmp_path)
        self.bus.start()
        self.systemd = ScriptedSystemd(self.bus.address, units)
        self.deaths: list[tuple[str, str]] = []
        self.log: list[str] = []
        self.abandoned: list[str] = []
        self.config = ModuleConfig(
            name="pg", mode="mirror", nodes=("node1", "node2"), replication_network="repl", default_primary="alone", boot="auto",
            max_restarts=3, max_restarts_period_s=86400.0, replicated=(ReplicatedConfig(str(tmp_path / "data")),), vips=(),
            services=services or tuple(ServiceConfig(name=unit.name.removesuffix(".service"), unit=unit.name) for unit in units),
            port=5600, scripts_dir=tmp_path / "scripts",
        )  # fmt: skip
        self.services = self.fresh()

    def fresh(self) -> Services:
        """As a restarted hactld would see them."""

        async def abandon(reason: str) -> None:
            self.abandoned.append(reason)

        return Services(
            self.config, "node1", self.paths, lambda name, why: self.deaths.append((name, why)),
            lambda kind, text: self.log.append(f"{kind}: {text}"), abandon=abandon, bus=self.bus.address,
        )  # fmt: skip

    async def started_and_watched(self, nursery: trio.Nursery) -> None:
        """One unit; whoever watches it knows its main process."""
        await self.services.start(nursery, "ALONE")
        await until(lambda: any(call.endswith("Service MainPID") for call in self.systemd.calls))

    def said(self, words: str) -> bool:
        return any(words in line for line in self.log)


@asynccontextmanager
async def bench(tmp_path: Path, *units: Unit, services: tuple[ServiceConfig, ...] = ()) -> AsyncIterator[tuple[Bench, trio.Nursery]]:
    made = Bench(tmp_path, units, services)
    try:
        async with on_bus(made.bus, made.systemd) as nursery:
            yield made, nursery
    finally:
        made.bus.stop()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.01)


def one(unit: str, **options: float) -> tuple[ServiceConfig, ...]:
    return (ServiceConfig(name="app", unit=unit, **options),)  # type: ignore[arg-type]


# ---- starting ---------------------------------------------------------------------------------------------------------


async def test_started_in_order_and_stopped_in_reverse(tmp_path: Path) -> None:
    units = Unit("disk.service"), Unit("db.service"), Unit("web.service")
    async with bench(tmp_path, *units) as (made, nursery):
        await made.services.start(nursery, "ALONE")
        assert await made.services.running()
        assert all(unit.alive() for unit in units)
        await made.services.stop(kill=False, state="ALONE")
        jobs = [call for call in made.systemd.calls if call.startswith(("StartUnit", "StopUnit"))]
        started, stopped = ("disk", "db", "web"), ("web", "db", "disk")
        assert jobs == [f"StartUnit {name}.service replace" for name in started] + [f"StopUnit {name}.service replace" for name in stopped]
        assert made.deaths == [] and not any(unit.alive() for unit in units)
        assert not await made.services.running()


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        (Unit("app.service", load="masked"), "masked on this node; 'systemctl unmask app.service'"),
        (Unit("app.service", load="bad-setting"), "Unit has a bad setting"),
        (Unit("app.service", start="fail"), "did not start: exit-code 3; see 'journalctl -u app.service'"),
        (Unit("app.service", start="refuse"), "may be requested by dependency only"),
    ],
    ids=lambda value: getattr(value, "load", "") + getattr(value, "start", ""),
)
async def test_a_unit_that_cannot_start_says_why(tmp_path: Path, unit: Unit, words: str) -> None:
    async with bench(tmp_path, unit) as (made, nursery):
        with pytest.raises(EffectFailed) as failure:
            await made.services.start(nursery, "ALONE")
        assert words in str(failure.value)


async def test_a_unit_that_does_not_exist(tmp_path: Path) -> None:
    async with bench(tmp_path, services=one("app")) as (made, nursery):
        await made.services.prepare()
        assert made.said("unit app.service does not exist on this node: install it"), "the history says so long before a takeover"
        with pytest.raises(EffectFailed, match="does not exist") as failure:
            await made.services.start(nursery, "ALONE")
        assert failure.value.refused
        assert not await made.services.running()


async def test_a_start_that_hangs_is_cancelled_and_killed(tmp_path: Path) -> None:
    unit = Unit("app.service", start="hang")
    async with bench(tmp_path, unit, services=one("app.service", start_timeout_s=0.3)) as (made, nursery):
        with pytest.raises(EffectFailed, match="was not up after 0 s"):
            await made.services.start(nursery, "ALONE")
        assert "CancelJob 1" in made.systemd.calls
        await made.services.stop(kill=True, state="ALONE")
        assert unit.active == "inactive"


async def test_ready_is_asked_for_units_too(tmp_path: Path) -> None:
    services = (ServiceConfig(name="app", unit="app", ready=("/usr/bin/test", "-e", str(tmp_path / "flag")), start_timeout_s=5.0),)
    async with bench(tmp_path, Unit("app.service"), services=services) as (made, nursery):
        started = trio.Event()

        async def start() -> None:
            await made.services.start(nursery, "ALONE")
            started.set()

        nursery.start_soon(start)
        await until(lambda: "StartUnit app.service replace" in made.systemd.calls)
        assert not started.is_set()
        (tmp_path / "flag").touch()
        with trio.fail_after(5):
            await started.wait()
        await made.services.stop(kill=False, state="ALONE")


async def test_systemd_tries_again_while_the_start_may_last(tmp_path: Path) -> None:
    unit = Unit("app.service", start="restart")
    async with bench(tmp_path, unit) as (made, nursery):
        await made.services.start(nursery, "ALONE")
        assert unit.active == "active"
        await made.services.stop(kill=False, state="ALONE")


# ---- the boot ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "runtime"), [("enabled", "False"), ("enabled-runtime", "True")])
async def test_boot_start_is_switched_off_and_said(tmp_path: Path, state: str, runtime: str) -> None:
    unit = Unit("app.service", file_state=state)
    async with bench(tmp_path, unit) as (made, nursery):
        await made.services.prepare()
        assert f"DisableUnitFiles ['app.service'] {runtime}" in made.systemd.calls
        assert made.said("app.service was started at boot: disabled")
        await made.services.start(nursery, "ALONE")
        await made.services.stop(kill=False, state="ALONE")
        assert len([call for call in made.systemd.calls if "DisableUnitFiles" in call]) == 1
        assert not any("EnableUnitFiles" in call for call in made.systemd.calls)


@pytest.mark.parametrize(
    "unit", [Unit("app.service", file_state="generated"), Unit("app.service", file_state="enabled", stays_enabled=True)]
)
async def test_a_boot_start_that_we_cannot_switch_off_is_said(tmp_path: Path, unit: Unit) -> None:
    async with bench(tmp_path, unit) as (made, nursery):
        await made.services.start(nursery, "ALONE")
        assert made.said("app.service is still started at boot")
        await made.services.stop(kill=False, state="ALONE")


# ---- dying ------------------------------------------------------------------------------------------------------------


async def test_a_death_is_reported_at_once_with_its_cause(tmp_path: Path) -> None:
    unit = Unit("app.service")
    async with bench(tmp_path, unit) as (made, nursery):
        await made.started_and_watched(nursery)
        began = trio.current_time()
        await made.systemd.die(unit)
        await until(lambda: bool(made.deaths))
        assert trio.current_time() - began < 1.0
        assert made.deaths == [("app", "unit app.service is failed (failed): signal 3")]
        await made.services.stop(kill=True, state="ALONE")


async def test_a_unit_that_systemd_restarts_is_not_dead(tmp_path: Path) -> None:
    unit = Unit("app.service")
    async with bench(tmp_path, unit) as (made, nursery):
        await made.started_and_watched(nursery)
        again = trio.Event()
        await made.systemd.die(unit, restart_after=again)
        again.set()
        await until(lambda: made.said("was restarted by systemd"))
        assert made.deaths == []
        await made.services.stop(kill=False, state="ALONE")


async def test_a_restart_that_does_not_come_is_a_death(tmp_path: Path) -> None:
    unit = Unit("app.service")
    async with bench(tmp_path, unit, services=one("app.service", start_timeout_s=0.4)) as (made, nursery):
        await made.started_and_watched(nursery)
        await made.systemd.die(unit, restart_after=trio.Event())
        await until(lambda: bool(made.deaths))
        assert made.deaths[0][1] == "unit app.service is activating (auto-restart) for 0 s"
        await made.services.stop(kill=True, state="ALONE")


async def test_a_unit_that_is_restarted_all_the_time_is_dead(tmp_path: Path) -> None:
    unit = Unit("app.service")
    async with bench(tmp_path, unit) as (made, nursery):
        await made.started_and_watched(nursery)
        for count in range(1, service_unit.RESTARTS_MAX + 2):
            assert made.deaths == []
            at_once = trio.Event()
            at_once.set()
            await made.systemd.die(unit, restart_after=at_once)
            await until(lambda count=count: len([line for line in made.log if "restarted by systemd" in line]) == count)  # type: ignore[misc]
        await until(lambda: bool(made.deaths))
        assert "restarted by systemd 4 times" in made.deaths[0][1]
        await made.services.stop(kill=True, state="ALONE")


async def test_reloading_is_running(tmp_path: Path) -> None:
    unit = Unit("app.service")
    async with bench(tmp_path, unit) as (made, nursery):
        await made.started_and_watched(nursery)
        for active, sub in (("reloading", "reload"), ("active", "running"), ("failed", "failed")):
            assert made.deaths == []
            await made.systemd.become(unit, active, sub)
        await until(lambda: bool(made.deaths))
        await made.services.stop(kill=True, state="ALONE")


# ---- a bus that goes away ---------------------------------------------------------------------------------------------


async def test_a_bus_that_dies_and_returns_is_no_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_unit, "RECONNECT_EVERY_S", 0.02)
    unit = Unit("app.service")
    async with bench(tmp_path, unit) as (made, nursery):
        await made.started_and_watched(nursery)
        made.bus.stop()
        await until(lambda: made.said("is not watched"))
        made.bus.start()
        await nursery.start(made.systemd.serve)
        await until(lambda: made.said("is watched again"))
        assert made.deaths == []
        await made.systemd.die(unit)
        await until(lambda: bool(made.deaths))
        await made.services.stop(kill=True, state="ALONE")


async def test_who_died_while_the_bus_was_away_is_found_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_unit, "RECONNECT_EVERY_S", 0.02)
    unit = Unit("app.service")
    async with bench(tmp_path, unit) as (made, nursery):
        await made.started_and_watched(nursery)
        made.bus.stop()
        await until(lambda: made.said("is not watched"))
        made.systemd.close()
        unit.active, unit.sub = "failed", "failed"
        assert made.deaths == []
        made.bus.start()
        await nursery.start(made.systemd.serve)
        await until(lambda: bool(made.deaths))
        await made.services.stop(kill=True, state="ALONE")


async def test_a_dead_process_is_not_believed_alive_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_unit, "RECONNECT_EVERY_S", 0.02)
    monkeypatch.setattr(service_unit, "AWAY_PATIENCE_S", 0.3)
    async with bench(tmp_path, Unit("app.service")) as (made, nursery):
        await made.started_and_watched(nursery)
        made.bus.stop()
        await until(lambda: made.said("is not watched"))
        made.systemd.close()
        await until(lambda: bool(made.deaths))
        assert "main process of unit app.service is gone" in made.deaths[0][1]


async def test_a_systemd_that_comes_anew_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_unit, "RECONNECT_EVERY_S", 0.02)
    unit = Unit("app.service")
    async with bench(tmp_path, unit) as (made, nursery):
        await made.started_and_watched(nursery)
        assert made.systemd._connection is not None
        await made.systemd._connection.aclose()  # systemd reexecutes itself: its name leaves the bus and returns
        await until(lambda: made.said("is not watched"))
        await nursery.start(made.systemd.serve)
        await until(lambda: made.said("is watched again"))
        await made.systemd.die(unit)
        await until(lambda: bool(made.deaths))
        await made.services.stop(kill=True, state="ALONE")


async def test_no_bus_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_unit, "LOOK_DEADLINE_S", 0.2)
    async with bench(tmp_path, Unit("app.service"), services=one("app.service", start_timeout_s=0.2)) as (made, nursery):
        made.bus.stop()
        with pytest.raises(EffectFailed, match="cannot be reached"):
            await made.services.start(nursery, "ALONE")
        assert await made.services.running(), "whoever cannot be asked about may run"


# ---- adopting and stopping --------------------------------------------------------------------------------------------


async def test_a_restarted_hactld_adopts(tmp_path: Path) -> None:
    unit = Unit("app.service")
    async with bench(tmp_path, unit) as (made, nursery):
        await made.started_and_watched(nursery)
        for scope in made.services._watching.values():
            scope.cancel()
        again = made.fresh()
        assert await again.running()
        again.adopt(nursery)
        await made.systemd.die(unit)
        await until(lambda: bool(made.deaths))
        assert unit.runs == 1
        await again.stop(kill=True, state="ALONE")


async def test_a_stop_that_hangs_is_frozen_and_killed(tmp_path: Path) -> None:
    unit = Unit("app.service", stop="hang", command=("sh", "-c", 'trap "" TERM; while :; do sleep 0.1; done'))
    async with bench(tmp_path, unit, services=one("app.service", stop_timeout_s=0.3)) as (made, nursery):
        await made.services.start(nursery, "ALONE")
        await made.services.stop(kill=False, state="ALONE")
        assert not unit.alive() and unit.active == "failed"
        assert made.said("still deactivating (stop-sigterm) after 0 s") and made.said("freezing and killing 1 process")
        assert made.abandoned == [], "a mount is not given up for a process that SIGKILL ends"


async def test_killed_units_do_not_come_back(tmp_path: Path) -> None:
    unit = Unit("app.service", stop="hang")
    async with bench(tmp_path, unit) as (made, nursery):
        await made.services.start(nursery, "ALONE")
        await made.services.stop(kill=True, state="ALONE")
        stop, kill = made.systemd.calls.index("StopUnit app.service replace"), made.systemd.calls.index("KillUnit app.service all 9")
        assert stop < kill, "systemd would restart what it was not told to stop"
        assert not unit.alive()


async def test_the_bus_dies_in_the_middle_of_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_unit, "RECONNECT_EVERY_S", 0.02)
    unit = Unit("app.service", stop="hang")
    async with bench(tmp_path, unit, services=one("app.service", stop_timeout_s=1.0)) as (made, nursery):
        await made.services.start(nursery, "ALONE")
        stopped = trio.Event()

        async def stop() -> None:
            await made.services.stop(kill=False, state="ALONE")
            stopped.set()

        nursery.start_soon(stop)
        await until(lambda: "StopUnit app.service replace" in made.systemd.calls)
        made.bus.stop()
        unit.stop = "ok"
        made.bus.start()
        await nursery.start(made.systemd.serve)
        with trio.fail_after(10):
            await stopped.wait()
        assert not unit.alive()


# ---- the machine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "expected"), [("running", False), ("degraded", False), ("starting", False), ("stopping", True)])
async def test_does_the_machine_go_down(tmp_path: Path, state: str, expected: bool) -> None:
    async with bench(tmp_path) as (made, _):
        made.systemd.state = state
        assert await shutdown.machine_goes_down(made.bus.address) is expected


async def test_without_an_answer_only_hactld_ends(tmp_path: Path) -> None:
    async with bench(tmp_path) as (made, _):
        made.bus.stop()
        assert not await shutdown.machine_goes_down(made.bus.address)


# ---- words ------------------------------------------------------------------------------------------------------------


def test_what_states_mean() -> None:
    up, between, down = Standing.UP, Standing.BETWEEN, Standing.DOWN
    expected = {
        ("active", 0): up, ("reloading", 0): up, ("refreshing", 0): up, ("activating", 0): between, ("deactivating", 0): between,
        ("inactive", 0): down, ("failed", 0): down, ("maintenance", 0): down, ("inactive", 7): between, ("failed", 7): between,
        ("active", 7): up,
    }  # fmt: skip
    assert {key: UnitState("loaded", key[0], "", key[1]).standing for key in expected} == expected


def test_names() -> None:
    assert full_name("postgresql@15-main") == "postgresql@15-main.service"
    assert full_name("data.mount") == "data.mount"


def test_a_stop_has_a_bound() -> None:
    assert ending.LONGEST_S == 40.0, "docs/operator-guide.md says so"



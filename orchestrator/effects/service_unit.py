"""A service that is a unit of systemd: looked at before it is needed, started and stopped by jobs, watched by its signals.

The module decides where the unit runs, so systemd must not start it at boot: that is switched off, and the history says so. A job is
waited for under the service's own deadlines. A unit that systemd starts again by itself (`Restart=`) is not dead while it does so, for as
long as a start may take, and not if it does so all the time. When the bus goes away nothing is known, which is not a death: look again when
it is back. A unit that does not stop ends as every service does (`ending.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import trio

from orchestrator.config import ModuleConfig, ServiceConfig
from orchestrator.effects import EffectFailed, commands, ending, processes, systemd
from orchestrator.effects.ending import Log
from orchestrator.effects.processes import Process
from orchestrator.effects.systemd import Manager, Standing, SystemdAway, SystemdRefused, UnitState
from orchestrator.paths import Paths

LOOK_DEADLINE_S = 10.0
RECONNECT_EVERY_S = 0.5
AWAY_PATIENCE_S = 30.0  # how long a unit whose main process is dead is given the benefit of a bus that cannot be asked
RESTARTS_MAX = 3  # by systemd, within the time below: more is not a service that runs
RESTARTS_WITHIN_S = 60.0
READY_EVERY_S = 0.2

T = TypeVar("T")

RESULTS = {
    "timeout": "it was not up within systemd's own time (TimeoutStartSec)",
    "dependency": "a unit that it needs did not start: 'systemctl list-dependencies --all' shows which",
    "canceled": "somebody cancelled the start",
    "skipped": "systemd found nothing to start",
}


class UnitMembers:
    """What runs in the unit's cgroup, as systemd counts it."""

    def __init__(self, manager: Manager, unit: str) -> None:
        self._manager, self._unit = manager, unit
        self._known: set[Process] = set()

    async def alive(self) -> list[Process]:
        """Also who was seen once: a unit that systemd has given up may still have somebody."""
        self._known.update(await self._manager.processes_of(self._unit))
        self._known = {process for process in self._known if process.alive()}
        return sorted(self._known, key=lambda process: process.pid)

    async def freeze(self) -> bool:
        """systemd freezes only what is up, and this is on its way down: signals do it."""
        return False

    async def kill(self) -> bool:
        """By systemd, so that it knows why they died; the signals of our own reach who is in no cgroup of the unit any more."""
        try:
            await self._manager.call("KillUnit", "ssi", self._unit, "all", 9)
        except SystemdRefused:  # nobody is left in it
            pass
        return False


class UnitService:
    """One `unit = "…"` of a module."""

    def __init__(
        self, config: ServiceConfig, module: ModuleConfig, paths: Paths, bus: str, abandon: Callable[[str], Awaitable[None]], log: Log
    ) -> None:
        assert config.unit is not None
        self.config, self.name, self.log, self.bus = config, config.name, log, bus
        self.unit = systemd.full_name(config.unit)
        self._log_file = paths.module_log(module.name)
        self._abandon = abandon
        self._away = False
        self._main: Process | None = None
        self._restarts: list[float] = []
        self._between_since: float | None = None

    # ---- looking ------------------------------------------------------------------------------------------------------

    async def running(self) -> bool:
        """Whatever is not certainly down may be running."""
        if not systemd.can_be_asked(self.bus):
            return False
        try:
            state = await self._within(LOOK_DEADLINE_S, self._look, "was not told of")
        except EffectFailed as failure:
            self.log("unit", f"{failure}; it is taken for running until systemd says otherwise")
            return True
        return state.standing is not Standing.DOWN

    async def prepare(self) -> None:
        """Long before the unit is needed: does it exist, and does it leave starting to us? Only says so."""
        try:
            await self._within(LOOK_DEADLINE_S, self._claim, "could not be looked at")
        except EffectFailed as failure:
            self.log("unit", f"{failure}; the module cannot start it here")

    async def _look(self, manager: Manager) -> UnitState:
        return await manager.state(await manager.load(self.unit))

    async def _claim(self, manager: Manager) -> None:
        """It exists, and systemd does not start it at boot."""
        state = await self._look(manager)
        if state.load == "masked":
            raise EffectFailed(f"unit {self.unit} is masked on this node; 'systemctl unmask {self.unit}' lets it start", refused=True)
        if state.load == "not-found":
            todo = "install it, or give the service another name; 'systemctl daemon-reload' if it was put there just now"
            raise EffectFailed(f"unit {self.unit} does not exist on this node: {todo}", refused=True)
        if state.load != "loaded":
            why = state.load_error or state.load
            raise EffectFailed(f"unit {self.unit} cannot be loaded ({why}); see 'systemctl status {self.unit}'", refused=True)
        try:
            (before,) = await manager.call("GetUnitFileState", "s", self.unit)
        except SystemdRefused:  # a unit without a file starts at no boot
            return
        try:
            await self._take_from_boot(manager, str(before))
        except SystemdRefused as refusal:  # no reason not to serve
            self.log("unit-boot", f"unit {self.unit} is started at boot, which systemd does not let us change: {refusal}")

    async def _take_from_boot(self, manager: Manager, before: str) -> None:
        """The files alone: nothing is reloaded, because they are read anew at the boot that they are about."""
        if before not in ("enabled", "enabled-runtime", "generated"):
            return
        if before != "generated":
            await manager.call("DisableUnitFiles", "asb", [self.unit], before == "enabled-runtime")
            (after,) = await manager.call("GetUnitFileState", "s", self.unit)
            if after not in ("enabled", "enabled-runtime"):
                self.log("unit-boot", f"unit {self.unit} was started at boot: disabled, because the module decides where it runs")
                return
        self.log("unit-boot", f"unit {self.unit} is still started at boot ({before}), by an init script or generator: switch it off there")

    # ---- start --------------------------------------------------------------------------------------------------------

    async def start(self, environment: Mapping[str, str]) -> None:
        """Returns when it is up, and `ready` if there is one says so."""
        began, deadline_s = trio.current_time(), self.config.start_timeout_s
        await self._within(deadline_s, self._claim, "could not be looked at")
        self.log("unit-start", f"[#] systemctl start {self.unit}")
        await self._within(began + deadline_s - trio.current_time(), self._start, f"was not up after {deadline_s:.0f} s")
        if self.config.ready is not None:
            await self._wait_ready(self.config.ready, environment, began + deadline_s)

    async def _start(self, manager: Manager) -> None:
        path = await manager.load(self.unit)
        await manager.follow(path)
        if (await manager.state(path)).active == "failed":
            await manager.call("ResetFailedUnit", "s", self.unit)  # systemd's limit of starts is not ours
        try:
            job = await manager.queue("StartUnit", self.unit)
        except SystemdRefused as refusal:
            raise EffectFailed(f"unit {self.unit} cannot be started: {refusal}", refused=True) from refusal
        try:
            result = await manager.finished(job)
        except trio.Cancelled:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2.0):
                await _quietly(manager.cancel(job))
            raise
        while (state := await manager.state(path)).standing is Standing.BETWEEN:
            await manager.signal()
        if state.standing is not Standing.UP:
            words = RESULTS.get(result) or await self._cause(manager, path, state)
            raise EffectFailed(f"unit {self.unit} did not start: {words}; see 'journalctl -u {self.unit}'")

    async def _wait_ready(self, ready: tuple[str, ...], environment: Mapping[str, str], deadline: float) -> None:
        identity = await trio.to_thread.run_sync(commands.identity_of, self.config.user)
        with trio.CancelScope(deadline=deadline):
            while await commands.run(ready, identity, environment, self._log_file, self.config.start_timeout_s) != 0:
                if not await self.running():
                    raise EffectFailed(f"unit {self.unit} ended while starting; see 'journalctl -u {self.unit}'")
                await trio.sleep(READY_EVERY_S)
            return
        raise EffectFailed(f"unit {self.unit} is up, but was not ready after {self.config.start_timeout_s:.0f} s")

    # ---- stop ---------------------------------------------------------------------------------------------------------

    async def stop(self, environment: Mapping[str, str], kill: bool, *, alone: bool = False) -> None:
        """By a job, under its own deadline, then by force; with `kill` by force at once. The job is queued all the same: without it
        systemd would start again what was killed."""
        deadline_s = 0.0 if kill else self.config.stop_timeout_s
        self.log("unit-stop", f"[#] systemctl {'kill --signal=KILL' if kill else 'stop'} {self.unit}")
        longest_s = deadline_s + ending.LONGEST_S + LOOK_DEADLINE_S
        await self._within(longest_s, lambda manager: self._stop(manager, deadline_s), "could not be stopped")

    async def _stop(self, manager: Manager, deadline_s: float) -> None:
        began = trio.current_time()
        path = await manager.load(self.unit)
        await manager.follow(path)
        if (await manager.state(path)).load == "loaded":
            try:
                job = await manager.queue("StopUnit", self.unit)
                with trio.move_on_after(deadline_s):
                    await manager.finished(job)
            except SystemdRefused as refusal:  # RefuseManualStop=, say
                self.log("unit-stop", f"unit {self.unit}: {refusal}")
        state = await manager.state(path)
        if state.standing is Standing.DOWN:
            self.log("unit-stop", f"unit {self.unit} is {state} after {trio.current_time() - began:.1f} s")
        elif deadline_s:
            self.log("unit-stop", f"unit {self.unit} is still {state} after {deadline_s:.0f} s")
        await ending.end(self.name, UnitMembers(manager, self.unit), self._abandon, self.log)
        with trio.move_on_after(ending.KILL_PATIENCE_S):
            while (state := await manager.state(path)).standing is not Standing.DOWN:
                await manager.signal()
            return
        raise EffectFailed(f"unit {self.unit} is {state}, though none of its processes is left; see 'systemctl status {self.unit}'")

    # ---- watching -----------------------------------------------------------------------------------------------------

    async def watch(self) -> str:
        """Until it is down for good; why."""
        away_since = trio.current_time()
        self._restarts, self._between_since = [], None
        while True:
            try:
                async with systemd.connect(self.bus) as manager:
                    return await self._follow(manager)
            except SystemdAway as failure:
                if not self._away:
                    away_since = trio.current_time()
                self._say_away(failure)
            except SystemdRefused as refusal:
                return f"unit {self.unit}: {refusal}"
            if self._main is not None and not self._main.alive() and trio.current_time() - away_since > AWAY_PATIENCE_S:
                return f"the main process of unit {self.unit} is gone, and systemd cannot be asked for {AWAY_PATIENCE_S:.0f} s"
            await trio.sleep(RECONNECT_EVERY_S)

    async def _follow(self, manager: Manager) -> str:
        path = await manager.load(self.unit)
        await manager.follow(path)
        invocation = ""
        while True:
            state = await manager.state(path)
            self._say_back()
            now = trio.current_time()
            if state.standing is Standing.DOWN:
                return f"unit {self.unit} is {state}: {await self._cause(manager, path, state)}"
            if state.standing is Standing.BETWEEN:
                self._between_since = now if self._between_since is None else self._between_since
                with trio.CancelScope(deadline=self._between_since + self.config.start_timeout_s) as patience:
                    await manager.signal()
                if patience.cancelled_caught:
                    return f"unit {self.unit} is {state} for {self.config.start_timeout_s:.0f} s"
                continue
            self._between_since = None
            if invocation not in ("", state.invocation) and self._is_restarted_too_often(now):
                return f"unit {self.unit} was restarted by systemd {len(self._restarts)} times within {RESTARTS_WITHIN_S:.0f} s"
            if invocation != state.invocation:
                invocation = state.invocation
                pid = await manager.service_property(path, "MainPID")
                self._main = processes.find(int(pid)) if pid else None
            await manager.signal()

    def _is_restarted_too_often(self, now: float) -> bool:
        self._restarts = [*(then for then in self._restarts if now - then < RESTARTS_WITHIN_S), now]
        self.log("unit", f"unit {self.unit} was restarted by systemd")
        return len(self._restarts) > RESTARTS_MAX

    # ---- helpers ------------------------------------------------------------------------------------------------------

    async def _cause(self, manager: Manager, path: str, state: UnitState) -> str:
        """systemd's word for how it ended."""
        result = await manager.service_property(path, "Result")
        if result in (None, "", "success"):
            return "it is not up" if state.active != "failed" else "it failed"
        status = await manager.service_property(path, "ExecMainStatus")
        return f"{result} {status}" if result in ("exit-code", "signal", "core-dump") else str(result)

    async def _within(self, deadline_s: float, action: Callable[[Manager], Awaitable[T]], trouble: str) -> T:
        """Do it, again when the bus goes away in between (all of it may be done twice), until the deadline."""
        if not systemd.can_be_asked(self.bus):
            advice = "give the service a 'start' command instead"
            raise EffectFailed(f"unit {self.unit}: systemd does not run on this node; {advice}", refused=True)
        last = "systemd does not answer"
        with trio.move_on_after(deadline_s):
            while True:
                try:
                    async with systemd.connect(self.bus) as manager:
                        last = ""
                        return await action(manager)
                except SystemdAway as failure:
                    last = str(failure)
                    await trio.sleep(RECONNECT_EVERY_S)
                except SystemdRefused as refusal:
                    raise EffectFailed(f"unit {self.unit}: {refusal}") from refusal
        raise EffectFailed(f"unit {self.unit} {trouble}" + (f": {last}" if last else f"; see 'systemctl status {self.unit}'"))

    def _say_away(self, failure: SystemdAway) -> None:
        if not self._away:
            self.log("unit", f"unit {self.unit} is not watched: {failure}; looking again until it is back")
        self._away = True

    def _say_back(self) -> None:
        if self._away:
            self.log("unit", f"unit {self.unit} is watched again")
        self._away = False


async def _quietly(something: Awaitable[None]) -> None:
    try:
        await something
    except (SystemdAway, SystemdRefused):
        pass

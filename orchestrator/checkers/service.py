"""Is a unit of systemd up? systemd says so over D-Bus, and tells of every change.

A unit on its way (systemd restarts it, say) is neither up nor down: a look waits for what becomes of it, until its own deadline. While
systemd cannot be asked, the unit's main process speaks for it: an upgrade of the bus is no reason to restart a database.
"""

from __future__ import annotations

import trio

from orchestrator.checkers.checker import Finding
from orchestrator.effects import processes, systemd
from orchestrator.effects.processes import Process
from orchestrator.effects.systemd import SYSTEM_BUS, Manager, Standing, SystemdAway, SystemdRefused, UnitState

AGAIN_S = 1.0


class ServiceChecker:
    """Up while the unit is active."""

    def __init__(self, unit: str, bus: str = SYSTEM_BUS) -> None:
        self.unit, self.bus = systemd.full_name(unit), bus
        self._main: Process | None = None
        self._standing: Standing | None = None

    async def look(self) -> Finding:
        """Ask systemd; where that is away, look at the process."""
        if not systemd.can_be_asked(self.bus):
            return Finding(False, "systemd does not run on this node")
        try:
            async with systemd.connect(self.bus) as manager:
                path = await manager.load(self.unit)
                await manager.follow(path)
                state = await self._settled(manager, path)
                self._standing = state.standing
                if state.standing is Standing.UP:
                    pid = await manager.service_property(path, "MainPID")
                    self._main = processes.find(int(pid)) if pid else None
                    return Finding(True, f"{self.unit} is {state}")
        except SystemdAway as away:
            if self._main is not None and self._main.alive():
                return Finding(True, f"the main process of {self.unit}, {self._main.pid}, runs; {away}")
            return Finding(False, f"{self.unit} cannot be asked for: {away}")
        except SystemdRefused as refusal:
            return Finding(False, f"{self.unit}: {refusal}")
        self._main = None
        return Finding(False, _why_down(self.unit, state))

    async def changed(self) -> None:
        """When the unit is no longer as it was looked at."""
        seen = self._standing
        while seen is not None and systemd.can_be_asked(self.bus):
            try:
                async with systemd.connect(self.bus) as manager:
                    path = await manager.load(self.unit)
                    await manager.follow(path)
                    while (await manager.state(path)).standing is seen:
                        await manager.signal()
                    return
            except (SystemdAway, SystemdRefused):
                await trio.sleep(AGAIN_S)
        await trio.sleep_forever()

    async def _settled(self, manager: Manager, path: str) -> UnitState:
        while (state := await manager.state(path)).standing is Standing.BETWEEN:
            await manager.signal()
        return state


def _why_down(unit: str, state: UnitState) -> str:
    if state.load == "not-found":
        return f"unit {unit} does not exist on this node"
    if state.load == "masked":
        return f"unit {unit} is masked; 'systemctl unmask {unit}' lets it start"
    return f"unit {unit} is {state}; see 'systemctl status {unit}'"

"""The application: commands that stay in the foreground, or systemd units, in the order of the file.

Started in that order, each when the one before it is ready; stopped in reverse. All of it outlives hactld: one that is started anew
takes over what runs and disturbs nothing. What a single service needs is in `service_command.py` and `service_unit.py`; how one ends
that does not want to is in `ending.py`. One that cannot be ended keeps none of the others up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import trio

from orchestrator.config import ModuleConfig, ServiceConfig
from orchestrator.effects import EffectFailed, cgroups, systemd
from orchestrator.effects.service_command import CommandService
from orchestrator.effects.service_unit import UnitService
from orchestrator.paths import Paths


class Service(Protocol):
    """What is started, watched and stopped in its turn."""

    name: str

    async def prepare(self) -> None:
        """Look, long before it is needed, whether it could be started; only speaks."""
        ...

    async def running(self) -> bool:
        """Is it there, or anything of it?"""
        ...

    async def start(self, environment: Mapping[str, str]) -> None:
        """Returns when it is ready; what runs already is left alone."""
        ...

    async def stop(self, environment: Mapping[str, str], kill: bool, *, alone: bool = False) -> None:
        """Returns when nothing of it is left; fails when something cannot be ended. `alone`: the other services stay up."""
        ...

    async def watch(self) -> str:
        """Until it is dead; how it died."""
        ...


async def _no_mount(reason: str) -> None:
    """Who has no mount has none to give up."""


class Services:
    """All services of one module, started and stopped together."""

    def __init__(
        self,
        config: ModuleConfig,
        node: str,
        paths: Paths,
        died: Callable[[str, str], None],
        log: Callable[[str, str], None],
        *,
        abandon: Callable[[str], Awaitable[None]] = _no_mount,
        bus: str = systemd.SYSTEM_BUS,
        place: Callable[[], Path | None] = cgroups.find_place,
    ) -> None:
        self.config, self.paths, self.died, self.log = config, paths, died, log
        self.environment = {"LOCKSTEP_MODULE": config.name, "LOCKSTEP_NODE": node}
        self._watching: dict[str, trio.CancelScope] = {}
        home = place() if any(service.unit is None for service in config.services) else None

        def make(service: ServiceConfig) -> Service:
            if service.unit is not None:
                return UnitService(service, config, paths, bus, abandon, log)
            return CommandService(service, config, paths, home, abandon, log)

        self.services = [make(service) for service in config.services]

    async def prepare(self) -> None:
        """What can be found out while there is time."""
        for service in self.services:
            await service.prepare()

    async def running(self) -> bool:
        """Did a former hactld leave them up, or something of them? Whoever starts from nothing must first know that it is nothing."""
        if self.up_marker.exists():
            return True
        for service in self.services:
            if await service.running():
                return True
        return False

    @property
    def up_marker(self) -> Path:
        """There from the end of a successful start to the beginning of a stop; gone after a boot."""
        return self.paths.run / "services" / f"{self.config.name}.up"

    async def start(self, nursery: trio.Nursery, state: str) -> None:
        """Everything that does not run yet; returns when all are ready."""
        environment = {**self.environment, "LOCKSTEP_STATE": state}
        for service in self.services:
            await service.start(environment)
            self._watch(nursery, service)
        self.up_marker.touch()

    def adopt(self, nursery: trio.Nursery) -> None:
        """Watch what a former hactld started. A start that it could not finish counts as a death: begin again."""
        if not self.up_marker.exists():
            self.died(self.config.name, "the start was interrupted")
        for service in self.services:
            self._watch(nursery, service)

    async def stop(self, kill: bool, state: str) -> None:
        """Everything in reverse order. Fails only if something survives SIGKILL and the end of the mount."""
        self.up_marker.unlink(missing_ok=True)
        for scope in self._watching.values():
            scope.cancel()
        self._watching.clear()
        environment = {**self.environment, "LOCKSTEP_STATE": state}
        failures = []
        for service in reversed(self.services):
            try:
                await service.stop(environment, kill)
            except (EffectFailed, OSError) as failure:
                failures.append(str(failure))
        if failures:
            raise EffectFailed("; ".join(failures))

    async def restart(self, names: Sequence[str], nursery: trio.Nursery, state: str) -> None:
        """Only these, down in reverse order and up in order; the others notice nothing."""
        environment = {**self.environment, "LOCKSTEP_STATE": state}
        chosen = [service for service in self.services if service.name in names]
        for service in reversed(chosen):
            if (scope := self._watching.pop(service.name, None)) is not None:
                scope.cancel()
            await service.stop(environment, False, alone=True)
        for service in chosen:
            await service.start(environment)
            self._watch(nursery, service)

    def _watch(self, nursery: trio.Nursery, service: Service) -> None:
        scope = trio.CancelScope()
        if (before := self._watching.pop(service.name, None)) is not None:
            before.cancel()
        self._watching[service.name] = scope
        nursery.start_soon(self._watch_one, service, scope)

    async def _watch_one(self, service: Service, scope: trio.CancelScope) -> None:
        with scope:
            self.died(service.name, await service.watch())

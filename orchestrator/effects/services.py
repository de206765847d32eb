"""The application: commands that stay in the foreground, or systemd units, in the order of the file.

A command runs in a session of its own and is known by pid and start time (a file below /run), so that a hactld that was
restarted takes over what runs and disturbs nothing. Its death is seen by pidfd. Stopping asks first (`stop` command or signal)
and kills the whole family after the service's own deadline; with `kill` it does not ask: the role is lost.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import trio

from orchestrator.config import ModuleConfig, ServiceConfig
from orchestrator.effects import EffectFailed, commands, processes
from orchestrator.paths import Paths

READY_EVERY_S = 0.2
KILL_PATIENCE_S = 10.0
STOP_COMMAND_DEADLINE_S = 30.0
UNIT_POLL_S = 2.0


class Services:
    """All services of one module, started and stopped together."""

    def __init__(
        self, config: ModuleConfig, node: str, paths: Paths, died: Callable[[str, str], None], log: Callable[[str, str], None]
    ) -> None:
        self.config, self.paths, self.died, self.log = config, paths, died, log
        self.environment = {"LOCKSTEP_MODULE": config.name, "LOCKSTEP_NODE": node}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._watching: dict[str, trio.CancelScope] = {}

    async def running(self) -> bool:
        """Did a former hactld leave them up, or something of them? Whoever starts from nothing must first know that it is nothing."""
        if self.up_marker.exists():
            return True
        for service in self.config.services:
            if self._process(service) is not None or (service.unit and systemd_runs() and await self._is_active(service.unit)):
                return True
        return False

    @property
    def up_marker(self) -> Path:
        """There from the end of a successful start to the beginning of a stop; gone after a boot."""
        return self.paths.run / "services" / f"{self.config.name}.up"

    async def start(self, nursery: trio.Nursery, state: str) -> None:
        """Everything that does not run yet; returns when all are ready."""
        environment = {**self.environment, "LOCKSTEP_STATE": state}
        for service in self.config.services:
            await self._start_one(service, environment)
            self._watch(nursery, service)
        self.up_marker.touch()

    def adopt(self, nursery: trio.Nursery) -> None:
        """Watch what a former hactld started. A start that it could not finish counts as a death: begin again."""
        if not self.up_marker.exists():
            self.died(self.config.name, "the start was interrupted")
        for service in self.config.services:
            self._watch(nursery, service)

    async def stop(self, kill: bool, state: str) -> None:
        """Everything in reverse order. Fails only if something survives SIGKILL."""
        self.up_marker.unlink(missing_ok=True)
        for scope in self._watching.values():
            scope.cancel()
        self._watching.clear()
        environment = {**self.environment, "LOCKSTEP_STATE": state}
        for service in reversed(self.config.services):
            if service.unit is not None:
                await self._systemctl("kill" if kill else "stop", service.unit, service.stop_timeout_s)
            else:
                await self._stop_one(service, kill, environment)

    # ---- one service --------------------------------------------------------------------------------------------------

    def _pid_file(self, service: ServiceConfig) -> Path:
        return self.paths.run / "services" / f"{self.config.name}.{service.name}.pid"

    def _process(self, service: ServiceConfig) -> processes.Process | None:
        return processes.read_pid_file(self._pid_file(service))

    async def _start_one(self, service: ServiceConfig, environment: Mapping[str, str]) -> None:
        if service.unit is not None:
            await self._systemctl("start", service.unit, service.start_timeout_s)
            return
        identity = commands.identity_of(service.user)
        variables = {**environment, **service.environment}
        log = self.paths.module_log(self.config.name)
        process = self._process(service)
        if process is None:
            self.log("service-start", f"[#] {' '.join(service.start)}")
            with trio.CancelScope(shield=True):  # between fork and pid file nobody would know of it
                child = await trio.to_thread.run_sync(commands.spawn, service.start, identity, variables, log)
                self._children[service.name] = child
                process = processes.find(child.pid)
                if process is not None:
                    processes.write_pid_file(self._pid_file(service), process)
        if process is None:
            raise EffectFailed(f"service {service.name} ended at once{self._how(service)}; see 'hactl logs {self.config.name}'")
        await self._wait_ready(service, process, identity, variables)

    async def _wait_ready(
        self, service: ServiceConfig, process: processes.Process, identity: commands.Identity, variables: Mapping[str, str]
    ) -> None:
        log = self.paths.module_log(self.config.name)
        with trio.move_on_after(service.start_timeout_s):
            while process.alive():
                if service.ready is None:
                    await trio.sleep(READY_EVERY_S)  # long enough to see a command that cannot work at all
                    if process.alive():
                        return
                    break
                if await commands.run(service.ready, identity, variables, log, service.start_timeout_s) == 0:
                    return
                await trio.sleep(READY_EVERY_S)
        if process.alive():
            raise EffectFailed(f"service {service.name} was not ready after {service.start_timeout_s:.0f} s")
        raise EffectFailed(f"service {service.name} ended while starting{self._how(service)}; see 'hactl logs {self.config.name}'")

    async def _stop_one(self, service: ServiceConfig, kill: bool, environment: Mapping[str, str]) -> None:
        process = self._process(service)
        identity = commands.identity_of(service.user)
        family = processes.family(process) if process else []
        if process is not None and not kill:
            self.log("service-stop", f"[#] {' '.join(service.stop) if service.stop else f'kill -{service.stop_signal} {process.pid}'}")
            with trio.move_on_after(service.stop_timeout_s):
                if service.stop is not None:
                    with suppress(EffectFailed):  # the deadline below decides, not the command's opinion
                        variables = {**environment, **service.environment}
                        log = self.paths.module_log(self.config.name)
                        await commands.run(service.stop, identity, variables, log, STOP_COMMAND_DEADLINE_S)
                else:
                    processes.send_signal(process, signal_number(service.stop_signal))
                await processes.wait_dead(process)
            family = processes.family(process) if process.alive() else [member for member in family if member.alive()]
        if service.user is not None and identity.user_id != 0:
            family += processes.working_in([replicated.directory for replicated in self.config.replicated], identity.user_id)
        if not await processes.kill_all(family, KILL_PATIENCE_S):
            raise EffectFailed(f"service {service.name}: processes survive SIGKILL, they probably wait for the disk")
        self._pid_file(service).unlink(missing_ok=True)
        self._how(service)

    def _watch(self, nursery: trio.Nursery, service: ServiceConfig) -> None:
        scope = trio.CancelScope()
        if (before := self._watching.pop(service.name, None)) is not None:
            before.cancel()
        self._watching[service.name] = scope
        nursery.start_soon(self._watch_one, service, scope)

    async def _watch_one(self, service: ServiceConfig, scope: trio.CancelScope) -> None:
        with scope:
            if service.unit is not None:
                while await self._is_active(service.unit):
                    await trio.sleep(UNIT_POLL_S)
                self.died(service.name, f"unit {service.unit} is not active any more")
                return
            process = self._process(service)
            if process is not None:
                await processes.wait_dead(process)
            self.died(service.name, f"it ended{self._how(service)}")

    def _how(self, service: ServiceConfig) -> str:
        """How our child ended, if it is ours; also reaps it."""
        child = self._children.get(service.name)
        code = child.poll() if child is not None else None
        if code is None:
            return ""
        self._children.pop(service.name)
        return f" (exit code {code})" if code >= 0 else f" ({signal.Signals(-code).name})"

    # ---- systemd ------------------------------------------------------------------------------------------------------

    async def _systemctl(self, verb: str, unit: str, deadline_s: float) -> None:
        if not systemd_runs():
            raise EffectFailed(f"unit {unit}: systemd does not run on this node; give the service a 'start' command instead", refused=True)
        self.log(f"unit-{verb}", f"[#] systemctl {verb} {unit}")
        arguments = ["systemctl", "kill", "--signal=KILL", unit] if verb == "kill" else ["systemctl", verb, unit]
        with trio.move_on_after(deadline_s) as scope:
            result = await trio.run_process(arguments, check=False, capture_stdout=True, capture_stderr=True)
        if scope.cancelled_caught and verb == "stop":
            await self._systemctl("kill", unit, KILL_PATIENCE_S)
        elif scope.cancelled_caught:
            raise EffectFailed(f"unit {unit}: 'systemctl {verb}' was not finished after {deadline_s:.0f} s")
        elif result.returncode != 0 and verb == "start":
            raise EffectFailed(f"unit {unit}: {result.stderr.decode(errors='replace').strip().splitlines()[0]}")

    async def _is_active(self, unit: str) -> bool:
        result = await trio.run_process(["systemctl", "is-active", "--quiet", unit], check=False)
        return result.returncode == 0


def systemd_runs() -> bool:
    """Is systemd this machine's init?"""
    return Path("/run/systemd/system").exists() and shutil.which("systemctl") is not None


def signal_number(name: str) -> int:
    """`INT` and `SIGINT` are the same."""
    try:
        return int(signal.Signals[name if name.startswith("SIG") else f"SIG{name}"])
    except KeyError:
        raise EffectFailed(f"there is no signal {name}", refused=True) from None

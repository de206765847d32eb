"""A service that is a command in the foreground: started as its user, known by pid and start time, stopped with all its descendants.

What is noted below /run (`MODULE.SERVICE.pid` and `.group`) lets a hactld that is started anew take over what runs. Descendants are found
by their cgroup where there is one. Where there is none: children, sessions, a mark in the environment that each start makes anew,
and, for a service with a user of its own, processes of that user that stand in the module's directories.
"""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from orchestrator.config import ModuleConfig, ServiceConfig
from orchestrator.effects import EffectFailed, commands, ending, processes
from orchestrator.effects.cgroups import Cgroup
from orchestrator.effects.ending import Log
from orchestrator.effects.processes import Process
from orchestrator.paths import Paths
from rfs.foreign import from_json

READY_EVERY_S = 0.2
IDENTITY_DEADLINE_S = 2.0
STOP_COMMAND_DEADLINE_S = 30.0
SCAN_PATIENCE_S = 2.0
SCANS_MAX = 4  # threads that hang are left to themselves: never so many that the rest of hactld has none
LOOK_UPS_MAX = 2


@dataclass(frozen=True, slots=True)
class Group:
    """By what the descendants of one start are found: its mark, and its cgroup where there is one."""

    mark: str
    cgroup: Cgroup | None

    def write(self, path: Path) -> None:
        """Complete or not at all."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"mark": self.mark, "cgroup": str(self.cgroup.path) if self.cgroup else None}))
        new.rename(path)

    @classmethod
    def read(cls, path: Path) -> Group:
        """An empty one when nothing, or nothing sensible, is noted."""
        try:
            noted = from_json(path.read_text())
            return cls(str(noted["mark"]), Cgroup(Path(noted["cgroup"])) if noted["cgroup"] else None)
        except (OSError, ValueError, KeyError, TypeError):
            return cls("", None)


class CommandMembers:
    """The command, and everything that came from it."""

    def __init__(self, root: Process | None, group: Group, directories: list[str], user_id: int) -> None:
        self._root, self._group, self._directories, self._user_id = root, group, directories, user_id
        self._known: set[Process] = set()
        self._scans = trio.CapacityLimiter(SCANS_MAX)

    async def alive(self) -> list[Process]:
        """Also who was seen once and has lost its parent since."""
        if self._root is not None and self._root.alive():
            self._known.update(processes.family(self._root))
        if self._group.cgroup is not None:
            found = (processes.find(pid) for pid in self._group.cgroup.members())
            self._known.update(process for process in found if process is not None)
        else:
            self._known.update(await self._strays())
        self._known = {process for process in self._known if process.alive()}
        return sorted(self._known, key=lambda process: process.pid)

    async def freeze(self) -> bool:
        """In one stroke where there is a cgroup; what has left it gets signals."""
        if self._group.cgroup is None:
            return False
        await self._group.cgroup.freeze()
        inside = set(self._group.cgroup.members())
        for process in await self.alive():
            if process.pid not in inside:
                processes.send_signal(process, signal.SIGSTOP)
        return True

    async def kill(self) -> bool:
        """In one stroke where there is a cgroup of a kernel that has it."""
        if self._group.cgroup is None:
            return False
        done = self._group.cgroup.kill()
        for process in await self.alive():
            processes.send_signal(process, signal.SIGKILL)
        self._group.cgroup.thaw()
        return done

    async def _strays(self) -> list[Process]:
        found: list[Process] = []
        if self._group.mark:
            with trio.move_on_after(SCAN_PATIENCE_S):
                await trio.to_thread.run_sync(
                    processes.marked, f"LOCKSTEP_MARK={self._group.mark}", found, abandon_on_cancel=True, limiter=self._scans
                )
        if self._user_id != 0:
            found += processes.working_in(self._directories, self._user_id)
        return list(found)


class CommandService:
    """One `start = […]` of a module."""

    def __init__(
        self,
        config: ServiceConfig,
        module: ModuleConfig,
        paths: Paths,
        place: Path | None,
        abandon: Callable[[str], Awaitable[None]],
        log: Log,
    ) -> None:
        self.config, self.name, self.module, self.log = config, config.name, module, log
        self._log_file = paths.module_log(module.name)
        self._pid_file = paths.run / "services" / f"{module.name}.{config.name}.pid"
        self._group_file = self._pid_file.with_suffix(".group")
        self._place, self._abandon = place, abandon
        self._child: subprocess.Popen[bytes] | None = None
        self._look_ups = trio.CapacityLimiter(LOOK_UPS_MAX)

    async def running(self) -> bool:
        """Is it, or anything of it, there?"""
        if self._process() is not None:
            return True
        cgroup = Group.read(self._group_file).cgroup
        return cgroup is not None and bool(cgroup.members())

    async def prepare(self) -> None:
        """A command needs nothing before its time."""

    # ---- start --------------------------------------------------------------------------------------------------------

    async def start(self, environment: Mapping[str, str]) -> None:
        """Returns when it is ready."""
        config = self.config
        identity = await self._look_up()
        variables = {**environment, **config.environment}
        process = self._process()
        if process is None:
            await self._sweep()
            self.log("service-start", f"[#] {' '.join(config.start)}")
            with trio.CancelScope(shield=True):  # between fork and pid file nobody would know of it
                process = await trio.to_thread.run_sync(self._spawn, identity, variables)
        if process is None:
            raise EffectFailed(f"service {config.name} ended at once{self.how()}; see 'hactl logs {self.module.name}'")
        await self._wait_ready(process, identity, variables)

    def _spawn(self, identity: commands.Identity, variables: Mapping[str, str]) -> Process | None:
        mark = secrets.token_hex(8)
        cgroup = Cgroup(self._place / f"{self.module.name}.{self.config.name.replace('/', '_')}.{mark}") if self._place else None
        group = Group(mark, cgroup if cgroup is not None and cgroup.create() else None)
        self._pid_file.parent.mkdir(parents=True, exist_ok=True)
        group.write(self._group_file)
        marked = {**variables, "LOCKSTEP_MARK": group.mark}
        inside = group.cgroup.path if group.cgroup else None
        child = self._child = commands.spawn(self.config.start, identity, marked, self._log_file, inside)
        if (process := processes.find(child.pid)) is not None:
            processes.write_pid_file(self._pid_file, process)
        return process

    async def _sweep(self) -> None:
        """What an earlier start left behind (its first process is dead) must not meet the new one."""
        group = Group.read(self._group_file)
        if group.mark:
            await ending.end(self.name, CommandMembers(None, group, [], 0), self._abandon, self.log)
        if group.cgroup is not None:
            group.cgroup.remove()

    async def _wait_ready(self, process: Process, identity: commands.Identity, variables: Mapping[str, str]) -> None:
        config = self.config
        with trio.move_on_after(config.start_timeout_s):
            while process.alive():
                if config.ready is None:
                    with trio.move_on_after(READY_EVERY_S):  # long enough to see a command that cannot work at all
                        await processes.wait_dead(process)
                    if process.alive():
                        return
                    break
                if await commands.run(config.ready, identity, variables, self._log_file, config.start_timeout_s) == 0:
                    return
                await trio.sleep(READY_EVERY_S)
        if process.alive():
            raise EffectFailed(f"service {config.name} was not ready after {config.start_timeout_s:.0f} s")
        raise EffectFailed(f"service {config.name} ended while starting{self.how()}; see 'hactl logs {self.module.name}'")

    # ---- stop ---------------------------------------------------------------------------------------------------------

    async def stop(self, environment: Mapping[str, str], kill: bool, *, alone: bool = False) -> None:
        """Ask, wait for its own deadline, then by force (`ending.py`); with `kill` by force at once. `alone`: the others stay up."""
        config = self.config
        identity = await self._identity()
        process = self._process()
        directories = [replicated.directory for replicated in self.module.replicated]
        group = Group.read(self._group_file)
        was_started = process is not None or bool(group.mark)  # else whoever of this user stands in the directories is nobody of ours
        may_have_strays = config.user is not None and was_started and self._is_last_of_its_user(alone)
        owner = identity.user_id if identity is not None and may_have_strays else 0
        members = CommandMembers(process, group, directories, owner)
        await members.alive()  # who loses its parent while we ask is known from here on
        if process is not None and not kill:
            await self._ask(process, identity, {**environment, **config.environment})
        await ending.end(self.name, members, self._abandon, self.log)
        if group.cgroup is not None:
            group.cgroup.remove()
        self._pid_file.unlink(missing_ok=True)
        self._group_file.unlink(missing_ok=True)
        self.how()

    def _is_last_of_its_user(self, alone: bool) -> bool:
        """Stopped in reverse order: while another one of this user is up, his processes in the directories may be the other one's."""
        first, *others = (service for service in self.module.services if service.user == self.config.user)
        return first is self.config and not (alone and others)

    async def _identity(self) -> commands.Identity | None:
        """Nothing when the directory service does not say who that is: what runs is ended all the same."""
        with trio.move_on_after(IDENTITY_DEADLINE_S), suppress(EffectFailed):
            return await self._look_up()
        self.log("service-stop", f"{self.name}: the user {self.config.user} cannot be looked up now; its processes are ended by signals")
        return None

    async def _look_up(self) -> commands.Identity:
        """The directory service may hang: whoever is cancelled meanwhile is free at once."""
        look_up = commands.identity_of
        return await trio.to_thread.run_sync(look_up, self.config.user, abandon_on_cancel=True, limiter=self._look_ups)

    async def _ask(self, process: Process, identity: commands.Identity | None, variables: Mapping[str, str]) -> None:
        config, began = self.config, trio.current_time()
        said = " ".join(config.stop) if config.stop and identity is not None else f"kill -{config.stop_signal} {process.pid}"
        self.log("service-stop", f"[#] {said}")
        with trio.move_on_after(config.stop_timeout_s):
            if config.stop is not None and identity is not None:
                with suppress(EffectFailed):  # the deadline decides, not the command's opinion
                    await commands.run(config.stop, identity, variables, self._log_file, STOP_COMMAND_DEADLINE_S)
            else:
                processes.send_signal(process, signal_number(config.stop_signal))
            await processes.wait_dead(process)
        lasted = f"after {trio.current_time() - began:.1f} s"
        self.log("service-stop", f"{self.name} {'did not end' if process.alive() else f'ended{self.how()}'} {lasted}")

    # ---- watching -----------------------------------------------------------------------------------------------------

    async def watch(self) -> str:
        """Until it is dead; how it died."""
        process = self._process()
        if process is not None:
            await processes.wait_dead(process)
        return f"it ended{self.how()}"

    def _process(self) -> Process | None:
        return processes.read_pid_file(self._pid_file)

    def how(self) -> str:
        """How our child ended, if it is ours; also reaps it."""
        code = self._child.poll() if self._child is not None else None
        if code is None:
            return ""
        self._child = None
        return f" (exit code {code})" if code >= 0 else f" ({signal.Signals(-code).name})"


def signal_number(name: str) -> int:
    """`INT` and `SIGINT` are the same."""
    try:
        return int(signal.Signals[name if name.startswith("SIG") else f"SIG{name}"])
    except KeyError:
        raise EffectFailed(f"there is no signal {name}", refused=True) from None

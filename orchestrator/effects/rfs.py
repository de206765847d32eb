"""rfsmount, seen from hactld: started detached, spoken to over its control socket, its death seen by pidfd.

It outlives us. So starting means: connect to the one that runs, or start one and connect. One *session* is one connection to
one process; its number travels with every status, because a status of an rfsmount that is gone must not be believed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from orchestrator.config import ClusterConfig, ModuleConfig, ReplicatedConfig
from orchestrator.core.states import RfsView
from orchestrator.effects import EffectFailed, commands, mount_abort, processes
from orchestrator.paths import Paths
from rfs import exit_codes
from rfs.control.client import ControlClient, ControlLost, open_client
from rfs.errors import SaidNo
from rfs.keys import KeyStore
from rfs.patterns import within

CONNECT_DEADLINE_S = 20.0
CONNECT_EVERY_S = 0.05
RECONNECT_FOR_S = 3.0
STOP_DEADLINE_S = 60.0
KILL_PATIENCE_S = 5.0
ANSWER_DEADLINE_S = 1.0
# At a shutdown systemd ends it after hactld, which stops the modules in order, and before the network.
SCOPE_ORDER = ("Before=hactld.service", "After=network.target network-online.target")
REFRESH_DEADLINE_S = 5.0
DEAF_AFTER_S = 12.0  # it speaks every 5 s (rfs/control/server.py)
DEAF_ANSWER_S = 4.0
ADD_EVERY_S = 0.5
ADD_DEADLINE_S = 120.0  # it looks through what is added


def view_from(status: Mapping[str, Any]) -> RfsView:
    """What decisions need of a status; a field that is missing gets the value that permits least."""
    resync, witness, term = status.get("resync"), status.get("witness"), status.get("term")
    return RfsView(
        role="primary" if status.get("role") == "primary" else "secondary",
        link=str(status.get("link", "connecting")),
        mode=str(status.get("mode", "idle")),
        data=str(status.get("data", "INCONSISTENT")),
        generation=str(status.get("generation", "")),
        term=term if type(term) is int else 0,
        code=str(status.get("code", "")),
        reason=str(status.get("reason") or ""),
        needs_grant=status.get("needs_grant") is True,
        consent=status.get("consent") is True,
        witness_away=isinstance(witness, dict) and witness.get("state") == "unreachable",
        resync=resync if isinstance(resync, dict) else None,
    )


def patterns_of(directories: Sequence[ReplicatedConfig]) -> dict[str, list[str]]:
    """What is local of them, as rfsmount's options: each pattern with its directory."""
    return {
        "exclude": [within(each.directory, pattern) for each in directories for pattern in each.exclude],
        "only": [within(each.directory, pattern) for each in directories for pattern in each.only],
    }


def added_directories(directories: Sequence[ReplicatedConfig]) -> dict[str, Any]:
    """Parameters of rfsmount's `add_directories`; those that it has already are no news to it."""
    return {"directories": [each.directory for each in directories], **patterns_of(directories)}


class Rfs:
    """The rfsmount of one module."""

    def __init__(
        self,
        config: ModuleConfig,
        cluster: ClusterConfig,
        node: str,
        paths: Paths,
        *,
        keys: KeyStore | None,
        status: Callable[[int, RfsView], None],
        gone: Callable[[int, str], None],
        log: Callable[[str, str], None],
    ) -> None:
        self.config, self.cluster, self.node, self.paths = config, cluster, node, paths
        self.keys = keys
        self.status, self.gone, self.log = status, gone, log
        self.state_directory = paths.module_state(config.name)
        self.last: Mapping[str, Any] = {}
        self._told: tuple[int, RfsView] | None = None
        self._client: ControlClient | None = None
        self._session = 0
        self._connection: trio.CancelScope | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._heard_at = float("-inf")
        self._doubted = trio.Event()  # it may be deaf: asked at once

    # ---- what the disk says -------------------------------------------------------------------------------------------

    def has_record(self) -> bool:
        """Did this node ever take part in this module's replication?"""
        return (self.state_directory / "record").exists()

    def holds_files(self) -> bool:
        """Is there anything in the directories? Unreadable counts as yes: nothing may be overwritten on a doubt. With a record nobody
        needs to know, and nobody may look: reading a frozen mount waits."""
        if self.has_record():
            return False
        try:
            return any(next(os.scandir(replicated.directory), None) is not None for replicated in self.config.replicated)
        except FileNotFoundError:
            return False
        except OSError:
            return True

    async def runs(self) -> bool:
        """Does an rfsmount answer?"""
        try:
            async with open_client(str(self.state_directory)):
                return True
        except ControlLost:
            return False

    # ---- start and stop -----------------------------------------------------------------------------------------------

    async def start(self, nursery: trio.Nursery, session: int, role: str, replace_data: bool) -> None:
        """Connected when it returns; statuses follow under `session`."""
        self._drop_connection()
        self._session = session
        child: subprocess.Popen[bytes] | None = None
        if not await self.runs():
            child = self._child = await trio.to_thread.run_sync(self._spawn, role, replace_data)
        with trio.move_on_after(CONNECT_DEADLINE_S):
            while child is None or child.poll() is None:
                try:
                    await nursery.start(self._connected, session)
                    return
                except ControlLost:
                    await trio.sleep(CONNECT_EVERY_S)
        code = child.poll() if child is not None else None
        if code is not None:
            refused = code in (exit_codes.USAGE, exit_codes.CONFIGURATION_INVALID, exit_codes.REFUSED)
            raise EffectFailed(f"rfsmount ended with exit code {code}: {self._last_words()}", refused=refused)
        raise EffectFailed(f"rfsmount does not answer on {self.state_directory}/control.sock after {CONNECT_DEADLINE_S:.0f} s")

    def check_required(self, role: str) -> None:
        """The first primary must have what the administrator says makes the directory whole: not an empty or unmounted one. At every
        later start rfsmount itself looks (--require): only it knows from the record whether there should be anything."""
        for replicated in self.config.replicated if role == "primary" else ():
            for required in replicated.require:
                if not (Path(replicated.directory) / required).exists():
                    raise EffectFailed(f"{replicated.directory} has no {required}: is it empty, or not mounted?", refused=True)

    def _spawn(self, role: str, replace_data: bool) -> subprocess.Popen[bytes]:
        self.check_required(role)
        self.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = self.command(role, replace_data)
        self.log("rfs-start", "[#] " + " ".join(command))
        return commands.spawn(command, commands.identity_of(None), dict(os.environ), self.paths.rfs_log(self.config.name))

    def command(self, role: str, replace_data: bool) -> list[str]:
        """The command line; under systemd in a scope of its own, because a service's processes die with it."""
        config, network = self.config, self.config.replication_network
        peer = next(name for name in config.nodes if name != self.node)
        here, there = (self.cluster.nodes[name].addresses[network] for name in (self.node, peer))
        program = Path(sys.executable).with_name("rfsmount")
        found = str(program) if program.exists() else shutil.which("rfsmount")
        line = [found] if found else [sys.executable, "-P", "-m", "rfs.cli"]
        line += ["mount", *(replicated.directory for replicated in config.replicated)]
        line += ["--state", str(self.state_directory), "--role", role]
        line += ["--listen", f"{here}:{config.port}", "--peer", f"{there}:{config.port}", "--on-peer-loss", "freeze"]
        line += ["--module", config.name, "--node", self.node, "--cluster", self.cluster.name, "--foreground"]
        line += ["--insecure"] if self.keys is None else ["--keys", str(self.keys.directory), "--peer-node", peer]
        line += ["--link-timeout", f"{self.cluster.heartbeat_timeout_s:g}"]
        line += ["--ack", config.ack]
        line += [word for option in ("devices", "setuid") if getattr(config, option) == "refuse" for word in (f"--{option}", "refuse")]
        line += [word for url in self.cluster.witness for word in ("--witness", url)]
        line += ["--witness-ca", self.cluster.witness_ca] if self.cluster.witness_ca else []
        for option, patterns in patterns_of(config.replicated).items():
            line += [word for pattern in patterns for word in (f"--{option}", pattern)]
        if replace_data:
            line.append("--replace-data")  # what is here goes, whole or not: nothing can be required of it
        else:
            line += [word for replicated in config.replicated for required in replicated.require for word in ("--require", required)]
        if Path("/run/systemd/system").exists() and (scope := shutil.which("systemd-run")):
            order = [f"--property={word}" for word in SCOPE_ORDER]
            return [scope, "--scope", "--quiet", "--collect", f"--unit=lockstep-rfs-{config.name}", *order, *line]
        return line

    async def stop(self) -> None:
        """Orderly goodbye; whatever is left after the deadline is killed."""
        process = await self._process()
        if process is None:
            self._drop_connection()
            return
        try:
            with trio.move_on_after(STOP_DEADLINE_S):
                if self._client is not None:
                    await self._client.call("unmount", {"keep_guard": True})
                else:
                    processes.send_signal(process, signal.SIGTERM)
                await processes.wait_dead(process)
        except (ControlLost, SaidNo) as failure:
            self.log("rfs-stop", str(failure))
            processes.send_signal(process, signal.SIGTERM)
            with trio.move_on_after(STOP_DEADLINE_S):
                await processes.wait_dead(process)
        self._drop_connection()
        if process.alive() and not await processes.kill_all([process], KILL_PATIENCE_S):
            raise EffectFailed("rfsmount survives SIGKILL: it probably waits for the disk")
        self._reap()

    async def abandon(self, reason: str) -> None:
        """The mount is given up, because processes hang in it that even SIGKILL does not end: its connection is aborted and rfsmount, which
        does not answer, is killed. What was acknowledged is safe, as at every death of rfsmount; the mount answers ENOTCONN until the next
        start."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + KILL_PATIENCE_S):
            directories = [replicated.directory for replicated in self.config.replicated]
            aborted = await trio.to_thread.run_sync(mount_abort.abort, directories, abandon_on_cancel=True)
            process = None
            with trio.move_on_after(ANSWER_DEADLINE_S):
                process = await self._process()
            process = process or self._holder()
            what = f"rfsmount {process.pid} is killed" if process else "no rfsmount runs"
            self.log("rfs-abort", f"the mount is given up, because {reason}: {len(aborted)} connection(s) aborted, {what}")
            if process is not None:
                await processes.kill_all([process], KILL_PATIENCE_S)

    async def _process(self) -> processes.Process | None:
        if self._client is not None:
            return processes.find(int(self._client.server.get("pid", 0)))
        try:
            async with open_client(str(self.state_directory)) as client:
                return processes.find(int(client.server.get("pid", 0)))
        except ControlLost:
            child = self._child
            if child is not None and child.poll() is None:
                return processes.find(child.pid)
            return self._holder()

    def _holder(self) -> processes.Process | None:
        """Who holds the state directory, be it deaf: rfsmount keeps its pid file locked as long as it lives."""
        try:
            with (self.state_directory / "rfsmount.pid").open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return processes.find(int(file.read()))
        except (FileNotFoundError, ValueError):
            pass
        return None

    # ---- the connection -----------------------------------------------------------------------------------------------

    async def _connected(self, session: int, *, task_status: trio.TaskStatus[None]) -> None:
        """One session: statuses until the process is dead. A connection that breaks while it lives is made again."""
        with trio.CancelScope() as scope:
            process: processes.Process | None = None
            started = False
            while True:
                try:
                    async with open_client(str(self.state_directory)) as client:
                        process = processes.find(int(client.server.get("pid", 0)))
                        self._client, self._connection = client, scope
                        if not started:
                            started = True
                            task_status.started()
                        await self._listen(session, client, process)
                except ControlLost:
                    if not started:
                        raise
                self._client = None
                if process is None or await self._died(process):
                    break
            self._connection = None
            self.gone(session, f"rfsmount died{self._reap()}")

    async def _listen(self, session: int, client: ControlClient, process: processes.Process | None) -> None:
        """Every status, until the connection ends; somebody looks whether they come."""
        self._heard_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            if process is not None:
                nursery.start_soon(self._end_when_deaf, client, process)
            nursery.start_soon(self._add_directories, session, client)
            with suppress(ControlLost):
                async for status in client.subscribe():
                    self._publish(session, status, asked=False)
            nursery.cancel_scope.cancel()

    async def _add_directories(self, session: int, client: ControlClient) -> None:
        """The configuration may name more directories than this rfsmount was started with. The secondary takes them first, then
        the primary, which serves alone meanwhile (docs/decisions/0028). Both were asked before whether they can."""
        told, half_added = "", False
        while (has := len(self.last.get("directories", ()))) < len(self.config.replicated):
            beside_peer = self.last.get("role") == "primary" and self.last.get("mode") not in ("alone", "unused")
            if has and (half_added or not beside_peer):  # what failed on its way can be finished whoever is there
                try:
                    with trio.fail_after(ADD_DEADLINE_S):
                        await client.call("add_directories", added_directories(self.config.replicated))
                        self._publish(session, await client.call("status"))
                    self.log("rfs-add", "rfsmount has all directories of the configuration")
                    continue
                except (SaidNo, trio.TooSlowError) as failure:
                    half_added = isinstance(failure, SaidNo) and failure.exit_code == exit_codes.FAILED
                    reason = str(failure) or f"not done in {ADD_DEADLINE_S:.0f} s"
                except ControlLost:
                    return
                if reason != told:
                    self.log("rfs-add", f"a directory of the configuration is not added yet: {reason}")
                told = reason
            await trio.sleep(ADD_EVERY_S)

    async def _end_when_deaf(self, client: ControlClient, process: processes.Process) -> None:
        """One that lives and says nothing (stopped, stuck) holds the application and its peer up: nobody else would ever end it. It says
        something every few seconds whatever happens, so after two that did not come it is asked, and then it is over."""
        while True:
            with trio.move_on_at(self._heard_at + DEAF_AFTER_S):  # not every second: there may be many modules
                await self._doubted.wait()
            if not self._doubted.is_set() and trio.current_time() - self._heard_at < DEAF_AFTER_S:
                continue
            self._doubted = trio.Event()
            try:
                with trio.move_on_after(DEAF_ANSWER_S):
                    with suppress(SaidNo):  # that is an answer too
                        await client.call("status")
                    self._heard_at = trio.current_time()
                    continue
            except ControlLost:
                return  # it is dead, or the connection is: who listens sees it
            self.log("rfs-deaf", f"rfsmount {process.pid} lives but has said nothing for {DEAF_AFTER_S:.0f} s: it is killed")
            await processes.kill_all([process], KILL_PATIENCE_S)
            return

    async def _died(self, process: processes.Process) -> bool:
        """Dead, or not answering for so long that it counts as dead (and then is)."""
        with trio.move_on_after(RECONNECT_FOR_S):
            while process.alive():
                if await self.runs():
                    return False
                with trio.move_on_after(CONNECT_EVERY_S):
                    await processes.wait_dead(process)
        if process.alive():
            self.log("rfs-deaf", "rfsmount lives but does not answer: it is killed")
            await processes.kill_all([process], KILL_PATIENCE_S)
        return True

    def _publish(self, session: int, status: Mapping[str, Any], *, asked: bool = True) -> None:
        """What was not asked for comes every second whatever happens: the core hears of it when it decides on something else."""
        if session != self._session:
            return
        self._heard_at = trio.current_time()
        self.last, view = status, view_from(status)
        if asked or (session, view) != self._told:
            self._told = (session, view)
            self.status(session, view)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.cancel()
        self._connection = self._client = None
        self.last = {}

    def _reap(self) -> str:
        """How our child ended, if it is ours."""
        code = self._child.poll() if self._child is not None else None
        if code is None:
            return ""
        self._child = None
        return f" ({signal.Signals(-code).name})" if code < 0 else f" (exit code {code})"

    def _last_words(self) -> str:
        try:
            lines = [line for line in self.paths.rfs_log(self.config.name).read_text(errors="replace").splitlines() if line.strip()]
        except OSError:
            return "its log cannot be read"
        return lines[-1] if lines else "it said nothing"

    # ---- calls --------------------------------------------------------------------------------------------------------

    async def call(self, method: str, parameters: Mapping[str, Any], deadline_s: float) -> None:
        """An order; when it returns, the status that follows from it has been published before."""
        client, session = self._client, self._session
        if client is None:
            raise EffectFailed("rfsmount is not connected")
        try:
            with trio.fail_after(deadline_s):
                await client.call(method, dict(parameters))
                self._publish(session, await client.call("status"))
        except SaidNo as refusal:
            raise EffectFailed(refusal.sentence, refused=refusal.exit_code == exit_codes.REFUSED) from refusal
        except ControlLost as lost:
            raise EffectFailed(str(lost)) from lost
        except trio.TooSlowError:
            self._doubted.set()
            raise EffectFailed(f"rfsmount did not finish '{method}' in {deadline_s:.0f} s") from None

    async def ask(self, method: str, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """A person's question, however long the answer takes. SaidNo, ControlLost."""
        if self._client is None:
            raise ControlLost("rfsmount is not running here; start the module first")
        return await self._client.call(method, dict(parameters))

    async def refresh(self) -> None:
        """Ask for the status now."""
        self._told = None  # whatever comes next is news, also when this question has no answer
        if self._client is not None:
            try:
                with trio.move_on_after(REFRESH_DEADLINE_S):
                    self._publish(self._session, await self._client.call("status"))
            except (ControlLost, SaidNo) as failure:
                self.log("rfs-status", str(failure))

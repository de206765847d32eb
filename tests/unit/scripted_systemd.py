"""A systemd for tests: on a private bus of a real dbus-daemon it answers as the Manager does, and does to its units what a test says.

Its units have real processes, so that whoever kills them, by KillUnit or by signals, really does. Jobs, their results and the signals
about them come in systemd's order: JobNew is left out, PropertiesChanged goes to who subscribed, JobRemoved ends a job.

    python -m tests.unit.scripted_systemd DIRECTORY STATE      a bus at DIRECTORY/bus, and a systemd without units in that state;
                                                               DIRECTORY/ready is there when it answers
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from jeepney import DBusAddress, HeaderFields, Message, MessageType, message_bus, new_error, new_method_return, new_signal
from jeepney.io.trio import DBusConnection, open_dbus_connection

from orchestrator.effects import systemd

HAVE_DBUS = shutil.which("dbus-daemon") is not None
BUS_CONFIGURATION = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>custom</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""


class PrivateBus:
    """A dbus-daemon of its own, that can die and come back at the same address."""

    def __init__(self, directory: Path) -> None:
        self._socket = directory / "bus"
        self._configuration = directory / "bus.conf"
        self._configuration.write_text(BUS_CONFIGURATION.format(socket=self._socket))
        self.address = f"unix:path={self._socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Answers when this returns: its address is printed once it listens."""
        self._socket.unlink(missing_ok=True)
        command = ["dbus-daemon", f"--config-file={self._configuration}", "--nofork", "--nopidfile", "--nosyslog", "--print-address"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith(b"unix:path=")

    def stop(self) -> None:
        """All connections break."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


@dataclass
class Unit:
    """One unit and what is to happen to it."""

    name: str
    load: str = "loaded"  # or: masked, not-found, bad-setting
    file_state: str = "disabled"
    start: str = "ok"  # or: fail, hang, restart (fails, and systemd tries again), refuse
    stop: str = "ok"  # or: hang
    stays_enabled: bool = False  # by a generator
    command: tuple[str, ...] = ("sleep", "1000")
    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    job: int = 0
    runs: int = 0
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def path(self) -> str:
        """As systemd escapes it."""
        return "/org/freedesktop/systemd1/unit/" + "".join(
            character if character.isascii() and character.isalnum() else f"_{ord(character):02x}" for character in self.name
        )

    def alive(self) -> list[int]:
        """The pids of what runs in it."""
        return [process.pid for process in self.processes if process.poll() is None]

    def properties(self) -> dict[str, tuple[str, Any]]:
        """org.freedesktop.systemd1.Unit, as far as anybody asks."""
        error = ("org.freedesktop.systemd1.BadUnitSetting", "Unit has a bad setting.") if self.load == "bad-setting" else ("", "")
        return {
            "LoadState": ("s", self.load),
            "LoadError": ("(ss)", error),
            "ActiveState": ("s", self.active),
            "SubState": ("s", self.sub),
            "Job": ("(uo)", (self.job, f"/org/freedesktop/systemd1/job/{self.job}" if self.job else "/")),
            "InvocationID": ("ay", bytes([self.runs]) * 16 if self.runs else b""),
        }

    def service_properties(self) -> dict[str, tuple[str, Any]]:
        """org.freedesktop.systemd1.Service, likewise."""
        alive = self.alive()
        return {"MainPID": ("u", alive[0] if alive else 0), "Result": ("s", self.result), "ExecMainStatus": ("i", 3)}


class ScriptedSystemd:
    """The Manager. `calls` has what was asked of it, in order."""

    def __init__(self, address: str, units: Iterable[Unit]) -> None:
        self.address = address
        self.units = {unit.name: unit for unit in units}
        self.calls: list[str] = []
        self.state = "running"
        self._jobs = 0
        self._subscribed = False
        self._connection: DBusConnection | None = None
        self._nursery: trio.Nursery | None = None

    # ---- what a test says -------------------------------------------------------------------------------------------------

    async def die(self, unit: Unit, *, restart_after: trio.Event | None = None) -> None:
        """The unit's processes end with a failure; with Restart= systemd starts it again when told."""
        self._kill(unit, signal.SIGKILL)
        unit.result = "signal"
        if restart_after is None:
            await self._become(unit, "failed", "failed")
            return
        await self._become(unit, "activating", "auto-restart")
        assert self._nursery is not None
        self._nursery.start_soon(self._restart, unit, restart_after)

    async def become(self, unit: Unit, active: str, sub: str) -> None:
        """Any other state."""
        await self._become(unit, active, sub)

    async def _restart(self, unit: Unit, when: trio.Event) -> None:
        await when.wait()
        self._run(unit)
        await self._become(unit, "active", "running")

    # ---- being there ------------------------------------------------------------------------------------------------------

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until the bus dies or it is cancelled."""
        async with await open_dbus_connection(self.address) as connection, trio.open_nursery() as nursery:
            self._connection, self._nursery, self._subscribed = connection, nursery, False
            serial = next(connection.outgoing_serial)
            await connection.send(message_bus.RequestName(systemd.NAME), serial=serial)
            with suppress(trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
                while True:
                    message = await connection.receive()
                    if message.header.fields.get(HeaderFields.reply_serial) == serial:
                        task_status.started()
                    elif message.header.message_type is MessageType.method_call:
                        nursery.start_soon(self._answer, message)
            nursery.cancel_scope.cancel()

    def close(self) -> None:
        """No process is left behind."""
        for unit in self.units.values():
            self._kill(unit, signal.SIGKILL)

    async def _answer(self, message: Message) -> None:
        fields = message.header.fields
        member = fields[HeaderFields.member]
        body = tuple(message.body)
        if member not in ("GetAll", "LoadUnit", "Subscribe", "GetUnitProcesses"):
            self.calls.append(" ".join([member, *(str(word) for word in body)]))
        try:
            signature, answer, after = self._do(member, body, fields[HeaderFields.path])
        except KeyError:
            await self._send(new_error(message, "org.freedesktop.systemd1.NoSuchUnit", "s", (f"Unit {body[0]} not found.",)))
            return
        except PermissionError as refusal:
            await self._send(new_error(message, "org.freedesktop.systemd1.OnlyByDependency", "s", (str(refusal),)))
            return
        await self._send(new_method_return(message, signature, answer))
        if after is not None:
            await after()

    def _do(self, member: str, body: tuple[Any, ...], path: str) -> tuple[str, tuple[Any, ...], Any]:
        match member:
            case "Subscribe":
                self._subscribed = True
                return "", (), None
            case "LoadUnit":
                unit = self.units.setdefault(body[0], Unit(body[0], load="not-found"))
                return "o", (unit.path,), None
            case "GetAll":
                return "a{sv}", (self._at(path).properties(),), None
            case "Get" if path == systemd.MANAGER_PATH:
                return "v", ({"SystemState": ("s", self.state)}[body[1]],), None
            case "Get":
                return "v", (self._at(path).service_properties()[body[1]],), None
            case "GetUnitFileState":
                return "s", (self.units[body[0]].file_state,), None
            case "DisableUnitFiles":
                unit = self.units[body[0][0]]
                unit.file_state = unit.file_state if unit.stays_enabled else "disabled"
                return "a(sss)", ([],), None
            case "GetUnitProcesses":
                pids = self.units[body[0]].alive()
                return "a(sus)", ([("/system.slice/" + body[0], pid, "sleep") for pid in pids],), None
            case "ResetFailedUnit":
                self.units[body[0]].active, self.units[body[0]].sub = "inactive", "dead"
                return "", (), None
            case "KillUnit":
                unit = self.units[body[0]]
                self._kill(unit, body[2])
                return "", (), lambda: self._after_kill(unit)
            case "CancelJob":
                unit = next(unit for unit in self.units.values() if unit.job == body[0])
                return "", (), lambda: self._end_job(unit, "canceled")
            case "StartUnit" | "StopUnit":
                unit = self.units[body[0]]
                if member == "StartUnit" and unit.start == "refuse":
                    raise PermissionError("Operation refused, unit may be requested by dependency only.")
                self._jobs += 1
                unit.job = self._jobs
                work = self._start if member == "StartUnit" else self._stop
                return "o", (f"/org/freedesktop/systemd1/job/{unit.job}",), lambda: work(unit)
        raise AssertionError(f"the scripted systemd does not know {member}")

    def _at(self, path: str) -> Unit:
        return next(unit for unit in self.units.values() if unit.path == path)

    # ---- jobs -------------------------------------------------------------------------------------------------------------

    async def _start(self, unit: Unit) -> None:
        if unit.active == "active":
            await self._end_job(unit, "done")
            return
        await self._become(unit, "activating", "start")
        if unit.start == "ok":
            self._run(unit)
            unit.result = "success"
            await self._become(unit, "active", "running")
            await self._end_job(unit, "done")
        elif unit.start == "fail":
            unit.result = "exit-code"
            await self._become(unit, "failed", "failed")
            await self._end_job(unit, "failed")
        elif unit.start == "restart":
            await self._become(unit, "activating", "auto-restart")
            await self._end_job(unit, "failed")
            self._run(unit)
            await self._become(unit, "active", "running")

    async def _stop(self, unit: Unit) -> None:
        if unit.active in ("inactive", "failed"):
            await self._end_job(unit, "done")
            return
        await self._become(unit, "deactivating", "stop-sigterm")
        if unit.stop == "ok":
            self._kill(unit, signal.SIGTERM)
            await self._become(unit, "inactive", "dead")
            await self._end_job(unit, "done")

    async def _after_kill(self, unit: Unit) -> None:
        if unit.job and unit.active == "deactivating":
            await self._become(unit, "failed", "failed")
            await self._end_job(unit, "done")

    async def _end_job(self, unit: Unit, result: str) -> None:
        job, unit.job = unit.job, 0
        body = (job, f"/org/freedesktop/systemd1/job/{job}", unit.name, result)
        await self._emit(systemd.MANAGER_PATH, systemd.MANAGER, "JobRemoved", "uoss", body)

    async def _become(self, unit: Unit, active: str, sub: str) -> None:
        unit.active, unit.sub = active, sub
        changed = {name: value for name, value in unit.properties().items() if name in ("ActiveState", "SubState")}
        await self._emit(unit.path, systemd.PROPERTIES, "PropertiesChanged", "sa{sv}as", (systemd.UNIT, changed, []))

    def _run(self, unit: Unit) -> None:
        unit.runs += 1
        unit.processes.append(subprocess.Popen(list(unit.command), stdin=subprocess.DEVNULL))

    @staticmethod
    def _kill(unit: Unit, number: int) -> None:
        for process in unit.processes:
            if process.poll() is None:
                os.kill(process.pid, number)
                process.wait()

    async def _emit(self, path: str, interface: str, member: str, signature: str, body: tuple[Any, ...]) -> None:
        if self._subscribed:
            await self._send(new_signal(DBusAddress(path, interface=interface), member, signature, body))

    async def _send(self, message: Message) -> None:
        assert self._connection is not None
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._connection.send(message)


@asynccontextmanager
async def on_bus(bus: PrivateBus, fake: ScriptedSystemd) -> AsyncIterator[trio.Nursery]:
    """It serves while this lasts; the nursery given is for the test's own tasks, and is cancelled at the end."""
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(fake.serve)
            yield nursery
            nursery.cancel_scope.cancel()
    finally:
        fake.close()


async def serve_alone(directory: Path, state: str) -> None:
    """Until killed."""
    bus = PrivateBus(directory)
    bus.start()
    fake = ScriptedSystemd(bus.address, ())
    fake.state = state
    async with trio.open_nursery() as nursery:
        await nursery.start(fake.serve)
        (directory / "ready").touch()


if __name__ == "__main__":
    trio.run(serve_alone, Path(sys.argv[1]), sys.argv[2])

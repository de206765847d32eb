"""systemd's Manager over D-Bus: one connection, used by one task, so that no signal overtakes an answer and none is lost.

`connect` gives a Manager; it asks, hears signals, and raises SystemdAway when the bus (or systemd on it) went away: whoever wants to go
on then connects again and looks anew. What systemd refuses is SystemdRefused with its own words. Signals wait in a queue while
something is asked. Without a bus there is still the socket on which systemd listens for its own systemctl, where nobody stands
between: what must be killed can be killed while the bus is dead. Nothing here decides; `service_unit.py` does.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

import trio
from jeepney import DBusAddress, HeaderFields, MatchRule, Message, MessageType, message_bus, new_method_call
from jeepney.auth import BEGIN, make_auth_external
from jeepney.bus import get_bus
from jeepney.io.trio import DBusConnection

from orchestrator.effects import processes

SYSTEM_BUS = "SYSTEM"  # $DBUS_SYSTEM_BUS_ADDRESS, or where a system bus usually is, and then systemd's own socket
DEFAULT_ADDRESSES = "unix:path=/run/dbus/system_bus_socket;unix:path=/run/systemd/private"
DIRECT = "systemd/private"  # the end of the name of a socket with systemd itself at the other end
NAME = "org.freedesktop.systemd1"
MANAGER_PATH = "/org/freedesktop/systemd1"
MANAGER = f"{NAME}.Manager"
UNIT = f"{NAME}.Unit"
SERVICE = f"{NAME}.Service"
PROPERTIES = "org.freedesktop.DBus.Properties"
BUS_NAME = "org.freedesktop.DBus"
BUS_PATH = "/org/freedesktop/DBus"

CONNECT_DEADLINE_S = 5.0
REPLY_DEADLINE_S = 25.0
SUFFIXES = (".service", ".socket", ".target", ".mount", ".automount", ".swap", ".timer", ".path", ".slice", ".scope", ".device")
# With these the bus speaks for a systemd that is not there.
AWAY_ERRORS = ("ServiceUnknown", "NameHasNoOwner", "NoReply", "Disconnected", "TimedOut", "Timeout", "NoServer")


class SystemdAway(Exception):
    """It cannot be asked just now."""


class SystemdRefused(Exception):
    """It said no; `name` is D-Bus' name of the error."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(sentence)
        self.name = name


class Standing(Enum):
    """What a unit's state means to who needs it."""

    UP = auto()
    BETWEEN = auto()  # on its way up or down, or about to be started again: the next state tells
    DOWN = auto()


@dataclass(frozen=True, slots=True)
class UnitState:
    """What systemd says of a unit, as far as it matters here."""

    load: str
    active: str
    sub: str
    job: int = 0  # 0: nothing is queued for it
    invocation: str = ""  # another one each time it is started
    load_error: str = ""

    @property
    def standing(self) -> Standing:
        """Also a unit that is down is on its way while a job is queued for it: somebody restarts it."""
        if self.active in ("active", "reloading", "refreshing"):
            return Standing.UP
        if self.active in ("activating", "deactivating") or self.job:
            return Standing.BETWEEN
        return Standing.DOWN

    def __str__(self) -> str:
        return f"{self.active} ({self.sub})"


def full_name(unit: str) -> str:
    """`postgresql@15-main` is a service, as for systemctl."""
    return unit if unit.endswith(SUFFIXES) else f"{unit}.service"


def systemd_runs() -> bool:
    """Is systemd this machine's init?"""
    return Path("/run/systemd/system").exists() and shutil.which("systemctl") is not None


def can_be_asked(bus: str) -> bool:
    """Is it worth trying? On a machine without systemd only when somebody names a bus."""
    return bus != SYSTEM_BUS or bool(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS")) or systemd_runs()


@asynccontextmanager
async def connect(bus: str = SYSTEM_BUS) -> AsyncIterator[Manager]:
    """A connection of its own, subscribed to what happens to jobs."""
    connection, direct = await _open_first(bus)
    async with connection:
        manager = Manager(connection, direct)
        await manager.begin()
        yield manager


async def _open_first(bus: str) -> tuple[DBusConnection, bool]:
    """The first of the addresses at which somebody answers."""
    addresses = (os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or DEFAULT_ADDRESSES) if bus == SYSTEM_BUS else bus
    trouble: SystemdAway | None = None
    for address in addresses.split(";"):
        try:
            with trio.fail_after(CONNECT_DEADLINE_S):
                return await _open(address), address.endswith(DIRECT)
        except SystemdAway as failure:
            trouble = trouble or failure
        except trio.TooSlowError:
            trouble = trouble or SystemdAway(f"the D-Bus of systemd ({address}) does not answer")
    raise trouble or SystemdAway("no address of a D-Bus is known")


async def _open(address: str) -> DBusConnection:
    stream: trio.SocketStream | None = None
    try:
        stream = await trio.open_unix_socket(get_bus(address))
        # All at once, as systemd's own clients do: systemd overlooks a message that comes together with a BEGIN sent later.
        await stream.send_all(b"\0" + make_auth_external() + BEGIN)
        answer = b""
        while not answer.endswith(b"\r\n"):
            if not (more := await stream.receive_some()):
                raise SystemdAway("the D-Bus hung up on us")
            answer += more
        if not answer.startswith(b"OK "):
            raise SystemdAway(f"the D-Bus of systemd ({address}) does not let us in: {answer.decode(errors='replace').strip()}")
    except BaseException as failure:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        if isinstance(failure, (OSError, RuntimeError, ValueError, trio.BrokenResourceError)):
            raise SystemdAway(f"the D-Bus of systemd ({address}) cannot be reached: {failure}") from failure
        raise
    return DBusConnection(stream.socket)


class Manager:
    """org.freedesktop.systemd1.Manager at the other end of a connection."""

    def __init__(self, connection: DBusConnection, direct: bool = False) -> None:
        self._connection, self._direct = connection, direct
        self._signals: deque[Message] = deque()
        self._followed: set[str] = {MANAGER_PATH, BUS_PATH}

    async def begin(self) -> None:
        """Say hello to the bus, and hear of jobs and of systemd's own end; without a bus systemd says everything to everybody."""
        if self._direct:
            return
        await self._ask(message_bus.Hello())
        await self._match(MatchRule(type="signal", sender=NAME, interface=MANAGER, member="JobRemoved", path=MANAGER_PATH))
        owner = MatchRule(type="signal", sender=BUS_NAME, interface=BUS_NAME, member="NameOwnerChanged", path=BUS_PATH)
        owner.add_arg_condition(0, NAME)
        await self._match(owner)
        await self.call("Subscribe")

    # ---- asking -------------------------------------------------------------------------------------------------------

    async def call(
        self, member: str, signature: str = "", *body: Any, path: str = MANAGER_PATH, interface: str = MANAGER
    ) -> tuple[Any, ...]:
        """A method of the Manager, or of another object of systemd's."""
        address = DBusAddress(path, bus_name=NAME, interface=interface)
        return await self._ask(new_method_call(address, member, signature or None, body))

    async def load(self, unit: str) -> str:
        """The path of the unit's object; there is one also for a unit that does not exist."""
        (path,) = await self.call("LoadUnit", "s", unit)
        return str(path)

    async def follow(self, path: str) -> None:
        """Hear of every change of this unit from now on."""
        self._followed.add(path)
        if not self._direct:
            await self._match(MatchRule(type="signal", sender=NAME, interface=PROPERTIES, member="PropertiesChanged", path=path))

    async def state(self, path: str) -> UnitState:
        """The unit as it is now."""
        (values,) = await self.call("GetAll", "s", UNIT, path=path, interface=PROPERTIES)
        found = {name: value for name, (_, value) in values.items()}
        return UnitState(
            load=found.get("LoadState", ""),
            active=found.get("ActiveState", ""),
            sub=found.get("SubState", ""),
            job=int(found.get("Job", (0, "/"))[0]),
            invocation=bytes(found.get("InvocationID", b"")).hex(),
            load_error=str(found.get("LoadError", ("", ""))[1]),
        )

    async def service_property(self, path: str, name: str) -> Any:
        """A property that only services have; None for other units."""
        try:
            ((_, value),) = await self.call("Get", "ss", SERVICE, name, path=path, interface=PROPERTIES)
        except SystemdRefused:
            return None
        return value

    async def processes_of(self, unit: str) -> list[processes.Process]:
        """Everything that runs in the unit's cgroup."""
        try:
            (found,) = await self.call("GetUnitProcesses", "s", unit)
        except SystemdRefused:  # a unit that is gone altogether
            return []
        return [process for _, pid, _ in found if (process := processes.find(pid)) is not None]

    # ---- jobs ---------------------------------------------------------------------------------------------------------

    async def queue(self, method: str, unit: str) -> str:
        """StartUnit or StopUnit, in the place of whatever is queued; the job's path."""
        (job,) = await self.call(method, "ss", unit, "replace")
        return str(job)

    async def finished(self, job: str) -> str:
        """Wait for the end of a job that this connection queued: done, failed, canceled, timeout, dependency, skipped …"""
        while True:
            signal = await self.signal()
            if signal.header.fields.get(HeaderFields.member) == "JobRemoved" and signal.body[1] == job:
                return str(signal.body[3])

    async def cancel(self, job: str) -> None:
        """It may have ended by itself meanwhile."""
        try:
            await self.call("CancelJob", "u", int(job.rpartition("/")[2]))
        except SystemdRefused:
            pass

    async def signal(self) -> Message:
        """The next thing that happened to what is followed; SystemdAway when systemd itself came or went."""
        while True:
            if not self._signals:
                self._keep(await self._receive())
                continue
            signal = self._signals.popleft()
            if signal.header.fields.get(HeaderFields.member) == "NameOwnerChanged":
                raise SystemdAway("systemd came to the bus anew" if signal.body[2] else "systemd left the bus")
            return signal

    # ---- the wire -----------------------------------------------------------------------------------------------------

    async def _match(self, rule: MatchRule) -> None:
        await self._ask(message_bus.AddMatch(rule))

    async def _ask(self, message: Message) -> tuple[Any, ...]:
        with trio.move_on_after(REPLY_DEADLINE_S):
            serial = next(self._connection.outgoing_serial)
            try:
                await self._connection.send(message, serial=serial)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as broken:
                raise SystemdAway("the D-Bus of systemd broke off") from broken
            while True:
                answer = await self._receive()
                if answer.header.fields.get(HeaderFields.reply_serial) == serial:
                    return _content(answer)
                self._keep(answer)
        raise SystemdAway(f"systemd did not answer {message.header.fields.get(HeaderFields.member)} in {REPLY_DEADLINE_S:.0f} s")

    async def _receive(self) -> Message:
        try:
            return await self._connection.receive()
        except (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError) as broken:
            raise SystemdAway("the D-Bus of systemd broke off") from broken

    def _keep(self, message: Message) -> None:
        """An answer that nobody waits for any more is dropped, and so is what nobody asked to hear."""
        fields = message.header.fields
        followed = message.header.message_type is MessageType.signal and fields.get(HeaderFields.path) in self._followed
        if followed and fields.get(HeaderFields.member) in ("JobRemoved", "PropertiesChanged", "NameOwnerChanged"):
            self._signals.append(message)


def _content(answer: Message) -> tuple[Any, ...]:
    if answer.header.message_type is not MessageType.error:
        return tuple(answer.body)
    name = str(answer.header.fields.get(HeaderFields.error_name, ""))
    sentence = str(answer.body[0]) if answer.body else name
    kind = name.removeprefix("org.freedesktop.DBus.Error.")
    if kind in AWAY_ERRORS or kind.startswith("Spawn."):
        raise SystemdAway(f"systemd cannot be asked: {sentence}")
    raise SystemdRefused(name, sentence)

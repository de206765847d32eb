"""Everything that can happen. Each event carries the time at which it was seen (monotonic seconds)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from orchestrator.core.rules_language import ResourceState
from orchestrator.core.states import Lane, Point, RfsView, State, Summary

NOBODY: Final = -1  # the request of a command that a rule gives: nobody waits for an answer


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened at `now`."""

    now: float


@dataclass(frozen=True, slots=True)
class Tick(Event):
    """Time passed."""


@dataclass(frozen=True, slots=True)
class Paused(Event):
    """This process stood still for `late_s` (stopped, a suspended machine): what it knew may be history."""

    late_s: float
    pulses: int = 0  # our newest heartbeat counter: only what answers a later one was said after the pause


@dataclass(frozen=True, slots=True)
class Heartbeat(Event):
    """A checked heartbeat of the peer."""

    network: str
    incarnation: int
    counter: int
    echo: int  # the newest of our own counters that the peer had heard on this network; 0 = none of this incarnation
    modules: Mapping[str, Summary]


@dataclass(frozen=True, slots=True)
class PeerTold(Event):
    """The peer said the same as in a heartbeat over the call channel, because it could not wait for the next pulse."""

    incarnation: int
    counter: int
    modules: Mapping[str, Summary]


@dataclass(frozen=True, slots=True)
class PingVerdict(Event):
    """Did any ping address answer in the last two seconds?"""

    ok: bool


@dataclass(frozen=True, slots=True)
class ModuleEvent(Event):
    """Something happened to one module."""

    module: str


@dataclass(frozen=True, slots=True)
class Found(ModuleEvent):
    """What was there when hactld started, or what the disk says now."""

    wanted: bool
    has_record: bool
    holds_files: bool
    rfs_runs: bool
    services_run: bool
    address_held: bool
    paused: bool = False
    led: bool = False
    boot: str = ""
    unchecked: bool = False
    entered: frozenset[Point] = frozenset()
    announced: State = State.STOP


@dataclass(frozen=True, slots=True)
class Command(ModuleEvent):
    """A command; `request` is answered by exactly one Reply. `checker`: not an administrator's but a checker's or script's, by that name:
    then it counts against max_restarts, and it is refused when there were too many."""

    request: int
    checker: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class Start(Command):
    """Run the module in the role that the data allow."""


@dataclass(frozen=True, slots=True)
class Stop(Command):
    """Stop the module here; a Ready peer takes over first."""


@dataclass(frozen=True, slots=True)
class Restart(Command):
    """Stop and start the services here, or only some of them; roles and address stay."""

    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StopStart(Command):
    """Stop the module here and start it again; a Ready peer takes over meanwhile."""


@dataclass(frozen=True, slots=True)
class Switch(Command):
    """A maintenance switch of this node: `failover` on|off, `checkers` on|off, `boot` on|off|auto|config. It survives restarts."""

    switch: str
    value: str


@dataclass(frozen=True, slots=True)
class Count(Command):
    """A script counts a failure, asks whether there were too many, or says that all is well again: `what` is count, check or reset."""

    what: str


@dataclass(frozen=True, slots=True)
class Swap(Command):
    """Exchange the roles. `nosync`: also with a peer whose copy is not in sync, which then serves what it has."""

    nosync: bool = False


@dataclass(frozen=True, slots=True)
class Prim(Command):
    """This node has the data: serve. `fullsync`: and the peer's whole copy is compared with it when it comes."""

    force: bool = False
    fullsync: bool = False


@dataclass(frozen=True, slots=True)
class Second(Command):
    """Run as secondary; with fullsync, files found here move aside and everything comes from the peer."""

    fullsync: bool = False


@dataclass(frozen=True, slots=True)
class PeerAskedPromote(Command):
    """The peer demoted itself and hands the role over; `force`: though this copy is not in sync, by an administrator's word."""

    force: bool = False


@dataclass(frozen=True, slots=True)
class PeerAskedOutdate(Command):
    """The peer is primary, lost the data link and wants to go on without us."""


@dataclass(frozen=True, slots=True)
class RfsStatus(ModuleEvent):
    """rfsmount said how it is."""

    session: int
    view: RfsView


@dataclass(frozen=True, slots=True)
class RfsGone(ModuleEvent):
    """rfsmount ended (seen by its pidfd), or its control socket is closed for good."""

    session: int
    reason: str
    has_record: bool
    holds_files: bool


@dataclass(frozen=True, slots=True)
class ServiceDied(ModuleEvent):
    """A service that was up is not any more."""

    service: str
    reason: str


@dataclass(frozen=True, slots=True)
class Checked(ModuleEvent):
    """A checker's verdict on a resource; `window`: of the looks since which opening of its window. None: somebody says so, now."""

    resource: str
    state: ResourceState
    text: str
    window: int | None = None


@dataclass(frozen=True, slots=True)
class AddressLost(ModuleEvent):
    """The service address is gone from the interface, or another machine answers for it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Done(ModuleEvent):
    """The action with this ticket succeeded."""

    lane: Lane
    ticket: int


@dataclass(frozen=True, slots=True)
class Failed(ModuleEvent):
    """The action with this ticket failed; `reason` is one sentence. `refused`: asking again at once is pointless."""

    lane: Lane
    ticket: int
    reason: str
    refused: bool = False

"""Everything that can be ordered.

An action with a ticket belongs to a lane of its module and is answered by exactly one Done or Failed, unless a newer
action of the same lane replaces it. The others are told and forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.core.states import Lane, Memory, Move, Point


@dataclass(frozen=True, slots=True)
class Action:
    """Something to be done for a module."""

    module: str


@dataclass(frozen=True, slots=True)
class Ticketed(Action):
    """Answered by Done or Failed with the same lane and ticket."""

    ticket: int


@dataclass(frozen=True, slots=True)
class StartRfs(Ticketed):
    """Start rfsmount (or connect to the one that runs) and report its status under this session."""

    session: int
    role: str
    replace_data: bool = False


@dataclass(frozen=True, slots=True)
class StopRfs(Ticketed):
    """Orderly goodbye, unmount, exit."""


@dataclass(frozen=True, slots=True)
class PromoteRfs(Ticketed):
    """Make the data side primary. granted: the orchestrator vouches that the peer is gone, or an administrator does."""

    granted: bool
    force: bool
    reason: str


@dataclass(frozen=True, slots=True)
class DemoteRfs(Ticketed):
    """Make the data side secondary; done when that is durable and the peer holds our consent to promote. `alone`: without the peer, whose
    copy is not in sync."""

    alone: bool = False


@dataclass(frozen=True, slots=True)
class GrantRfs(Ticketed):
    """Let a frozen primary go on alone."""

    peer_outdated: bool
    reason: str


@dataclass(frozen=True, slots=True)
class OutdateRfs(Ticketed):
    """Write OUTDATED: the peer will go on without this copy."""

    reason: str


@dataclass(frozen=True, slots=True)
class FenceRfs(Ticketed):
    """The peer owns the data: abort the mount, never acknowledge again."""

    reason: str


@dataclass(frozen=True, slots=True)
class RecopyRfs(Ticketed):
    """Forget what is known of the peer's copy: the next session compares everything."""


@dataclass(frozen=True, slots=True)
class AskPeerPromote(Ticketed):
    """Ask the peer's hactld to take the role that was just given up. `force`: with the copy that it has."""

    force: bool = False


@dataclass(frozen=True, slots=True)
class AskPeerOutdate(Ticketed):
    """Ask the peer's hactld to outdate its copy."""


@dataclass(frozen=True, slots=True)
class VipUp(Ticketed):
    """Probe, add, announce. `granted`: an answer to the probe from the peer's own machine is overridden. `handed`: the peer has just given
    the address back in order, so it is taken at once and probed for at the same time; a foreign answer takes it away again."""

    granted: bool
    handed: bool = False


@dataclass(frozen=True, slots=True)
class ProbeVip(Action):
    """This node may soon have to take the addresses over: ask now whether a foreign machine has them."""


@dataclass(frozen=True, slots=True)
class VipDown(Ticketed):
    """Remove the addresses; fine if they are gone already."""


@dataclass(frozen=True, slots=True)
class KeepVip(Action):
    """Renew the lifetime of the addresses: ordered only while the role is certain, so a doubtful node loses them by itself."""


@dataclass(frozen=True, slots=True)
class StartServices(Ticketed):
    """Start what is not running yet, in order, and wait until it is ready."""


@dataclass(frozen=True, slots=True)
class StopServices(Ticketed):
    """Stop everything in reverse order; `kill`: no questions asked."""

    kill: bool


@dataclass(frozen=True, slots=True)
class RestartServices(Ticketed):
    """Stop these in reverse order and start them in order, while the others stay up."""

    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunScript(Ticketed):
    """Run the administrator's script of that name, if there is one. A stop script is called once more with `force`; `force`: only so.
    `entered` is what holds once it has run: it outlives hactld."""

    script: str
    move: Move
    force: bool
    entered: frozenset[Point]


@dataclass(frozen=True, slots=True)
class RefreshRfs(Action):
    """Ask rfsmount for its status now."""


@dataclass(frozen=True, slots=True)
class Remember(Action):
    """It outlives hactld; durable before whoever asked for it is answered."""

    memory: Memory


@dataclass(frozen=True, slots=True)
class Reply(Action):
    """The answer to a command: an exit code of the CLI and a sentence."""

    request: int
    code: int
    message: str


@dataclass(frozen=True, slots=True)
class TellPeer(Action):
    """What we say about our modules changed: send heartbeats now; `call`: over the call channel as well."""

    call: bool


@dataclass(frozen=True, slots=True)
class Notify(Action):
    """One line for people: the log, the history. `inputs`: what a decision rested on (explain.evidence)."""

    kind: str
    text: str
    inputs: Mapping[str, Any] | None = None


LANE_OF: dict[type[Ticketed], Lane] = {
    StartRfs: Lane.RFS,
    StopRfs: Lane.RFS,
    PromoteRfs: Lane.ROLE,
    DemoteRfs: Lane.ROLE,
    GrantRfs: Lane.ROLE,
    OutdateRfs: Lane.ROLE,
    FenceRfs: Lane.ROLE,
    RecopyRfs: Lane.ROLE,
    AskPeerPromote: Lane.ROLE,
    AskPeerOutdate: Lane.ROLE,
    VipUp: Lane.ADDRESS,
    VipDown: Lane.ADDRESS,
    StartServices: Lane.SERVICES,
    StopServices: Lane.SERVICES,
    RestartServices: Lane.SERVICES,
    RunScript: Lane.SCRIPTS,
}

"""What would happen if …: the real core, from the state it is in, in a world that is imagined.

The world is a hopeful one: every order succeeds at once, and the peer does what it is asked, if it is there. What is not hopeful is
what the question is about. So the answer tells what this node would decide and order, and when; not how long the services take. Nothing
is ordered for real.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from orchestrator.core import actions as act
from orchestrator.core import events as ev
from orchestrator.core.machine import step
from orchestrator.core.rules_language import ResourceState
from orchestrator.core.states import RfsView
from orchestrator.core.turn import Node

TICK_S = 0.25
LONGEST_S = 60.0
ALL_HEARD = 2**60
QUIET_S = 8.0  # nothing more is ordered for so long: it is over

WORDS: Final[dict[type[act.Action], str]] = {
    act.StartRfs: "start rfsmount",
    act.StopRfs: "stop rfsmount",
    act.PromoteRfs: "make this copy primary",
    act.DemoteRfs: "make this copy secondary",
    act.GrantRfs: "let the waiting primary go on alone",
    act.OutdateRfs: "write down that this copy is old",
    act.FenceRfs: "abort the mount: the peer owns the data",
    act.RecopyRfs: "have the peer's whole copy compared",
    act.AskPeerPromote: "ask the peer to take the role",
    act.AskPeerOutdate: "ask the peer to write down that its copy is old",
    act.VipUp: "put the address up",
    act.VipDown: "take the address down",
    act.StartServices: "start the services",
    act.StopServices: "stop the services",
    act.RestartServices: "restart some of the services",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """After so many seconds, this."""

    after_s: float
    kind: str  # order, says, state, answer
    text: str


class Imagined:
    """One run."""

    def __init__(self, node: Node, module: str, resource: str = "") -> None:
        self.node, self.module, self.resource = node, module, resource
        self.began = self.now = node.around.now
        self.moments: list[Moment] = []
        self.peer_speaks, self.ping_answers = not node.around.peer_silent, node.around.ping_ok
        self._queue: deque[ev.Event] = deque()

    @property
    def view(self) -> RfsView | None:
        """The imagined rfsmount's status."""
        return self.node.modules[self.module].view

    def tell(self, kind: str, text: str) -> None:
        """Something for the answer."""
        self.moments.append(Moment(round(self.now - self.began, 2), kind, text))

    def send(self, event: ev.Event) -> None:
        """An event, and all that follows from it at once."""
        self._queue.append(event)
        while self._queue:
            before = self.node.modules[self.module].shown
            self.node, actions = step(self.node, self._queue.popleft())
            for action in actions:
                self._perform(action)
            shown = self.node.modules[self.module].shown
            if shown != before:
                self.tell("state", f"{shown[0].value} {shown[1].value}")

    def _perform(self, action: act.Action) -> None:
        if action.module != self.module:
            return
        match action:
            case act.RunScript():  # the core does not know which scripts there are
                self._queue.append(ev.Done(self.now, self.module, act.LANE_OF[act.RunScript], action.ticket))
            case act.Ticketed():
                self.tell("order", WORDS[type(action)])
                if (view := self._after(action)) is not None:
                    self._queue.append(ev.RfsStatus(self.now, self.module, self.node.modules[self.module].rfs_session, view))
                if self.peer_speaks or not isinstance(action, act.AskPeerPromote | act.AskPeerOutdate):
                    self._queue.append(ev.Done(self.now, self.module, act.LANE_OF[type(action)], action.ticket))
            case act.Reply():
                self.tell("answer", action.message)
            case act.Notify() if action.kind != "transition":
                self.tell("says", action.text)

    def _after(self, action: act.Ticketed) -> RfsView | None:
        """rfsmount's status once it has done this; None: the same."""
        view = self.view
        match action:
            case act.StartRfs():
                return RfsView(data="CONSISTENT", generation=view.generation if view else "0", term=view.term if view else 0)
            case act.PromoteRfs() | act.GrantRfs() if view is not None:
                in_session = view.linked and view.consent
                mode = "paired" if in_session else "alone"
                return replace(view, role="primary", mode=mode, link=mode, term=view.term + 1, needs_grant=False, consent=False)
            case act.DemoteRfs() if view is not None:
                return replace(view, role="secondary", mode="idle")
            case act.OutdateRfs() if view is not None:
                return replace(view, data="OUTDATED")
            case act.FenceRfs() if view is not None:
                return replace(view, role="secondary", mode="idle", link="connecting", needs_grant=False)
        return None

    def lose_link(self) -> None:
        """The data link breaks."""
        view = self.view
        if view is None or not view.linked:
            return
        if view.leads:
            waits = view.mode == "paired"
            lost = replace(view, mode="frozen" if waits else "alone", link="frozen" if waits else "alone", needs_grant=waits)
        else:
            lost = replace(view, link="connecting", data=view.data if view.link == "paired" else "INCONSISTENT")
        self.send(ev.RfsStatus(self.now, self.module, self.node.modules[self.module].rfs_session, lost))

    def _look(self) -> None:
        """What is looked at anew is up, but for the resource in question: that stays down."""
        for name, known in self.node.modules[self.module].resources.items():
            if known.state is ResourceState.INIT:
                state = ResourceState.DOWN if name == self.resource else ResourceState.UP
                self.send(ev.Checked(self.now, self.module, name, state, "", known.window))

    def pass_time(self) -> None:
        """Until nothing happens any more."""
        quiet_since, told = self.now, len(self.moments)
        while self.now - self.began < LONGEST_S and self.now - quiet_since < QUIET_S:
            self.now += TICK_S
            if self.peer_speaks:
                detector = self.node.detector
                counter = 1 + max(heard.counter for heard in detector.networks.values())
                for network in detector.networks:
                    self.send(ev.Heartbeat(self.now, network, detector.incarnation, counter, ALL_HEARD, self.node.peer_modules))
            self._look()
            self.send(ev.PingVerdict(self.now, self.ping_answers))
            self.send(ev.Tick(self.now))
            if len(self.moments) != told:
                quiet_since, told = self.now, len(self.moments)


def peer_dies(world: Imagined) -> None:
    """The other node loses its power."""
    world.peer_speaks = False
    world.lose_link()


def link_is_lost(world: Imagined) -> None:
    """The replication network breaks; heartbeats go on elsewhere. A primary over there goes on without us, and says so."""
    follows = world.view is not None and world.view.linked and not world.view.leads
    world.lose_link()
    if follows:
        world.send(ev.PeerAskedOutdate(world.now, world.module, 0))


def isolated(world: Imagined) -> None:
    """This node is cut off from everything."""
    world.peer_speaks = world.ping_answers = False
    world.lose_link()


def service_dies(world: Imagined) -> None:
    """A service of the module ends."""
    world.send(ev.ServiceDied(world.now, world.module, "a service", "it ended"))


def resource_goes_down(world: Imagined) -> None:
    """A checker finds its resource down, and it stays so."""
    world.send(ev.Checked(world.now, world.module, world.resource, ResourceState.DOWN, "imagined"))


def rfs_dies(world: Imagined) -> None:
    """rfsmount is killed."""
    session = world.node.modules[world.module].rfs_session
    world.send(ev.RfsGone(world.now, world.module, session, "rfsmount died", True, True))


def commanded(kind: type[ev.Command]) -> Callable[[Imagined], None]:
    """An administrator's word."""
    return lambda world: world.send(kind(world.now, world.module, 0))


QUESTIONS: Final[dict[str, Callable[[Imagined], None]]] = {
    "peer-dies": peer_dies,
    "link-lost": link_is_lost,
    "isolated": isolated,
    "service-dies": service_dies,
    "rfs-dies": rfs_dies,
    "resource-down": resource_goes_down,
    "stop": commanded(ev.Stop),
    "swap": commanded(ev.Swap),
    "stopstart": commanded(ev.StopStart),
}


def imagine_command(node: Node, module: str, make: Callable[[float, int], ev.Command]) -> tuple[tuple[Moment, ...], Node]:
    """The same for an administrator's word with its options."""
    world = Imagined(node, module)
    world.send(make(world.now, 0))
    world.pass_time()
    return tuple(world.moments), world.node


def imagine(node: Node, module: str, what: str, resource: str = "") -> tuple[tuple[Moment, ...], Node]:
    """What this node would do, and what it would be in the end. `what` is one of QUESTIONS; `resource`: which one goes down."""
    world = Imagined(node, module, resource)
    QUESTIONS[what](world)
    world.pass_time()
    return tuple(world.moments), world.node

"""What a step works on: the whole Node (frozen, between steps), and a Turn (one module during one step, collecting its actions)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from orchestrator.core import actions as act
from orchestrator.core import events as ev
from orchestrator.core import explain
from orchestrator.core import failover_rules as rules
from orchestrator.core.detector import Detector
from orchestrator.core.states import Lane, Module, Order, Summary, Surroundings

SAME_AGAIN_S: Final = 60.0
DONE, FAILED, REFUSED = 0, 1, 6  # exit codes of the CLI, see docs/interfaces.md
RETRY_S: Final = {Lane.RFS: 2.0, Lane.ROLE: 1.0, Lane.ADDRESS: 2.0, Lane.SERVICES: 1.0, Lane.SCRIPTS: 2.0}


@dataclass(frozen=True, slots=True)
class Node:
    """One hactld's whole mind."""

    around: Surroundings
    detector: Detector
    modules: Mapping[str, Module]
    reasons: Mapping[str, str] = field(default_factory=dict)
    peer_modules: Mapping[str, Summary] = field(default_factory=dict)
    tickets: int = 0

    def summaries(self) -> dict[str, Summary]:
        """What the heartbeats say: nothing yet about a module of which it is not known what runs."""
        return {name: rules.summary(module, self.reasons.get(name, "")) for name, module in self.modules.items() if module.found}


class Turn:
    """One module during one step: its facts so far, and the actions ordered so far."""

    def __init__(self, module: Module, around: Surroundings, peer: Summary | None, tickets: int) -> None:
        self.module, self.around, self.peer, self.tickets = module, around, peer, tickets
        self.actions: list[act.Action] = []
        self.call_peer = False

    def set(self, **changes: Any) -> None:
        """New facts, if they are."""
        if any(getattr(self.module, name) != value for name, value in changes.items()):
            self.module = replace(self.module, **changes)

    def order(self, kind: type[act.Ticketed], **parameters: Any) -> None:
        """Order an action; whatever ran in its lane is replaced by it."""
        self.tickets += 1
        self.set(tickets={**self.module.tickets, act.LANE_OF[kind]: self.tickets})
        self.actions.append(kind(self.module.name, self.tickets, **parameters))

    def order_role(self, order: Order, kind: type[act.Ticketed], **parameters: Any) -> None:
        """The same in the ROLE lane, remembering what is under way."""
        self.set(order=order)
        self.order(kind, **parameters)

    def forget_role(self) -> None:
        """What is under way in the ROLE lane no longer matters, however it ends."""
        self.set(order=None, tickets={lane: ticket for lane, ticket in self.module.tickets.items() if lane is not Lane.ROLE})

    def pause(self, lane: Lane) -> None:
        """Do not try this lane again at once."""
        self.set(retry_at={**self.module.retry_at, lane: self.around.now + RETRY_S[lane]})

    def note(self, kind: str, text: str) -> None:
        """A line for people."""
        self.actions.append(act.Notify(self.module.name, kind, text))

    def decided(self, kind: str, text: str) -> None:
        """The same of a decision, with what it rests on. One that comes to nothing and is made again and again is told now and then."""
        last, told, at = self.module.decided
        if (last, told) == (kind, text) and self.around.now - at < SAME_AGAIN_S:
            return
        self.set(decided=(kind, text, self.around.now))
        inputs = explain.evidence(self.module, self.around, self.peer)
        self.actions.append(act.Notify(self.module.name, kind, text, inputs))

    def reply(self, request: int, code: int, message: str) -> None:
        """Answer a command, if somebody waits for an answer."""
        if request != ev.NOBODY:
            self.actions.append(act.Reply(self.module.name, request, code, message))

    def answer_peer(self, code: int, message: str) -> None:
        """Answer the peer's requests that waited for the order under way."""
        for request in self.module.asked:
            self.reply(request, code, message)
        self.set(asked=())

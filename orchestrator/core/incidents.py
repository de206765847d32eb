"""What follows from the failover rules that an administrator wrote, and from those that every checker brings along.

A rule that holds is an *incident*, from that moment until it holds no more. When it has held for its `hold`, its action follows, once per
incident: `restart`, `stopstart`, `stop` and `swap` are the commands of those names, given by a checker, so each counts against
`max_restarts`, and one too many gives the services up here. What cannot be done now (a swap to a peer that could not serve) waits, as
long as the rule holds.

`wait` is no command but a fact: *this node must not serve*. It lasts as long as the rule holds and ends by itself.

- A primary hands over to a peer that can take the role. Where none can, it depends on what the rule speaks of. With something of the
  node's own down (a file system, a device) it stops serving: address and services go, the data side stays as it is, so the copies remain
  mirrored and nothing has to be decided anew; what it shows is WAIT NotReady. A rule that *compares* (it has a remote term) says that the
  peer is better off: then it goes on, because bad service is better than none.
- A secondary keeps mirroring, shows WAIT NotReady, and takes no role by itself. Only what the peer hands over it takes, without serving:
  the data side has to be somewhere, and goes back as soon as the peer can serve.
- Before the resource was spoken of (init) a node that does not serve does not begin to; one that serves goes on: a restarted hactld knows
  nothing for a moment, and that is no reason to stop anything.

To and fro: a node whose rule says wait, stop, stopstart or swap is *unfit*, says so in its heartbeats, and is handed nothing. Whatever a
rule takes down counts as a failure, so a resource that flaps ends like a service that dies again and again: given up here, until somebody
looks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from orchestrator.core import actions as act
from orchestrator.core import events as ev
from orchestrator.core import explain, resources
from orchestrator.core import failover_rules as rules
from orchestrator.core import meanings as on
from orchestrator.core.rules_language import ResourceState, Rule, Term
from orchestrator.core.states import Hold, Incident, Module, Summary, Surroundings
from orchestrator.core.turn import Turn

LEAVING: Final = frozenset({"wait", "stop", "stopstart", "swap"})  # what keeps a node from being handed the role


@dataclass(frozen=True, slots=True)
class Judged:
    """A rule and how it stands now; `why_not`: what is in the way of its action, when it holds."""

    rule: Rule
    all: tuple[tuple[Term, bool], ...]
    any: tuple[tuple[Term, bool], ...]
    holds: bool
    held_s: float
    acted: bool
    why_not: str


def judged(module: Module, around: Surroundings, peer: Summary | None) -> tuple[Judged, ...]:
    """Every rule of the module, for people."""
    here, there = resources.here(module), resources.there(module, around, peer)

    def truth(terms: tuple[Term, ...]) -> tuple[tuple[Term, bool], ...]:
        return tuple((term, term.holds(here, there)) for term in terms)

    found = []
    for rule in module.rules:
        incident, holds = module.incidents.get(rule.name), rule.holds(here, there)
        held_s = around.now - incident.since if incident is not None else 0.0
        acted = incident is not None and incident.acted
        why_not = why_not_yet(rule, module, around, peer, held_s) if holds and not acted else ""
        found.append(Judged(rule, truth(rule.all), truth(rule.any), holds, held_s, acted, why_not))
    return tuple(found)


# ---- decisions --------------------------------------------------------------------------------------------------------


def holding(module: Module, around: Surroundings, peer: Summary | None) -> dict[str, Incident]:
    """The rules that hold now, each since when."""
    here, there = resources.here(module), resources.there(module, around, peer)
    return {rule.name: module.incidents.get(rule.name) or Incident(around.now) for rule in module.rules if rule.holds(here, there)}


def has_held(rule: Rule, module: Module, now: float) -> bool:
    """For long enough?"""
    incident = module.incidents.get(rule.name)
    return incident is not None and now - incident.since >= rule.hold_s


def bars(rule: Rule, module: Module, around: Surroundings, peer: Summary | None) -> bool:
    """Must this node not serve, because of this rule?"""
    if rule.action != "wait" or not has_held(rule, module, around.now):
        return False
    return not rule.compares or (peer is not None and not around.peer_silent and peer.serves) or rules.may_hand_over(module, around, peer)


def barred(module: Module, around: Surroundings, peer: Summary | None) -> str:
    """Why this node must not serve; empty: it may."""
    return next((told(rule, module) for rule in module.rules if bars(rule, module, around, peer)), "")


def awaited(module: Module) -> str:
    """A resource of which a `wait` rule needs to know before this node serves, and nothing was said yet."""
    names = (term.resource for rule in module.rules if rule.action == "wait" for term in rule.terms if not term.remote)
    return resources.first_in(module, names, ResourceState.INIT)


def unfit(module: Module) -> str:
    """Why the peer should not hand over to this node. At once, not after the rule's `hold`: to wait with a hand-over costs nothing."""
    return next((told(rule, module) for rule in module.rules if rule.action in LEAVING and rule.name in module.incidents), "")


def told(rule: Rule, module: Module) -> str:
    """Its reason in a sentence: what is down, in the checker's own words where there are some."""
    for term in rule.terms:
        resource = module.resources.get(term.resource)
        if not term.remote and resource is not None and resource.text and resource.state is not ResourceState.UP:
            return f"{term.resource} is {resource.state.value}: {resource.text}" + by_rule(rule, term.resource)
    return f"{rule.text}{by_rule(rule, rule.text.partition(' ')[0])}"


def by_rule(rule: Rule, resource: str) -> str:
    """The rule's name where it does not say itself what it is about."""
    return "" if rule.name == resource else f" (rule {rule.name})"


def why_not_yet(rule: Rule, module: Module, around: Surroundings, peer: Summary | None, held_s: float) -> str:
    """What is in the way of a rule's action; empty: nothing."""
    if rule.action == "none":
        return "its action is none"
    if module.unchecked:
        return "the checkers are off"
    if held_s < rule.hold_s:
        return f"it has to hold for {rule.hold_s:g} s"
    if rule.action == "wait":
        return "" if bars(rule, module, around, peer) else f"{around.peer} is not better off now, so this node goes on"
    if module.services_failed:
        return f"the services are given up here already; 'hactl restart {module.name}' tries again"
    return WHY_NOT[rule.action](module, around, peer)


def why_no_restart(module: Module, around: Surroundings, peer: Summary | None) -> str:
    """Restart: services that are up, and stay up."""
    if module.services is Hold.OFF or module.services is Hold.GOING:
        return "the services do not run here"
    if module.services is Hold.COMING or module.restarting or module.partial:
        return "the services are on their way"
    return "" if module.runs and not module.swapping else "the services are going down"


def why_no_stop(module: Module, around: Surroundings, peer: Summary | None) -> str:
    """Stop and stopstart: what is not going down already."""
    return "" if module.runs and not module.swapping else f"{module.name} is going down"


def why_no_swap(module: Module, around: Surroundings, peer: Summary | None) -> str:
    """Swap: only to a peer that can take it."""
    if module.view is None or not module.view.leads:
        return "this node is not primary"
    if module.swapping or not module.runs:
        return "the role is going already"
    return rules.why_not_handed_over(module, around, peer)


WHY_NOT: Final[dict[str, Callable[[Module, Surroundings, Summary | None], str]]] = {
    "restart": why_no_restart,
    "stop": why_no_stop,
    "stopstart": why_no_stop,
    "swap": why_no_swap,
}


# ---- a turn -----------------------------------------------------------------------------------------------------------


def settle(turn: Turn) -> None:
    """Open and close windows, see which rules hold, and let follow what follows."""
    settle_windows(turn)
    if not turn.module.rules:
        return
    turn.set(incidents=holding(turn.module, turn.around, turn.peer))
    settle_stance(turn)
    for rule in turn.module.rules:
        incident = turn.module.incidents.get(rule.name)
        if incident is not None and not incident.acted:
            held_s = turn.around.now - incident.since
            if not why_not_yet(rule, turn.module, turn.around, turn.peer, held_s):
                follow(turn, rule, incident)
                settle_stance(turn)


def settle_windows(turn: Turn) -> None:
    """Facts open and close them."""
    if not turn.module.watched:
        return
    if not resources.is_looked_at(turn.module):
        now_looked_at = resources.looked_at(turn.module, turn.around.now)
        opened = any(name not in turn.module.resources for name in now_looked_at)
        turn.set(resources=now_looked_at, windows=turn.module.windows + opened)


def settle_stance(turn: Turn) -> None:
    """May this node serve, and be handed the role? With the checkers off nothing counts that they found. What it takes down, failed."""
    before = turn.module
    if before.unchecked:
        turn.set(barred="", awaited="", unfit="")
        return
    why = barred(before, turn.around, turn.peer)
    turn.set(barred=why, awaited=awaited(before), unfit=unfit(before))
    held = before.services is not Hold.OFF or before.address is not Hold.OFF
    if why and not before.barred and held and before.runs and not before.swapping:
        on.count_service_failure(turn, why)
        if not turn.module.services_failed:
            turn.set(problem=before.problem)  # the reason is told as long as it lasts, and no longer


def follow(turn: Turn, rule: Rule, incident: Incident) -> None:
    """A rule's action, once per incident."""
    module = turn.module
    turn.set(incidents={**module.incidents, rule.name: replace(incident, acted=True)})
    why = told(rule, module)
    more = why[len(rule.text) :] if why.startswith(rule.text) else f"; {why}"
    said = f"rule {rule.name}: {rule.action}, because {rule.text}{more}"
    turn.actions.append(act.Notify(module.name, "rule", said, explain.evidence(module, turn.around, turn.peer)))
    who = f"rule {rule.name}"
    match rule.action:
        case "wait":
            pass  # the stance says it all
        case "restart":
            on.restart(turn, ev.Restart(turn.around.now, module.name, ev.NOBODY, rule.services, checker=who))
        case "stop":
            on.leave(turn, ev.Stop(turn.around.now, module.name, ev.NOBODY, checker=who))
        case "stopstart":
            on.cycle(turn, ev.StopStart(turn.around.now, module.name, ev.NOBODY, checker=who))
        case "swap":
            on.swap(turn, ev.Swap(turn.around.now, module.name, ev.NOBODY, checker=who))
        case other:
            raise AssertionError(f"no action {other}")

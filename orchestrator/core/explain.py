"""Why is it so, and what would be decided now: the questions of failover_rules, each taken apart into its conditions.

Nothing decides here. An explanation's verdict must be that of the rule it explains (tests/property/test_explain.py walks through random
states), so what people read is what the machine does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.core import failover_rules as rules
from orchestrator.core import resources
from orchestrator.core.states import Module, Readiness, State, Summary, Surroundings, Wish


@dataclass(frozen=True, slots=True)
class Condition:
    """What must be so, and whether it is."""

    text: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """A question; it is answered by yes when every condition holds."""

    question: str
    conditions: tuple[Condition, ...]

    @property
    def verdict(self) -> bool:
        """Yes?"""
        return all(condition.holds for condition in self.conditions)


def explain(module: Module, around: Surroundings, peer: Summary | None) -> tuple[Explanation, ...]:
    """The questions that matter for what this node is now."""
    view = module.view
    if view is None:
        return (start(module, around, peer),)
    if not view.leads:
        return (takeover(module, around, peer),)
    if view.needs_grant:
        return (going_alone(module, around, peer),)
    return hand_over(module, around, peer), give_back(module, around, peer)


def start(module: Module, around: Surroundings, peer: Summary | None) -> Explanation:
    """failover_rules.why_not_started."""
    reason = rules.why_not_started(module, around, peer)
    return Explanation("May rfsmount be started here?", (Condition(reason or "nothing stands against it", not reason),))


def takeover(module: Module, around: Surroundings, peer: Summary | None) -> Explanation:
    """failover_rules.promotion, without an administrator's word."""
    view, other = module.view, around.peer
    assert view is not None
    dead = peer is not None and peer.yielded
    peer_serves = peer is not None and peer.serves and not around.peer_silent
    handed = Condition(f"{other} handed the role over", view.consent and not peer_serves)
    common: tuple[Condition, ...] = (
        Condition(f"{module.name} is wanted here", module.runs and not module.swapping),
        Condition("this node is secondary", not view.serves and view.role != "primary"),
        Condition("automatic failover is not paused", not module.paused),
    )
    if handed.holds:
        return Explanation("May this node take the role by itself?", (*common, handed))
    common = (
        *common,
        Condition("this copy was in sync in this run", view.complete),
        Condition(f"there is no data link with {other}", not view.linked),
        Condition("this process did not stand still a moment ago", not around.unsure),
        Condition("no failover rule says that this node must not serve", not rules.must_not_serve(module)),
    )
    if not around.peer_silent:
        lost = Condition(f"{other} is silent on every network, or says that its rfsmount is dead", dead)
        return Explanation("May this node take the role by itself?", (*common, lost))
    return Explanation(
        "May this node take the role by itself?",
        (*common, Condition(f"{other} is silent on every network", True), *silence(module, around)),
    )


def silence(module: Module, around: Surroundings) -> tuple[Condition, ...]:
    """What the peer's silence must come with to be believed."""
    by_policy = around.policy == "availability" or around.has_witness
    conditions = [
        Condition("a witness decides" if around.has_witness else "the policy is availability", by_policy),
        Condition(
            "it is known that the peer acknowledged nothing without this node"
            if not around.has_witness
            else "the witness knows who went on",
            rules.may_trust_silence(module, around),
        ),
    ]
    if around.has_ping:
        conditions.append(Condition("a ping address answers, and has for long enough", not around.isolated))
    return tuple(conditions)


def going_alone(module: Module, around: Surroundings, peer: Summary | None) -> Explanation:
    """failover_rules.permission: a frozen primary."""
    view, other = module.view, around.peer
    assert view is not None
    common = (
        Condition(f"{module.name} may serve here, or its services are still ending", rules.works(module) and not module.swapping),
        Condition("this node is primary and waits", view.leads and view.needs_grant),
        Condition("this process did not stand still a moment ago", not around.unsure),
    )
    question = "May this primary go on alone?"
    if around.peer_silent:
        current = Condition(
            f"{other} acknowledged nothing without this node, or a witness decides", rules.may_trust_silence(module, around)
        )
        ping = Condition("a ping address answers, and has for long enough", not around.isolated)
        return Explanation(question, (*common, Condition(f"{other} is silent on every network", True), current, ping))
    return Explanation(
        question,
        (
            *common,
            Condition(f"{other} was heard since this hactld started", around.peer_heard),
            Condition(f"{other} does not serve", not (peer is not None and peer.serves)),
            Condition(
                f"rfsmount on {other} runs, or {other} acknowledged nothing without this node, or a witness decides",
                peer is None or peer.rfs_alive or rules.may_trust_silence(module, around),
            ),
        ),
    )


def hand_over(module: Module, around: Surroundings, peer: Summary | None) -> Explanation:
    """failover_rules.ready_to_receive: swap, stop, stopstart."""
    view, other = module.view, around.peer
    assert view is not None
    return Explanation(
        f"Could {other} take the role in order now?",
        (
            Condition("both copies are in sync", view.link == "paired" and view.mode == "paired"),
            Condition(f"{other} is heard", not around.peer_silent and peer is not None),
            Condition(f"{other} is SECOND Ready", peer is not None and peer.ready_second),
            Condition(f"no failover rule of {other} stands against it", peer is not None and not peer.unfit),
        ),
    )


def give_back(module: Module, around: Surroundings, peer: Summary | None) -> Explanation:
    """failover_rules.failback."""
    other = around.peer
    is_default = module.default_primary == other or (module.default_primary == "lastprim" and peer is not None and peer.led)
    recent = sum(1 for at in module.failbacks if around.now - at < module.max_restarts_period_s)
    well = module.shown == (State.PRIM, Readiness.READY) and around.now - module.since >= rules.FAILBACK_SETTLE_S
    return Explanation(
        f"Does the role go back to {other} by itself?",
        (
            Condition(f"{other} is the default primary (default_primary is {module.default_primary})", is_default),
            Condition("automatic failover is not paused", not module.paused and not (peer is not None and peer.paused)),
            Condition("nothing else is under way", module.runs and not module.swapping and module.order is None),
            Condition("the services did not fail", not module.services_failed and not (peer is not None and peer.services_failed)),
            Condition("both have been well for a while", well and rules.ready_to_receive(module.view, around, peer)),
            Condition("it was not done too often lately", recent < max(module.max_restarts, 1)),
        ),
    )


def evidence(module: Module, around: Surroundings, peer: Summary | None) -> Mapping[str, Any]:
    """All that decisions rest on, as plain values: kept with each decision."""
    view = module.view
    ours = {
        "runs": module.runs, "paused": module.paused, "current": module.current, "swapping": module.swapping,
        "wish": module.wish.value if isinstance(module.wish, Wish) else None, "rfs": module.rfs.value, "address": module.address.value,
        "services": module.services.value, "services_failed": module.services_failed, "order": module.order.value if module.order else None,
        "restarts": len(module.restarts), "problem": module.problem, "wanted": module.wanted, "cycling": module.cycling,
        "default_primary": module.default_primary, "failbacks": len(module.failbacks), "max_restarts": module.max_restarts,
        "state": module.shown[0].value, "readiness": module.shown[1].value, "since_s": round(max(0.0, around.now - module.since), 3),
        "has_record": module.has_record, "holds_files": module.holds_files, "asked_under": module.asked_under,
        "barred": module.barred, "awaited": module.awaited, "unfit": module.unfit,
        "yielded_ago_s": round(around.now - module.yielded_at, 3) if module.yielded_at is not None else None,
    }  # fmt: skip
    surroundings = {
        "policy": around.policy, "peer_silent": around.peer_silent, "peer_heard": around.peer_heard, "has_ping": around.has_ping,
        "ping_ok": around.ping_ok, "isolated": around.isolated, "has_witness": around.has_witness, "unsure": around.unsure,
        "heard_ago_s": round(max(0.0, around.now - around.peer_heard_at), 3) if around.peer_heard else None,
    }  # fmt: skip
    data = {name: value for name, value in asdict(view).items() if name != "resync"} if view is not None else None
    theirs = None
    if peer is not None:
        theirs = {**asdict(peer), "state": peer.state.value, "readiness": peer.readiness.value}
    found: dict[str, Any] = {"module": ours, "around": surroundings, "data": data, "peer": theirs}
    if module.watched:
        found["resources"] = {name: state.value for name, state in resources.here(module).items()}
        found["remote_resources"] = {name: state.value for name, state in resources.there(module, around, peer).items()}
    return found

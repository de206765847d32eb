"""What people and programs see: `hactl.status/1`, made of this node's knowledge and the peer's last heartbeat.

Nothing here decides anything; it reads the core's state and puts words on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from orchestrator.config import ClusterConfig, ModuleConfig
from orchestrator.core import events as ev
from orchestrator.core import explain, incidents, resources, what_if
from orchestrator.core.failover_rules import NO_DATA_YET
from orchestrator.core.incidents import Judged
from orchestrator.core.rules_language import ResourceState, Term
from orchestrator.core.states import Hold, Module, Readiness, State, Summary
from orchestrator.core.turn import Node

SCHEMA = "hactl.status/1"
WHY_SCHEMA = "hactl.why/1"
SIMULATE_SCHEMA = "hactl.simulate/1"
DECISIONS = ("takeover", "grant", "fence", "failback", "rule")
LEADING = (State.ALONE.value, State.PRIM.value)


def status(node: Node, cluster: ClusterConfig, configs: Mapping[str, ModuleConfig], rfs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The document of one pair; with several, view_pairs.py makes one of them."""
    modules = [module_status(node, configs[name], module, rfs.get(name, {})) for name, module in node.modules.items()]
    warnings = [warning for module in modules for warning in module.pop("warnings")] + network_warnings(node)
    around = node.around
    by_policy = around.policy == "consistency" and around.peer_silent and not around.has_witness
    paused = paused_reason(node)
    blocked = around.isolated or by_policy or witness_is_away(node)
    silent, networks = around.peer_silent or not around.peer_heard, node.detector.verdicts(around.now)
    return {
        "schema": SCHEMA,
        "cluster": cluster.name,
        "node": around.node,
        "peer": around.peer,
        "partial": silent,
        "verdict": worst([module["verdict"] for module in modules]),
        "failover": {
            "state": "paused" if paused else "blocked" if blocked else "armed",
            "reason": paused or (blocked_reason(node) if blocked else ""),
        },
        "witness": witness_word(rfs),
        "networks": networks,
        "peers": [{"node": around.peer, "silent": silent, "networks": networks}],
        "modules": modules,
        "warnings": warnings,
        "insecure": False,
        "refused": {},
    }


def worst(verdicts: Sequence[str]) -> str:
    """The verdict of all."""
    order = ("diverged", "down", "resyncing", "degraded", "redundant")
    return next((verdict for verdict in order if verdict in verdicts), "down")


def with_security(
    document: dict[str, Any], insecure: bool, warnings: Sequence[Mapping[str, str]], refused: Mapping[str, int]
) -> dict[str, Any]:
    """The document with what concerns the links: are they protected, what is to be done about keys, who was not let in."""
    return {**document, "insecure": insecure, "warnings": [*document["warnings"], *warnings], "refused": dict(refused)}


def paused_reason(node: Node) -> str:
    """Which modules would not move by themselves, and where that was said; empty: all would."""
    here = {name for name, module in node.modules.items() if module.paused}
    there = {name for name, summary in node.peer_modules.items() if summary.paused}
    if not here | there:
        return ""
    where = {name: "" if name in here & there else f" on {node.around.node if name in here else node.around.peer}" for name in here | there}
    return "an administrator paused it for " + ", ".join(f"{name}{where[name]}" for name in sorted(where))


def blocked_reason(node: Node) -> str:
    """Why no failover would happen now."""
    if node.around.isolated:
        return "no ping address answers: this node may be the one that is cut off"
    if witness_is_away(node):
        return "the witness does not answer: without it no node goes on alone"
    return f"{node.around.peer} is silent and the policy is consistency"


def witness_is_away(node: Node) -> bool:
    """Is there a module whose rfsmount would find nobody to ask?"""
    return any(module.view is not None and module.view.witness_away for module in node.modules.values())


def witness_word(rfs: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The worst that a module's rfsmount says of the witness; None: there is none, or nothing runs that would ask it."""
    said = [str(found["state"]) for status in rfs.values() if isinstance(found := status.get("witness"), Mapping)]
    return next((word for word in said if word != "ok"), "ok" if said else None)


def module_status(node: Node, config: ModuleConfig, module: Module, rfs: Mapping[str, Any]) -> dict[str, Any]:
    """One module on both nodes."""
    around = node.around
    here = own_entry(node, module, rfs)
    there = peer_entry(node, node.peer_modules.get(module.name))
    there["checkers"] = peer_checkers(node, module)
    entries = [entry for name in config.nodes for entry in (here, there) if entry["node"] == name]
    holder = around.node if module.address is Hold.ON else around.peer if there["state"] in LEADING and not around.peer_silent else None
    verdict = light_verdict(entries) if module.light else verdict_of(here, there)
    return {
        "name": module.name,
        "mode": config.mode,
        "verdict": verdict,
        "nodes": entries,
        "vips": [{"address": vip.address, "node": holder} for vip in config.vips],
        "warnings": [
            *warnings_of(module.name, here, there, verdict),
            *never_started(module.name, here),
            *switched_off(module),
            *down_warnings(module.name, (here, there)),
            *rfs_warnings(module.name, around.node, rfs),
        ],
    }


def own_entry(node: Node, module: Module, rfs: Mapping[str, Any]) -> dict[str, Any]:
    """This node's line."""
    state, readiness = module.shown
    view = module.view
    return {
        "node": node.around.node,
        "state": state.value,
        "readiness": readiness.value,
        "data": view.data if view else "",
        "generation": view.generation if view else "",
        "link": view.link if view else "",
        "code": view.code if view else "",
        "service": "failed" if module.services_failed else module.services.value,
        "since_s": round(max(0.0, node.around.now - module.since), 3),
        "reason": node.reasons.get(module.name, ""),
        "resync": dict(view.resync) if view and view.resync else None,
        "checkers": own_checkers(node, module),
        "rfs": dict(rfs),
    }


def own_checkers(node: Node, module: Module) -> list[dict[str, Any]]:
    """Every resource that is watched here; unknown: nobody looks now."""
    found: list[dict[str, Any]] = []
    for name in module.watched:
        known = module.resources.get(name)
        if known is None:
            found.append({"resource": name, "state": ResourceState.UNKNOWN.value, "text": "", "since_s": None})
        else:
            since_s = round(max(0.0, node.around.now - known.since), 3)
            found.append({"resource": name, "state": known.state.value, "text": known.text, "since_s": since_s})
    return found


def peer_checkers(node: Node, module: Module) -> list[dict[str, Any]]:
    """The same as the peer's heartbeats say it, which have no texts."""
    states = resources.there(module, node.around, node.peer_modules.get(module.name))
    unknown = ResourceState.UNKNOWN
    return [{"resource": name, "state": states.get(name, unknown).value, "text": "", "since_s": None} for name in module.watched]


def peer_entry(node: Node, summary: Summary | None) -> dict[str, Any]:
    """The peer's line, as far as it is known."""
    around = node.around
    entry: dict[str, Any] = {"node": around.peer, "code": "", "since_s": None, "resync": None, "checkers": []}
    if summary is None or around.peer_silent or not around.peer_heard:
        silent = "it is silent on every network" if around.peer_silent else "nothing heard from it yet"
        unknown = {"state": "UNKNOWN", "readiness": "NotReady", "data": "", "generation": "", "link": "", "service": "unknown"}
        return {**entry, **unknown, "reason": silent}
    return {
        **entry,
        "state": summary.state.value,
        "readiness": summary.readiness.value,
        "data": summary.data,
        "generation": summary.generation,
        "link": summary.link,
        "service": "failed" if summary.services_failed else summary.service,
        "reason": summary.reason,
    }


def verdict_of(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """One word for the module."""
    both = (here, there)
    if any(entry["link"] == "diverged" or entry["code"] == "DIVERGED" for entry in both):
        return "diverged"
    if not any(entry["state"] in LEADING and entry["readiness"] == Readiness.READY.value for entry in both):
        return "down"
    seconds = [entry for entry in both if entry["state"] == State.SECOND.value]
    if any(entry["readiness"] == Readiness.READY.value for entry in seconds):
        return "redundant"
    return "resyncing" if any(entry["link"] == "resyncing" for entry in both) else "degraded"


def light_verdict(entries: Sequence[Mapping[str, Any]]) -> str:
    """The same for a module that runs on each of its nodes by itself."""
    ready = [entry["state"] == State.UP.value and entry["readiness"] == Readiness.READY.value for entry in entries]
    return "redundant" if all(ready) else "degraded" if any(ready) else "down"


def down_warnings(name: str, entries: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What the checkers found down."""
    found = []
    for entry in entries:
        for checker in entry.get("checkers", ()):
            if checker["state"] == ResourceState.DOWN.value:
                text = f"{name}: {checker['resource']} is down on {entry['node']}" + (f": {checker['text']}" if checker["text"] else "")
                found.append({"code": "RESOURCE_DOWN", "text": text, "fix": f"hactl why {name} says what follows from it"})
    return found


def switched_off(module: Module) -> list[dict[str, str]]:
    """A switch that somebody may have forgotten."""
    if not module.unchecked:
        return []
    text = f"{module.name}: the checkers are off here: what they find, a dead service first of all, is not acted upon"
    return [{"code": "CHECKERS_OFF", "text": text, "fix": f"hactl checkers on {module.name}"}]


def never_started(name: str, here: Mapping[str, Any]) -> list[dict[str, str]]:
    """Nobody has said yet which node has the data."""
    if not here["reason"].startswith(NO_DATA_YET):
        return []
    return [{"code": "FIRST_START", "text": f"{name}: {NO_DATA_YET}", "fix": f"hactl start {name} shows what both have, and asks"}]


def warnings_of(name: str, here: Mapping[str, Any], there: Mapping[str, Any], verdict: str) -> list[dict[str, str]]:
    """What a person should look at, with the next step."""
    found = []
    if verdict == "diverged":
        fix = f"'hactl resolve {name} --keep NODE --dry-run' shows what differs; without --dry-run it ends it, and NODE's data stays"
        text = f"{name}: both copies were written apart from each other; nothing was overwritten"
        found.append({"code": "DIVERGED", "text": text, "fix": fix})
    for entry in (here, there):
        if entry["service"] == "failed":
            text = f"{name}: the services failed too often on {entry['node']}"
            found.append({"code": "SERVICES_FAILED", "text": text, "fix": f"hactl logs {name}; then hactl restart {name}"})
    return found


# What rfsmount says of this node that hactld does not know by itself. Of the witness: nothing is lost yet, but the next failure would find
# nobody to ask.
FIXES_OF_RFS: Final[Mapping[str, str]] = {
    "WITNESS": "'hactl witness status' on each node says more",
    "RIGHTS": "a kernel with seccomp, or a container that lets its root drop capabilities",
    "MUCH_REMOVED": "look what became of them; 'hactl discard {name} -H {node}' removes them for good",
}


def rfs_warnings(name: str, node: str, rfs: Mapping[str, Any]) -> list[dict[str, str]]:
    """Its warnings, with what to do."""
    return [
        {"code": warning["code"], "text": f"{name}: {warning.get('text', '')}", "fix": fix.format(name=name, node=node)}
        for warning in rfs.get("warnings", ())
        if (fix := FIXES_OF_RFS.get(warning.get("code")))
    ]


def network_warnings(node: Node) -> list[dict[str, str]]:
    """Networks that do not carry heartbeats both ways."""
    words = {"silent": f"nothing arrives from {node.around.peer}", "deaf": f"{node.around.peer} does not hear this node"}
    return [
        {"code": f"NETWORK_{verdict.upper()}", "text": f"network {name}: {words[verdict]}", "fix": f"check the network {name}"}
        for name, verdict in node.detector.verdicts(node.around.now).items()
        if verdict != "ok"
    ]


def simulated(
    node: Node, name: str, what: str, make: Callable[[float, int], ev.Command] | None = None, resource: str = ""
) -> dict[str, Any]:
    """What would happen here if …, decided by the real core from where it stands. `make`: it is a command; `resource`: what goes down."""
    if make is None:
        moments, after = what_if.imagine(node, name, what, resource)
    else:
        moments, after = what_if.imagine_command(node, name, make)
    state, readiness = after.modules[name].shown
    return {
        "schema": SIMULATE_SCHEMA,
        "node": node.around.node,
        "module": name,
        "what": what,
        "resource": resource,
        "moments": [{"after_s": moment.after_s, "kind": moment.kind, "text": moment.text} for moment in moments],
        "state": state.value,
        "readiness": readiness.value,
        "reason": after.reasons.get(name, ""),
    }


def why(node: Node, name: str, decisions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Why a module is what it is on this node, what would be decided now and what stands against it, and the last decisions."""
    module, peer = node.modules[name], node.peer_modules.get(name)
    return {
        "schema": WHY_SCHEMA,
        "node": node.around.node,
        "module": name,
        "state": module.shown[0].value,
        "readiness": module.shown[1].value,
        "reason": node.reasons.get(name, ""),
        "questions": [
            {
                "question": told.question,
                "answer": told.verdict,
                "conditions": [{"text": each.text, "holds": each.holds} for each in told.conditions],
            }
            for told in explain.explain(module, node.around, peer)
        ],
        "rules": [rule_entry(each) for each in incidents.judged(module, node.around, peer)],
        "evidence": dict(explain.evidence(module, node.around, peer)),
        "decisions": list(decisions),
    }


def rule_entry(judged: Judged) -> dict[str, Any]:
    """A failover rule as it stands now: what it says, which of its terms are so, and what it would do or has done."""
    rule = judged.rule

    def terms(each: Sequence[tuple[Term, bool]]) -> list[dict[str, Any]]:
        return [{"term": str(term), "holds": holds} for term, holds in each]

    return {
        "name": rule.name,
        "default": rule.is_default,
        "action": rule.action,
        "services": list(rule.services),
        "hold_s": rule.hold_s,
        "all": terms(judged.all),
        "any": terms(judged.any),
        "holds": judged.holds,
        "held_s": round(judged.held_s, 3),
        "acted": judged.acted,
        "why_not": judged.why_not,
    }

"""One status document of what each pair knows (view.py): this node takes part in modules with several peers.

With one peer it is that pair's document. With several the verdict is the worst of all modules, a network is as bad as it is towards any
peer, and `peers` says it for each. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator import view
from orchestrator.config import ClusterConfig, ModuleConfig
from orchestrator.core.turn import Node

NETWORK_ORDER = ("silent", "deaf", "ok")  # the worst first
FAILOVER_ORDER = ("paused", "blocked", "armed")


def status(
    nodes: Sequence[Node], cluster: ClusterConfig, configs: Mapping[str, ModuleConfig], rfs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """`hactl.status/1` of this node; `nodes`: the core of each pair, in the order of the configuration."""
    documents = [view.status(node, cluster, configs, rfs) for node in nodes]
    modules = {module["name"]: module for document in documents for module in document["modules"]}
    for name, module in modules.items():
        if configs[name].mode == "light":
            add_others(module, configs[name], nodes)
    shown = [modules[name] for name in configs if name in modules]
    moving = [document for document in documents if any(module["mode"] == "mirror" for module in document["modules"])]
    failovers = [document["failover"] for document in moving or documents]  # a pair without a role has nothing that could move
    warnings = [warning for document in documents for warning in document["warnings"]]
    return {
        **documents[0],
        "partial": any(document["partial"] for document in documents),
        "verdict": view.worst([module["verdict"] for module in shown]),
        "failover": {
            "state": min((failover["state"] for failover in failovers), key=FAILOVER_ORDER.index),
            "reason": "; ".join(dict.fromkeys(failover["reason"] for failover in failovers if failover["reason"])),
        },
        "witness": view.witness_word(rfs),
        "networks": worst_networks([document["networks"] for document in documents]),
        "peers": [peer for document in documents for peer in document["peers"]],
        "modules": shown,
        "warnings": [warning for at, warning in enumerate(warnings) if warning not in warnings[:at]],
    }


def worst_networks(each: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """By name, in the order in which they are met."""
    names = dict.fromkeys(name for networks in each for name in networks)
    return {name: min((networks[name] for networks in each if name in networks), key=NETWORK_ORDER.index) for name in names}


def add_others(module: dict[str, Any], config: ModuleConfig, nodes: Sequence[Node]) -> None:
    """A light module may run on more nodes than this one and the peer in whose pair it lives. Of a node with which this one is no pair
    nothing is known, and nothing counts."""
    lines = {line["node"]: line for line in module["nodes"]}
    for node in nodes:
        if node.around.peer in config.nodes:
            lines[node.around.peer] = view.peer_entry(node, node.peer_modules.get(config.name))
    module["verdict"] = view.light_verdict(list(lines.values()))
    module["nodes"] = [lines.get(name) or unheard(name, nodes[0].around.node) for name in config.nodes]


def unheard(name: str, here: str) -> dict[str, Any]:
    """The line of a node that says nothing to this one."""
    unknown = {"state": "UNKNOWN", "readiness": "NotReady", "data": "", "generation": "", "link": "", "service": "unknown"}
    reason = f"{name} is no peer of {here}: ask there"
    return {"node": name, "code": "", "since_s": None, "resync": None, "checkers": [], **unknown, "reason": reason}

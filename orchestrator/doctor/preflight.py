"""The doctor's judgements before there is anything to fail: when two nodes are paired, and before the first copy of a module. Pure.

Nothing here refuses but what cannot work: two programs that do not speak the same protocols. Everything else is told, with its fix, to the
person who is about to go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from orchestrator.doctor.finding import Facts, Finding, Missing, PairCheck, node_of, part
from orchestrator.doctor.judge import CHECKS, PAIR_CHECKS, judge_node, judge_pair, worst_first
from orchestrator.doctor.judge_pair import known_accounts, older, protocols_that_differ

AT_PAIRING: Final = (
    *("fuse-device", "libfuse", "kernel", "engine", "rights", "clock", "memory", "mandatory-access", "boot", "guard", "firewall"),
    *("state-disk", "state-sync", "state-room", "state-owner", "addresses", "links", "networks", "reachable", "mtu", "rtt"),
)
PAIR_AT_PAIRING: Final = ("versions", "pythons", "clock-skew", "machines")
AT_FIRST_COPY: Final = (
    *("directories", "features", "writable", "nested-mounts", "holders", "room"),
    *("programs", "service-users", "boot-units"),
)
PAIR_AT_FIRST_COPY: Final = (
    *("versions", "same-owners", "same-service-users", "same-programs", "copy-fits", "same-file-system"),
)  # fmt: skip


def cannot_work(mine: Facts, theirs: Facts) -> str:
    """Why these two nodes cannot be a pair, in a sentence with its way out; empty: they can, or it is not known."""
    try:
        differ = protocols_that_differ(part(mine, "versions")["protocols"], part(theirs, "versions")["protocols"])
        if not differ:
            return ""
        releases = f"{part(mine, 'versions')['lockstep']} here and {part(theirs, 'versions')['lockstep']} on {node_of(theirs)}"
        return f"they do not speak the same protocols ({', '.join(differ)}; {releases}): install the newer release on {older(mine, theirs)}"
    except (Missing, KeyError, TypeError, ValueError, AttributeError):
        return ""  # a node that says nothing of itself is told by others


def at_pairing(mine: Facts, theirs: Facts) -> list[Finding]:
    """About this node, and about both, worst first. What the peer thinks of itself it says there."""
    checks = [check for check in CHECKS if check.name in AT_PAIRING]
    pairs = [check for check in PAIR_CHECKS if check.name in PAIR_AT_PAIRING] + [PairCheck("known-users", "both", known_accounts)]
    return worst_first([*judge_node(mine, checks), *judge_pair(mine, theirs, pairs)])


def before_first_copy(module: str, source: Facts, target: Facts) -> list[Finding]:
    """What stands against copying a module from one node to the other: space, owners, file systems, programs. Worst first. `source` and
    `target`: the facts of both nodes, as `GET /v1/doctor` gives them."""
    source, target = of_module(source, module), of_module(target, module)
    checks = [check for check in CHECKS if check.name in AT_FIRST_COPY]
    pairs = [check for check in PAIR_CHECKS if check.name in PAIR_AT_FIRST_COPY]
    return worst_first([*judge_node(source, checks), *judge_node(target, checks), *judge_pair(source, target, pairs)])


def of_module(facts: Facts, module: str) -> dict[str, Any]:
    """A node's facts without what concerns other modules."""
    kept = dict(facts)
    directories = _table(facts, "directories", "by_path")
    mine = {path: found for path, found in directories.items() if isinstance(found, Mapping) and found.get("module", module) == module}
    if directories:
        kept["directories"] = {"by_path": mine}
        kept["owners"] = {"by_path": {path: found for path, found in _table(facts, "owners", "by_path").items() if path in mine}}
    services = facts.get("services")
    if isinstance(services, Mapping) and isinstance(services.get("services"), list):
        kept["services"] = {"services": [each for each in services["services"] if each.get("module") == module]}
    return kept


def _table(facts: Facts, place: str, key: str) -> Mapping[str, Any]:
    found = facts.get(place)
    inner = found.get(key) if isinstance(found, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}

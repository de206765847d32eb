"""Every judgement in one table, and what comes of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any, Final

from orchestrator.doctor import judge_daemon as daemon
from orchestrator.doctor import judge_directories as directories
from orchestrator.doctor import judge_machine as machine
from orchestrator.doctor import judge_network as network
from orchestrator.doctor import judge_pair as pair
from orchestrator.doctor.finding import WORST_FIRST, Check, Elsewhere, Facts, Finding, Missing, PairCheck, Said, Verdict, node_of, unknown

SCHEMA: Final = "hactl.doctor/1"

CHECKS: Final[tuple[Check, ...]] = (
    Check("fuse-device", "machine", machine.fuse_device),
    Check("libfuse", "machine", machine.libfuse),
    Check("kernel", "machine", machine.kernel),
    Check("engine", "machine", machine.engine),
    Check("clock", "machine", machine.clock),
    Check("memory", "machine", machine.memory),
    Check("swap", "machine", machine.swap),
    Check("cores", "machine", machine.cores),
    Check("mandatory-access", "machine", machine.mandatory_access),
    Check("host-name", "machine", daemon.host_name),
    Check("state-disk", "state", machine.state_disk),
    Check("state-sync", "state", machine.state_sync),
    Check("state-room", "state", machine.state_room),
    Check("state-owner", "state", machine.state_owner),
    Check("log-room", "state", machine.log_room),
    Check("hactld", "hactld", daemon.running),
    Check("hactld-current", "hactld", daemon.current),
    Check("boot", "hactld", daemon.enabled),
    Check("guard", "hactld", daemon.guard),
    Check("rights", "hactld", machine.rights),
    Check("limits", "hactld", machine.limits),
    Check("oom", "hactld", machine.spared),
    Check("state", "hactld", daemon.state),
    Check("failover", "hactld", daemon.failover),
    Check("rehearsal", "hactld", daemon.rehearsed),
    Check("script-failures", "hactld", daemon.script_failures),
    Check("configuration", "configuration", daemon.configuration),
    Check("configuration-owner", "configuration", daemon.configuration_owner),
    Check("scripts", "configuration", daemon.scripts),
    Check("key", "keys", daemon.key),
    Check("paired", "keys", daemon.paired),
    Check("key-age", "keys", daemon.key_age),
    Check("strangers", "keys", daemon.strangers),
    Check("addresses", "network", network.addresses),
    Check("links", "network", network.links),
    Check("networks", "network", network.redundancy),
    Check("reachable", "network", network.answers),
    Check("mtu", "network", network.full_size),
    Check("rtt", "network", network.nearness),
    Check("heartbeats", "network", daemon.silence),
    Check("calls", "network", network.calls),
    Check("data-ports", "network", network.data_ports),
    Check("firewall", "network", network.firewall),
    Check("vip-place", "network", network.vip_places),
    Check("vip-foreign", "network", network.vip_foreign),
    Check("witness", "network", network.witness),
    Check("ping", "network", network.ping),
    Check("directories", "directories", directories.there),
    Check("required-files", "directories", directories.required),
    Check("features", "directories", directories.features),
    Check("writable", "directories", directories.writable),
    Check("nested-mounts", "directories", directories.nested),
    Check("holders", "directories", directories.holders),
    Check("room", "directories", directories.room),
    Check("nameless-owners", "directories", directories.scanned),
    Check("boot-units", "services", directories.units),
    Check("programs", "services", directories.programs),
    Check("service-users", "services", directories.users),
)

PAIR_CHECKS: Final[tuple[PairCheck, ...]] = (
    PairCheck("versions", "both", pair.versions),
    PairCheck("pythons", "both", pair.pythons),
    PairCheck("clock-skew", "both", pair.clocks),
    PairCheck("machines", "both", pair.machines),
    PairCheck("same-configuration", "both", pair.configurations),
    PairCheck("same-keys", "both", pair.keys),
    PairCheck("same-mtu", "both", pair.sizes),
    PairCheck("same-owners", "both", pair.owners),
    PairCheck("same-service-users", "both", pair.accounts),
    PairCheck("same-programs", "both", pair.applications),
    PairCheck("copy-fits", "both", pair.space),
    PairCheck("same-file-system", "both", pair.file_systems),
    PairCheck("vip-once", "both", pair.vips),
    PairCheck("same-witness", "both", pair.witnesses),
    PairCheck("generations", "both", pair.agreement),
)

GROUPS: Final = tuple(dict.fromkeys([*(check.group for check in CHECKS), *(check.group for check in PAIR_CHECKS)]))


def judge_node(facts: Facts, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Everything about one node."""
    return [finding(check, node_of(facts), said) for check in checks for said in _said(check.name, partial(check.judge, facts))]


def judge_pair(one: Facts, other: Facts, checks: Sequence[PairCheck] = PAIR_CHECKS) -> list[Finding]:
    """Everything about two nodes together."""
    both = f"{node_of(one)}, {node_of(other)}"
    return [finding(check, both, said) for check in checks for said in _said(check.name, partial(check.judge, one, other))]


def judge_all(facts: Sequence[Facts], silent: Mapping[str, str]) -> list[Finding]:
    """Every node by itself and with each that it is a pair with. `silent`: who could not be asked, and why."""
    found = [each for one in facts for each in judge_node(one)]
    for one, other in combinations(facts, 2):
        if _are_peers(one, other):
            found += judge_pair(one, other)
    for node, why in silent.items():
        fix = f"systemctl status hactld on {node}, or run hactl doctor there"
        found.append(Finding("asked", "both", node, "bad", f"{node} could not be examined: {why}", fix))
    return worst_first(found)


def _are_peers(one: Facts, other: Facts) -> bool:
    named = one.get("configuration", {})
    peers = named.get("peers") if isinstance(named, Mapping) else None
    return not isinstance(peers, list) or node_of(other) in peers


def _said(name: str, judge: Callable[[], Iterable[Said]]) -> list[Said]:
    """What a judgement yields; facts that are not as they should be (another version, a probe that hung) are no news of health."""
    said: list[Said] = []
    try:
        for each in judge():
            said.append(each)
    except Elsewhere:
        pass
    except Missing as missing:
        said.append(unknown(f"{name}: {missing}"))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
        said.append(unknown(f"{name}: the facts are not those of this version"))
    return said


def finding(check: Check | PairCheck, node: str, said: Said) -> Finding:
    """As it is shown."""
    return Finding(check.name, check.group, node, said.verdict, said.text, said.fix)


def worst_first(found: Iterable[Finding]) -> list[Finding]:
    """Bad, warn, unknown, ok; within each as the groups come."""
    return sorted(found, key=lambda each: (WORST_FIRST.index(each.verdict), GROUPS.index(each.group)))


def overall(found: Iterable[Finding]) -> Verdict:
    """The worst that there is; what is unknown is a reason to look, not an alarm."""
    verdicts = {each.verdict for each in found}
    return "bad" if "bad" in verdicts else "warn" if "warn" in verdicts else "ok"


def counts(found: Iterable[Finding]) -> dict[str, int]:
    """How many of each."""
    verdicts = [each.verdict for each in found]
    return {verdict: verdicts.count(verdict) for verdict in WORST_FIRST}


def document(found: Sequence[Finding], nodes: Sequence[str], silent: Mapping[str, str], took_s: float) -> dict[str, Any]:
    """`hactl.doctor/1`."""
    return {
        "schema": SCHEMA,
        "verdict": overall(found),
        "nodes": list(nodes),
        "silent": [{"node": node, "reason": why} for node, why in silent.items()],
        "counts": counts(found),
        "took_s": round(took_s, 1),
        "findings": [each.as_json() for each in found],
    }

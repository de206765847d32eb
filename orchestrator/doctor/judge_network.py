"""Judgements about networks as one node sees them: addresses, what passes and how fast, ports, service addresses, third parties. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from orchestrator.doctor.finding import Facts, Said, bad, configured, ok, part, unknown, warn

LOSS_BAD: Final = 0.2
RTT_WARN_S: Final = 0.005
RTT_BAD_S: Final = 0.25
OWN_PORTS: Final = "UDP 5599, TCP 5597-5598 and the modules' ports (from 5600 on)"


def addresses(facts: Facts) -> Iterator[Said]:
    """This node has what cluster.toml gives it."""
    for network, found in part(facts, "network")["own"].items():
        address, interface = found["address"], found["interface"]
        if interface is None:
            text = f"{address}, this node's address on {network}, is on none of its interfaces"
            yield bad(text, f"ip addr: give the interface of {network} that address, or correct cluster.toml")
        else:
            yield ok(f"{address} ({network}) is on {interface}")


def links(facts: Facts) -> Iterator[Said]:
    """The interfaces are up, with a cable."""
    found = part(facts, "network")
    used = {entry["interface"] for entry in found["own"].values()}
    for interface in found["interfaces"]:
        if interface["name"] not in used:
            continue
        if not interface["up"] or not interface["carrier"]:
            what = "has no carrier" if interface["up"] else "is down"
            yield bad(f"{interface['name']} {what}", f"ip link set {interface['name']} up; ethtool {interface['name']}: is the cable in?")
        else:
            yield ok(f"{interface['name']} is up")


def redundancy(facts: Facts) -> Iterator[Said]:
    """More than one network, and not all on one card."""
    configured(facts)
    own = part(facts, "network")["own"]
    interfaces = {entry["interface"] for entry in own.values() if entry["interface"]}
    if len(own) < 2:
        fix = "give both nodes a second network in cluster.toml, if there is one"
        yield warn("there is one network only between the nodes: when it fails they cannot tell whose fault it is", fix)
    elif len(interfaces) < 2:
        fix = "put the networks on different interfaces, or see that the interface is a bond"
        yield warn(f"all networks of this node are on {', '.join(interfaces) or 'no interface'}", fix)
    else:
        yield ok(f"{len(own)} networks on {len(interfaces)} interfaces")


def answers(facts: Facts) -> Iterator[Said]:
    """Echo requests come back from the peer, on every network."""
    for path in _paths(facts):
        where = f"{path['peer']} ({path['there']}) on {path['network']}"
        lost = f"{path['lost']} of {path['sent']} echo requests to {where} were lost"
        if path["trouble"]:
            yield bad(f"{where} cannot be reached: {path['trouble']}", f"ip route get {path['there']}")
        elif path["lost"] == path["sent"]:
            text = f"{where} does not answer: none of {path['sent']} echo requests came back"
            yield bad(text, f"is it on, is the cable well, does a firewall drop ICMP? ping -I {path['here']} {path['there']}")
        elif path["lost"] >= path["sent"] * LOSS_BAD:
            yield bad(lost, f"ip -s link show {path['interface']}: errors?")
        elif path["lost"]:
            yield warn(lost, f"ip -s link show {path['interface']}: errors?")
        else:
            yield ok(f"{where} answers every echo request")


def full_size(facts: Facts) -> Iterator[Said]:
    """A packet of the interface's size arrives whole."""
    for path in _paths(facts):
        where = f"{path['network']} to {path['peer']}"
        if path["full_passes"] is None:
            yield unknown(f"whether full packets pass on {where} is not known: it does not answer")
        elif not path["full_passes"]:
            largest = path["largest_bytes"]
            text = f"packets of {path['mtu']} bytes do not pass on {where}, {largest or 'only small'} bytes do: large writes would hang"
            fix = f"ip link set {path['interface']} mtu {largest or 1280} on both nodes, or correct the switch between them"
            yield bad(text, fix)
        else:
            yield ok(f"packets of {path['mtu']} bytes pass on {where}")


def nearness(facts: Facts) -> Iterator[Said]:
    """Every write waits for a round trip on the replication network."""
    replicating = part(facts, "configuration")["replication_networks"]
    for path in _paths(facts):
        where, rtt_s = f"{path['peer']} on {path['network']}", path["rtt_s"]
        if rtt_s is None:
            yield unknown(f"how far away {where} is, is not known: it does not answer")
        elif rtt_s >= RTT_BAD_S:
            yield bad(f"{where} is {rtt_s * 1000:.0f} ms away: heartbeats may come too late", "use a network that is near")
        elif rtt_s >= RTT_WARN_S and path["network"] in replicating:
            text = f"{where} is {rtt_s * 1000:.1f} ms away, and every write waits for that"
            yield warn(text, "replicate over a nearer network: replication_network in the module's file")
        else:
            yield ok(f"{where} is {rtt_s * 1000:.2f} ms away")


def calls(facts: Facts) -> Iterator[Said]:
    """A real call, with the keys, over each network."""
    for call in part(facts, "ports")["calls"]:
        where = f"{call['peer']} on {call['network']}"
        if call["reached"]:
            yield ok(f"hactld of {where} answers a call")
        else:
            text = f"hactld of {where} does not answer a call: {call['trouble']}"
            yield bad(text, _door(call["door"], call["peer"], call["port"]))


def data_ports(facts: Facts) -> Iterator[Said]:
    """Where the peer's rfsmount listens, nothing stands in the way."""
    for port in part(facts, "ports")["data"]:
        where = f"port {port['port']} of {port['peer']} ({port['module']})"
        if port["door"] == "paired":
            yield ok(f"{port['module']} is linked with {port['peer']} on port {port['port']}")
        elif port["door"] == "open":
            yield ok(f"{where} is open")
        elif port["door"] == "refused":
            yield ok(f"{where} can be reached; nobody listens there now")
        else:
            yield bad(f"{where} cannot be reached ({port['door']})", _door(port["door"], port["peer"], port["port"]))


def _door(door: str, peer: str, port: int) -> str:
    if door == "refused":
        return f"systemctl start hactld on {peer}"
    if door == "open":
        return f"hactl cluster show on both nodes; systemctl restart hactld on {peer}"
    return f"let TCP port {port} pass in the firewall of {peer}: nft list ruleset, or firewall-cmd --add-port={port}/tcp --permanent"


def firewall(facts: Facts) -> Iterator[Said]:
    """No rule names our ports in order to drop them; a policy that drops knows our ports."""
    found = part(facts, "firewall")
    if not found["tool"]:
        yield unknown("neither nft nor iptables is here to show the firewall's rules")
        return
    for rule in found["against"][:5]:
        yield bad(f"the firewall drops what the nodes say to each other: {rule}", f"remove this rule, or accept {OWN_PORTS} before it")
    if found["drops_by_default"] and not found["accepts"] and not found["against"]:
        text = f"the firewall drops by default ({', '.join(found['drops_by_default'])}), and no rule accepts port 5598 or 5599"
        yield warn(text, f"accept {OWN_PORTS} from the peer's addresses")
    if not found["against"] and (not found["drops_by_default"] or found["accepts"]):
        yield ok(f"{found['tool']}: no rule stands against the nodes' ports")


def vip_places(facts: Facts) -> Iterator[Said]:
    """There is an interface for each service address."""
    for vip in part(facts, "vips")["vips"]:
        if vip["trouble"]:
            yield bad(vip["trouble"], f"give this node an address in that subnet, or 'interface' in modules/{vip['module']}.toml")
        else:
            yield ok(f"{vip['address']} ({vip['module']}) has its place on {vip['interface']}")


def vip_foreign(facts: Facts) -> Iterator[Said]:
    """No third machine answers for a service address."""
    for vip in part(facts, "vips")["vips"]:
        strangers = [mac for mac in vip["answers"] if mac not in vip["peer_macs"]]
        if vip["trouble"]:
            continue
        if strangers and vip["peer_macs"]:
            text = f"{vip['address']} ({vip['module']}) is in use by another machine ({', '.join(strangers)})"
            yield bad(text, "take the address off that machine, or choose a free one")
        elif strangers:
            yield unknown(f"{', '.join(strangers)} answers for {vip['address']}; whether that is a peer is not known")
        else:
            yield ok(f"nobody else answers for {vip['address']}")


def witness(facts: Facts) -> Iterator[Said]:
    """Each member of the witness answers."""
    members = part(facts, "third")["witness"]
    for member in members:
        if member["trouble"]:
            text = f"the witness {member['url']} does not answer: {member['trouble']}"
            yield bad(text, f"curl {member['url']}/health; hactl witness status")
        else:
            yield ok(f"the witness {member['url']} answers")
    if not members:
        yield ok(f"there is no witness; the policy is {configured(facts)['policy']}")


def ping(facts: Facts) -> Iterator[Said]:
    """At least one address that tells "cut off" from "alone"."""
    found = part(facts, "third")["ping"]
    if not found:
        if configured(facts)["policy"] == "availability" and not part(facts, "third")["witness"]:
            fix = "[witness] in cluster.toml: a witness (etcd), or ping = [the router's address]"
            yield warn("neither witness nor ping address: a node that is cut off cannot know it", fix)
        else:
            yield ok("no ping address is asked for")
        return
    silent = [entry["address"] for entry in found if not entry["answers"]]
    if len(silent) == len(found):
        yield bad(f"no ping address answers ({', '.join(silent)}): this node counts as cut off", f"ping {silent[0]}; correct cluster.toml")
    elif silent:
        yield warn(f"ping address {', '.join(silent)} does not answer", f"ping {silent[0]}; correct cluster.toml")
    else:
        yield ok(f"{len(found)} ping addresses answer")


def _paths(facts: Facts) -> list[Mapping[str, Any]]:
    return list(part(facts, "paths")["paths"])

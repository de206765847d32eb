"""Probes of the networks: interfaces, ways to the peers, ports, firewall, service addresses, third parties. They block; they give data."""

from __future__ import annotations

import fcntl
import http.client
import ipaddress
import re
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import trio

from orchestrator.config import ModuleConfig, VipConfig
from orchestrator.doctor import echo
from orchestrator.doctor.probe_configuration import COMMAND_TIMEOUT_S
from orchestrator.doctor.scene import Scene, Way
from orchestrator.effects import EffectFailed, links, wire
from orchestrator.heartbeat import Network
from orchestrator.peer import PORT as CALL_PORT
from orchestrator.peer import PeerClient, PeerRefused, PeerUnreachable
from orchestrator.security import key_store
from rfs.control.blocking import BlockingClient
from rfs.errors import SaidNo
from rfs.foreign import from_json
from rfs.pairing import PORT as PAIRING_PORT
from rfs.settings import parse_witness

CALL_TIMEOUT_S = 3.0
CONNECT_TIMEOUT_S = 2.0
ANSWER_BYTES_MAX = 64 << 10
PINGS = 3
INTERFACES_MAX = 200  # of a host of containers
SIOCGIFFLAGS, SIOCGIFMTU, NAME_BYTES = 0x8913, 0x8921, 16
IFF_UP, IFF_RUNNING = 0x1, 0x40
OWN_PORTS = (PAIRING_PORT, 5631)  # pairing, calls, heartbeats, and the first modules' from 5600 on
LINKED = ("paired", "resyncing")
Entry = TypeVar("Entry")
Found = TypeVar("Found")


def network(scene: Scene) -> dict[str, Any]:
    """The interfaces, and where this node's own addresses are."""
    interfaces = links.read_interfaces()
    own = scene.cluster.nodes[scene.node].addresses if scene.cluster is not None and scene.node in scene.cluster.nodes else {}
    return {
        "interfaces": [
            {"name": each.name, "mac": each.mac.hex(":"), "addresses": [str(one) for one in each.addresses], **_state(each.name)}
            for each in interfaces[:INTERFACES_MAX]
        ],
        "own": {name: {"address": address, "interface": _holder(interfaces, address)} for name, address in own.items()},
    }  # fmt: skip


def _holder(interfaces: Sequence[links.Interface], address: str) -> str | None:
    wanted = ipaddress.ip_address(address)
    return next((each.name for each in interfaces if any(own.ip == wanted for own in each.addresses)), None)


def _state(interface: str) -> dict[str, Any]:
    flags = struct.unpack_from("H", _ioctl(SIOCGIFFLAGS, interface), NAME_BYTES)[0]
    return {"mtu": mtu_of(interface), "up": bool(flags & IFF_UP), "carrier": bool(flags & IFF_RUNNING)}


def mtu_of(interface: str | None) -> int | None:
    """In bytes; None where there is no such interface."""
    try:
        return int(struct.unpack_from("i", _ioctl(SIOCGIFMTU, interface), NAME_BYTES)[0]) if interface else None
    except OSError:
        return None


def _ioctl(request: int, interface: str) -> bytes:
    """Of this process' own network, which /sys may not be of."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return fcntl.ioctl(sock, request, struct.pack("16s16x8x", interface.encode()))


def _beside_each_other(find: Callable[[Entry], Found], entries: Iterable[Entry]) -> list[Found]:
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(find, entries))


def paths(scene: Scene) -> dict[str, Any]:
    """Every network to every peer: what comes back, how soon, how large."""
    interfaces = links.read_interfaces()

    def look(way: Way) -> dict[str, Any]:
        interface = _holder(interfaces, way.here)
        mtu = mtu_of(interface)
        found = echo.ask(way.here, way.there, mtu)
        return {
            "peer": way.peer, "network": way.network, "here": way.here, "there": way.there, "interface": interface, "mtu": mtu,
            "sent": found.sent, "lost": found.lost, "rtt_s": found.rtt_s, "full_passes": found.full_passes,
            "largest_bytes": found.largest_bytes, "trouble": found.trouble,
        }  # fmt: skip

    return {"paths": _beside_each_other(look, scene.ways())}


def ports(scene: Scene) -> dict[str, Any]:
    """A real call to every peer over every network, and a connection to where its rfsmounts listen."""
    calls = _beside_each_other(lambda way: _call(scene, way), scene.ways())
    return {"calls": calls, "data": _beside_each_other(lambda module: _data_port(scene, module), _mirrors(scene))}


def _mirrors(scene: Scene) -> list[ModuleConfig]:
    return [module for module in scene.modules.values() if module.mode == "mirror"]


def _call(scene: Scene, way: Way) -> dict[str, Any]:
    assert scene.cluster is not None
    keys = None if scene.insecure else key_store(scene.config_dir)
    client = PeerClient(scene.cluster.name, scene.node, way.peer, (Network(way.network, way.here, way.there),), keys)
    trouble = ""
    try:
        trio.run(client.call, "hello", {}, CALL_TIMEOUT_S)
    except (PeerUnreachable, PeerRefused) as failure:
        trouble = str(failure)
    door = "open" if not trouble else knock(way.here, way.there, CALL_PORT)
    return {"peer": way.peer, "network": way.network, "port": CALL_PORT, "reached": not trouble, "trouble": trouble, "door": door}


def knock(here: str, there: str, port: int) -> str:
    """What a connection meets: open, refused (nobody listens: nothing stands in the way), silent (dropped), or what the kernel says."""
    with socket.socket() as sock:
        sock.settimeout(CONNECT_TIMEOUT_S)
        try:
            sock.setsockopt(socket.IPPROTO_IP, echo.IP_FREEBIND, 1)
            sock.bind((here, 0))
            sock.connect((there, port))
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silent"
        except OSError as failure:
            return (failure.strerror or str(failure)).lower()
    return "open"


def _data_port(scene: Scene, module: ModuleConfig) -> dict[str, Any]:
    assert scene.cluster is not None
    peer = next(node for node in module.nodes if node != scene.node)
    here, there = (scene.cluster.nodes[node].addresses[module.replication_network] for node in (scene.node, peer))
    linked = mirror_status(scene, module.name).get("link") in LINKED
    door = "paired" if linked else knock(here, there, module.port)
    return {"module": module.name, "peer": peer, "port": module.port, "door": door}


def mirrors(scene: Scene) -> dict[str, Any]:
    """What each rfsmount says of itself."""
    found = [(module.name, mirror_status(scene, module.name)) for module in _mirrors(scene)]
    wanted = ("role", "link", "data", "generation", "code", "reason")
    return {"mirrors": [{"module": name, **{key: status.get(key, "") for key in wanted}} for name, status in found]}


def mirror_status(scene: Scene, module: str) -> dict[str, Any]:
    """`rfsmount.status/1`; empty where none answers."""
    try:
        with BlockingClient(str(scene.paths.module_state(module)), timeout_s=2.0) as client:
            return dict(client.call("status"))
    except (SaidNo, OSError):
        return {}


# ---- firewall ---------------------------------------------------------------------------------------------------------------------------


def firewall(_: Scene) -> dict[str, Any]:
    """The rules, as nft or iptables shows them."""
    for tool, words in (("nft", ["nft", "list", "ruleset"]), ("iptables", ["iptables-save"])):
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError):
            continue
        if done.returncode == 0:
            return {"tool": tool} | read_rules(done.stdout)
    return {"tool": "", "against": [], "drops_by_default": [], "accepts": False}


def read_rules(text: str) -> dict[str, Any]:
    """Which rules speak of our ports, and which chains drop what no rule accepts. Pure."""
    against, by_default, accepts, chain = [], [], False, ""
    for line in (line.strip() for line in text.splitlines()):
        if match := re.match(r"chain (\S+)", line):
            chain = match[1]
        if "hook input" in line and "policy drop" in line:
            by_default.append(chain)
        if match := re.match(r":(INPUT) DROP", line):
            by_default.append(match[1])
        numbers = [int(number) for number in re.findall(r"(?<![\d.:/])\d{2,5}(?![\d.:/])", line)]
        spans = [(int(low), int(high)) for low, high in re.findall(r"(?<![\d.:/])(\d{2,5})[-:](\d{2,5})(?![\d.:/])", line)]
        ours = "port" in line and (any(map(_is_ours, numbers)) or any(low <= OWN_PORTS[1] and high >= OWN_PORTS[0] for low, high in spans))
        if ours and re.search(r"\b(drop|reject|DROP|REJECT)\b", line):
            against.append(line[:200])
        elif ours and re.search(r"\b(accept|ACCEPT)\b", line):
            accepts = True
    return {"against": against[:20], "drops_by_default": by_default, "accepts": accepts}


def _is_ours(port: int) -> bool:
    return OWN_PORTS[0] <= port <= OWN_PORTS[1]


# ---- service addresses ------------------------------------------------------------------------------------------------------------------


def vips(scene: Scene) -> dict[str, Any]:
    """Where each would lie, whether it lies there, and who else answers for it."""
    interfaces = links.read_interfaces()
    peer_macs = {mac.hex(":") for mac in links.neighbours([ipaddress.ip_address(way.there) for way in scene.ways()])}
    wanted = [(module.name, vip) for module in scene.modules.values() for vip in module.vips]
    return {"vips": [_vip(name, vip, interfaces) | {"peer_macs": sorted(peer_macs)} for name, vip in wanted]}


def _vip(module: str, vip: VipConfig, interfaces: Sequence[links.Interface]) -> dict[str, Any]:
    address = ipaddress.ip_interface(vip.address)
    held = any(each.has(address) for each in interfaces)
    found: dict[str, Any] = {"module": module, "address": vip.address, "held": held, "interface": "", "answers": [], "trouble": ""}
    try:
        interface = links.choose_interface(interfaces, address, vip.interface)
        links.check_usable(interface, address)
    except EffectFailed as failure:
        return found | {"trouble": str(failure)}
    try:
        answers = trio.run(wire.probe, interface, address)
    except OSError as failure:
        return found | {"interface": interface.name, "trouble": f"nobody can be asked on {interface.name}: {failure.strerror}"}
    own = {each.mac for each in interfaces}
    return found | {"interface": interface.name, "answers": sorted(mac.hex(":") for mac in answers - own)}


# ---- third parties ----------------------------------------------------------------------------------------------------------------------


def third(scene: Scene) -> dict[str, Any]:
    """Witness and ping addresses."""
    if scene.cluster is None:
        return {"witness": [], "ping": []}
    ca = scene.cluster.witness_ca
    return {
        "witness": _beside_each_other(lambda url: _member(url, ca), scene.cluster.witness),
        "ping": _beside_each_other(_pinged, scene.cluster.ping),
    }


def _pinged(address: str) -> dict[str, Any]:
    found = echo.ask("0.0.0.0", address, None, PINGS)
    return {"address": address, "answers": bool(found.rtts_s), "trouble": found.trouble}


def _member(url: str, ca: str) -> dict[str, Any]:
    """One member of an etcd: which cluster is it of?"""
    endpoint = parse_witness(url)
    connection: http.client.HTTPConnection
    if endpoint.secure:
        context = ssl.create_default_context(cafile=ca or None)
        connection = http.client.HTTPSConnection(endpoint.host, endpoint.port, timeout=CONNECT_TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=CONNECT_TIMEOUT_S)
    try:
        connection.request("POST", "/v3/maintenance/status", "{}", {"content-type": "application/json"})
        answer = from_json(connection.getresponse().read(ANSWER_BYTES_MAX))
        return {"url": url, "cluster": str(answer["header"]["cluster_id"]), "trouble": ""}
    except (OSError, http.client.HTTPException) as failure:
        return {"url": url, "cluster": "", "trouble": getattr(failure, "strerror", None) or str(failure) or type(failure).__name__}
    except (ValueError, KeyError, TypeError):
        return {"url": url, "cluster": "", "trouble": "what answers there is no etcd"}
    finally:
        connection.close()

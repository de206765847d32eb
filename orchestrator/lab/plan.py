"""Who is in the lab and what their addresses are: fixed, so that documents and tests may name them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

LANS: tuple[str, ...] = ("lan", "repl")
PREFIX_BITS = 24
PREFIX_BITS_6 = 64

ADDRESSES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "node1": {"lan": "10.77.0.11", "repl": "10.77.1.11"},
        "node2": {"lan": "10.77.0.12", "repl": "10.77.1.12"},
        "client": {"lan": "10.77.0.20"},
        "witness": {"lan": "10.77.0.21"},
        "node3": {"lan": "10.77.0.13", "repl": "10.77.1.13"},
    }
)
ADDRESSES_6: Mapping[str, Mapping[str, str]] = MappingProxyType(  # for service addresses; the cluster itself talks over IPv4
    {
        "node1": {"lan": "fd77::11"},
        "node2": {"lan": "fd77::12"},
        "client": {"lan": "fd77::20"},
        "witness": {"lan": "fd77::21"},
        "node3": {"lan": "fd77::13"},
    }
)
NODES: tuple[str, ...] = tuple(ADDRESSES)  # all that there may be
THIRD = "node3"  # only in a lab of three servers


def members(servers: int) -> tuple[str, ...]:
    """Who is in a lab of so many servers."""
    return tuple(node for node in NODES if node != THIRD or servers == 3)


def mac_address(node: str, lan: str) -> str:
    """The same at every boot, as a real card's: peers know each other's by heart."""
    octets = [int(part) for part in ADDRESSES[node][lan].split(".")]
    return "02:4c:53:00:" + ":".join(f"{octet:02x}" for octet in octets[-2:])


def port_name(node: str, lan: str) -> str:
    """The switch's end of the node's cable."""
    return f"{node}.{lan}"

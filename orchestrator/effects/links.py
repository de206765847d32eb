"""The machine's network interfaces and the addresses on them, by netlink. Everything here blocks: call it in a worker thread.

A service address is added with a lifetime. An IPv6 one is added without the kernel's own duplicate detection (it was probed
already, and a second of waiting is a second of outage), and without a route of its own where the interface has an address of the
same subnet: that route is the node's, and must neither get the lifetime nor go with the service address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from orchestrator.effects import EffectFailed

LIFETIME_S = 15
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200
AF_INET, AF_INET6 = 2, 10
EADDRNOTAVAIL, ENODEV = 99, 19
ARP_TABLE = Path("/proc/net/arp")
IPV6_SETTINGS = Path("/proc/sys/net/ipv6/conf")

Address = IPv4Interface | IPv6Interface  # with its prefix length


@dataclass(frozen=True, slots=True)
class Interface:
    """A link of this machine."""

    name: str
    index: int
    mac: bytes
    addresses: tuple[Address, ...]

    def in_subnet_of(self, address: Address) -> bool:
        """Has it an address of its own in the same subnet?"""
        return any(own.ip in address.network and own.ip != address.ip for own in self.addresses)

    def has(self, address: Address) -> bool:
        """Does this very address lie on it?"""
        return any(own.ip == address.ip for own in self.addresses)


def read_interfaces() -> list[Interface]:
    """All links with their addresses of both families."""
    with IPRoute() as route:
        addresses: dict[int, list[Address]] = {}
        for message in route.get_addr():
            local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if local is not None and message["family"] in (AF_INET, AF_INET6):
                addresses.setdefault(message["index"], []).append(ipaddress.ip_interface(f"{local}/{message['prefixlen']}"))
        return [
            Interface(
                name=link.get_attr("IFLA_IFNAME"),
                index=link["index"],
                mac=bytes.fromhex((link.get_attr("IFLA_ADDRESS") or "").replace(":", "")),
                addresses=tuple(addresses.get(link["index"], ())),
            )
            for link in route.get_links()
        ]


def choose_interface(interfaces: Sequence[Interface], address: Address, wanted: str | None) -> Interface:
    """The named one, or the one that has an address of its own in the same subnet."""
    for interface in interfaces:
        if interface.name == wanted if wanted is not None else interface.in_subnet_of(address):
            return interface
    missing = f"there is no interface {wanted}" if wanted else f"no interface of this node has an address in {address.network}"
    raise EffectFailed(f"service address {address}: {missing}; name one with 'interface' in the module's file", refused=True)


def check_usable(interface: Interface, address: Address) -> None:
    """Whatever would make the address useless on this interface, said before anything is tried."""
    if len(interface.mac) != 6:
        raise EffectFailed(f"service address {address}: {interface.name} is no Ethernet; name another with 'interface'", refused=True)
    if address.version == 4 or (off := ipv6_setting(interface.name, "disable_ipv6")) == "0":
        return
    if off:
        advice = f"set net.ipv6.conf.{interface.name}.disable_ipv6 to 0, or remove the address"
        raise EffectFailed(f"service address {address}: IPv6 is switched off on {interface.name}; {advice}", refused=True)
    advice = "the kernel was started without it, or the interface's MTU is below 1280"
    raise EffectFailed(f"service address {address}: there is no IPv6 on {interface.name}: {advice}", refused=True)


def ipv6_setting(interface: str, name: str) -> str:
    """A sysctl of an interface; empty where the kernel has no IPv6."""
    try:
        return (IPV6_SETTINGS / interface / name).read_text().strip()
    except OSError:
        return ""


def preferred_s(address: Address, as_source: bool) -> int:
    """An IPv6 address that is no source is deprecated from the start: else the kernel might choose it for what the node itself opens."""
    return LIFETIME_S if address.version == 4 or as_source else 0


def hold_address(interface: Interface, address: Address, as_source: bool) -> None:
    """Add it, or begin its lifetime anew."""
    words: dict[str, Any] = {"preferred_lft": preferred_s(address, as_source), "valid_lft": LIFETIME_S}
    if address.version == 6:
        words["flags"] = IFA_F_NODAD | (IFA_F_NOPREFIXROUTE if interface.in_subnet_of(address) else 0)
    with IPRoute() as route:
        route.addr("replace", index=interface.index, address=str(address.ip), prefixlen=address.network.prefixlen, **words)


def remove_address(interface: Interface, address: Address) -> None:
    """Fine if it is gone, or the interface with it."""
    with IPRoute() as route:
        try:
            route.addr("del", index=interface.index, address=str(address.ip), prefixlen=address.network.prefixlen)
        except NetlinkError as error:
            if error.code not in (EADDRNOTAVAIL, ENODEV):
                raise


def neighbours(of: Sequence[IPv4Address | IPv6Address]) -> set[bytes]:
    """The hardware addresses under which this machine knows these addresses (does not block: a file of the kernel's)."""
    found: set[bytes] = set()
    try:
        lines = ARP_TABLE.read_text().splitlines()[1:]
    except OSError:
        return found
    for line in lines:
        fields = line.split()
        if len(fields) >= 4 and fields[3] != "00:00:00:00:00:00" and IPv4Address(fields[0]) in of:
            found.add(bytes.fromhex(fields[3].replace(":", "")))
    return found

"""The machine's network interfaces and the addresses on them, by netlink. Everything here blocks: call it in a worker thread.

A service address is added with a lifetime. An IPv6 one is added without the kernel's own duplicate detection (it was probed
already, and a second of waiting is a second of outage), and without a route of its own where the interface has an address of the
same subnet: that route is the node's, and must neither get the lifetime nor go with the service address.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from orchestrator.effects import EffectFailed, rtnetlink

LIFETIME_S = 15
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200
ARP_TABLE = Path("/proc/net/arp")
IPV6_SETTINGS = Path("/proc/sys/net/ipv6/conf")

Address = rtnetlink.Address  # with its prefix length


@dataclass(frozen=True, slots=True)
class Interface:
    """A link of this machine."""

    name: str
    index: int
    mac: bytes
    addresses: tuple[Address, ...]
    passing: frozenset[Address] = frozenset()  # of these the ones that soon end unless they are renewed: service addresses, ours or not
    flags: int = 0

    @property
    def is_on(self) -> bool:
        """Did an administrator leave it on?"""
        return bool(self.flags & rtnetlink.IFF_UP)

    @property
    def has_carrier(self) -> bool:
        """Is there somebody at the other end of its cable, and may it be used?"""
        return bool(self.flags & rtnetlink.IFF_LOWER_UP) and bool(self.flags & rtnetlink.IFF_RUNNING)

    def in_subnet_of(self, address: Address) -> bool:
        """Has it an address of its own in the same subnet?"""
        return any(own.ip in address.network and own.ip != address.ip for own in self.addresses if own not in self.passing)

    def has(self, address: Address) -> bool:
        """Does this very address lie on it?"""
        return any(own.ip == address.ip for own in self.addresses)


def read_interfaces() -> list[Interface]:
    """All links with their addresses of both families."""
    return [Interface(link.name, link.index, link.mac, link.addresses, link.passing, link.flags) for link in rtnetlink.read_links()]


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
    flags = 0
    if address.version == 6:
        flags = IFA_F_NODAD | (IFA_F_NOPREFIXROUTE if interface.in_subnet_of(address) else 0)
    rtnetlink.change_address(
        "replace", interface.index, address, valid_s=LIFETIME_S, preferred_s=preferred_s(address, as_source), flags=flags
    )


def remove_address(interface: Interface, address: Address) -> None:
    """Fine if it is gone, or the interface with it."""
    try:
        rtnetlink.change_address("del", interface.index, address)
    except OSError as error:
        if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):
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

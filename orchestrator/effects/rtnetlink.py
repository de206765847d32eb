"""The few questions and orders to the kernel about links and addresses (man 7 rtnetlink). A socket is opened for each, so any thread may
ask. What the kernel refuses is an OSError with its number."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final, Literal

from orchestrator.effects import netlink

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
IFLA_ADDRESS, IFLA_IFNAME = 1, 3
IFF_UP, IFF_RUNNING, IFF_LOWER_UP = 0x1, 0x40, 0x10000
GROUPS_LINKS_AND_ADDRESSES = 0x1 | 0x10 | 0x100
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_CACHEINFO, IFA_FLAGS = 1, 2, 4, 6, 8
LINK: Final = struct.Struct("=BxHiII")  # ifinfomsg
ADDRESS: Final = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix, flags, scope, index
PATIENCE_S: Final = 5.0
PASSING_S: Final = 60

Address = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface, with its addresses of both families."""

    name: str
    index: int
    mac: bytes
    addresses: tuple[Address, ...]
    passing: frozenset[Address] = frozenset()  # those of them that end within a minute unless somebody renews them: service addresses
    flags: int = 0  # IFF_…


def read_links() -> list[Link]:
    """All of them."""
    addresses: dict[int, list[Address]] = {}
    passing: dict[int, set[Address]] = {}
    for body in _dump(RTM_GETADDR, ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        family, prefix, _, _, index = ADDRESS.unpack_from(body)
        attributes = netlink.attributes(body[ADDRESS.size :])
        packed = attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS)
        if family in (socket.AF_INET, socket.AF_INET6) and packed is not None:
            address = ipaddress.ip_interface((packed, prefix))
            addresses.setdefault(index, []).append(address)
            lifetimes = attributes.get(IFA_CACHEINFO, b"")
            if len(lifetimes) >= 8 and struct.unpack_from("=II", lifetimes)[1] <= PASSING_S:
                passing.setdefault(index, set()).add(address)
    found = []
    for body in _dump(RTM_GETLINK, LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        (_, _, index, flags, _), attributes = LINK.unpack_from(body), netlink.attributes(body[LINK.size :])
        name = attributes.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
        mac, lie_there = attributes.get(IFLA_ADDRESS, b""), tuple(addresses.get(index, ()))
        found.append(Link(name, index, mac, lie_there, frozenset(passing.get(index, ())), flags))
    return found


def open_news() -> socket.socket:
    """A socket on which the kernel tells of every change of a link or an address (network_news.py hears it for all)."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    try:
        sock.bind((0, GROUPS_LINKS_AND_ADDRESSES))
    except BaseException:
        sock.close()
        raise
    return sock


def change_address(
    verb: Literal["replace", "del"], index: int, address: Address, *, valid_s: int = 0, preferred_s: int = 0, flags: int = 0
) -> None:
    """Add an address to the link or begin its lifetime anew (`replace`), or take it away (`del`)."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = ADDRESS.pack(family, address.network.prefixlen, flags & 0xFF, 0, index)
    values = {IFA_LOCAL: address.ip.packed, IFA_ADDRESS: address.ip.packed}
    if verb == "del":
        _order(RTM_DELADDR, 0, body + netlink.pack_attributes(values))
        return
    if isinstance(address, IPv4Interface) and address.network.prefixlen < 31:
        values[IFA_BROADCAST] = address.network.broadcast_address.packed
    values[IFA_CACHEINFO] = struct.pack("=IIII", preferred_s, valid_s, 0, 0)
    if flags:
        values[IFA_FLAGS] = struct.pack("=I", flags)
    _order(RTM_NEWADDR, netlink.CREATE | netlink.REPLACE, body + netlink.pack_attributes(values))


def _dump(kind: int, body: bytes) -> list[bytes]:
    with netlink.connect(socket.NETLINK_ROUTE, PATIENCE_S) as sock:
        return netlink.dump(sock, kind, body)


def _order(kind: int, flags: int, body: bytes) -> None:
    with netlink.connect(socket.NETLINK_ROUTE, PATIENCE_S) as sock:
        (error,) = netlink.order(sock, kind, flags, [body])
    if error:
        raise netlink.failure(error)

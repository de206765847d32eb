"""A service address as the source of what this node opens: routes in front of the node's own ones, that say so.

For every route over the interface that leads into the address's subnet, or through a gateway in it, there is a twin with the
address as preferred source, and the twin is found first. Nothing of the node's own is changed, so nothing has to be put back, and
nothing must be remembered: IPv4 twins are removed by the kernel together with the address, however that goes; IPv6 twins are taken
away before it, and else end by their own lifetime, the address's. Every renewal compares again, so a new gateway gets its twin
within seconds. Only the node's first choice for a destination gets a twin: which way packets go is not ours to change.
Everything here blocks: call it in a worker thread. See docs/decisions/0020-the-source-address.md.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from dataclasses import dataclass, replace

from orchestrator.effects import links, netlink
from orchestrator.effects.links import Address, Interface

NETLINK_ROUTE = 0
NEW_ROUTE, DELETE_ROUTE, GET_ROUTE = 24, 25, 26
FIXED = struct.Struct("=BBBBBBBBI")  # family, bits of target and source, tos, table, protocol, scope, type, flags
MAIN_TABLE, UNICAST = 254, 1
CLONED, ON_LINK = 0x200, 0x04
PROTOCOL = 76  # the mark of our twins; nobody else's in /etc/iproute2/rt_protos
TARGET, OVER, GATEWAY, PRIORITY, PREFERRED_SOURCE, CACHE, TABLE, PREFERENCE, EXPIRES = 1, 4, 5, 6, 7, 12, 15, 20, 23
PATIENCE_S = 2.0


def number_in(value: bytes | None, default: int) -> int:
    """An attribute that is a number."""
    return int.from_bytes(value, sys.byteorder) if value is not None else default


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the main table, as the kernel tells it; what we do not know of it is kept as it is."""

    family: int
    target_bits: int
    source_bits: int
    tos: int
    protocol: int
    scope: int
    kind: int
    flags: int
    attributes: dict[int, bytes]

    @property
    def target(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """Where it leads."""
        whole = bytes(4 if self.family == socket.AF_INET else 16)
        return ipaddress.ip_network((self.attributes.get(TARGET, whole), self.target_bits))

    @property
    def priority(self) -> int:
        """The smaller the better."""
        return number_in(self.attributes.get(PRIORITY), 0)

    @property
    def over(self) -> int:
        """The index of its interface; 0 for several."""
        return number_in(self.attributes.get(OVER), 0)

    @property
    def is_twin(self) -> bool:
        """One that was put here by us."""
        return self.protocol == PROTOCOL

    @property
    def place(self) -> tuple[object, ...]:
        """Where the kernel looks; of several routes in one place the first counts. (IPv6's are listed with the best priority first.)"""
        return (self.target, self.tos, self.priority) if self.family == socket.AF_INET else (self.target,)

    @property
    def key(self) -> tuple[object, ...]:
        """What a twin is known by."""
        return self.target, self.tos, self.priority, self.attributes.get(GATEWAY, b"")

    def body(self) -> bytes:
        """As netlink wants it."""
        fixed = FIXED.pack(
            self.family, self.target_bits, self.source_bits, self.tos, MAIN_TABLE, self.protocol, self.scope, self.kind, self.flags
        )
        return fixed + netlink.pack_attributes(self.attributes)


def read_routes(sock: socket.socket, version: int) -> list[Route]:
    """The main table, in the order in which the kernel tries them."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    found = []
    for body in netlink.dump(sock, GET_ROUTE, FIXED.pack(family, 0, 0, 0, MAIN_TABLE, 0, 0, 0, 0)):
        _, bits, source_bits, tos, table, protocol, scope, kind, flags = FIXED.unpack_from(body)
        values = netlink.attributes(body[FIXED.size :])
        if number_in(values.get(TABLE), table) == MAIN_TABLE and kind == UNICAST and not flags & CLONED:
            found.append(Route(family, bits, source_bits, tos, protocol, scope, kind, flags & ON_LINK, values))
    return found


def concerns(route: Route, interface: Interface, address: Address) -> bool:
    """Does it lead over the interface into the address's subnet, or through a gateway in it? (IPv6's gateways often have a link-local
    address only.)"""
    if route.over != interface.index or route.source_bits or route.target.is_link_local or route.target.is_multicast:
        return False
    if (packed := route.attributes.get(GATEWAY)) is None:
        return route.target.prefixlen > 0 and address.ip in route.target
    gateway = ipaddress.ip_address(packed)
    return gateway in address.network or (gateway.version == 6 and gateway.is_link_local)


def twin_of(route: Route, address: Address) -> Route:
    """The same route with our source. IPv4: the same priority, to be put in front; IPv6: one better, and with a lifetime."""
    values = {kind: value for kind, value in route.attributes.items() if kind not in (CACHE, EXPIRES)}
    values[PREFERRED_SOURCE] = address.ip.packed
    if address.version == 6:
        values[PRIORITY] = struct.pack("=I", route.priority - 1)
        values[EXPIRES] = struct.pack("=I", links.LIFETIME_S)
    return replace(route, protocol=PROTOCOL, attributes=values)


def is_twin_for(route: Route, address: Address) -> bool:
    """One of this address's?"""
    return route.is_twin and route.attributes.get(PREFERRED_SOURCE) == address.ip.packed


def prefer_source(interface: Interface, address: Address) -> None:
    """Bring the twins in line with the node's routes, and begin their lifetime anew. May be repeated at any time."""
    with netlink.connect(NETLINK_ROUTE, PATIENCE_S) as sock:
        routes = read_routes(sock, address.version)
        there = {route.key: number for number, route in enumerate(routes) if is_twin_for(route, address)}
        wanted: dict[tuple[object, ...], tuple[int, Route]] = {}
        seen: set[tuple[object, ...]] = set()
        for number, route in enumerate(routes):
            first = not route.is_twin and route.place not in seen
            seen |= {route.place} if first else set()
            if first and concerns(route, interface, address) and (address.version == 4 or route.priority > 1):
                twin = twin_of(route, address)
                wanted[twin.key] = (number, twin)
        for route in routes:
            if route.is_twin and route.over == interface.index and PREFERRED_SOURCE not in route.attributes:
                remove(sock, route)  # an IPv6 one whose address was taken off by somebody else
        for key, number in list(there.items()):
            if key not in wanted or (address.version == 4 and number > wanted[key][0]):  # of no use any more, or behind its original
                remove(sock, routes[number])
                del there[key]
        for key, (_, twin) in wanted.items():
            if address.version == 6:
                change(sock, NEW_ROUTE, netlink.CREATE, twin, errno.EEXIST)  # where it exists, its lifetime begins anew
            elif key not in there:
                change(sock, NEW_ROUTE, netlink.CREATE, twin, errno.EEXIST)


def forget_source(address: Address) -> None:
    """Take the twins away, before the address goes: without it an IPv6 twin would stay as a route like any other."""
    with netlink.connect(NETLINK_ROUTE, PATIENCE_S) as sock:
        for route in read_routes(sock, address.version):
            if is_twin_for(route, address):
                remove(sock, route)


def remove(sock: socket.socket, route: Route) -> None:
    """Fine if it is gone."""
    values = {kind: value for kind, value in route.attributes.items() if kind not in (CACHE, EXPIRES, PREFERENCE)}
    change(sock, DELETE_ROUTE, 0, replace(route, attributes=values), errno.ESRCH)


def change(sock: socket.socket, kind: int, flags: int, route: Route, fine: int = 0) -> None:
    """One route; `fine` is the errno that says that it is so already."""
    (code,) = netlink.order(sock, kind, flags, [route.body()])
    if code not in (0, fine):
        raise netlink.failure(code)

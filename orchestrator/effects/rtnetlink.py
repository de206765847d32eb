"""The few questions and orders to the kernel about links and addresses, as plain bytes (man 7 rtnetlink). It blocks, for microseconds.

A general library makes an event loop and its objects for every question: milliseconds, and with 32 modules that renew their addresses every
3 s that was the largest part of what hactld took. A socket is opened for each question, so any thread may ask. What the kernel refuses is
an OSError with its number.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final, Literal

RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR, RTM_GETLINK = 20, 21, 22, 18
NLM_F_REQUEST, NLM_F_ACK, NLM_F_REPLACE, NLM_F_CREATE, NLM_F_DUMP = 0x1, 0x4, 0x100, 0x400, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
IFLA_ADDRESS, IFLA_IFNAME = 1, 3
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_CACHEINFO, IFA_FLAGS = 1, 2, 4, 6, 8
EINTR_DUMP: Final = 0x10  # NLM_F_DUMP_INTR: something changed under the dump
HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
LINK: Final = struct.Struct("=BxHiII")  # ifinfomsg
ADDRESS: Final = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix, flags, scope, index
ATTRIBUTE: Final = struct.Struct("=HH")
ANSWER_BYTES_MAX: Final = 1 << 16
PATIENCE_S: Final = 5.0
TRIES: Final = 5

Address = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface, with its addresses of both families."""

    name: str
    index: int
    mac: bytes
    addresses: tuple[Address, ...]


def read_links() -> list[Link]:
    """All of them."""
    addresses: dict[int, list[Address]] = {}
    for body in _dump(RTM_GETADDR, ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        family, prefix, _, _, index = ADDRESS.unpack_from(body)
        attributes = _attributes(body[ADDRESS.size :])
        packed = attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS)
        if family in (socket.AF_INET, socket.AF_INET6) and packed is not None:
            addresses.setdefault(index, []).append(ipaddress.ip_interface((packed, prefix)))
    found = []
    for body in _dump(RTM_GETLINK, LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        index, attributes = LINK.unpack_from(body)[2], _attributes(body[LINK.size :])
        name = attributes.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
        found.append(Link(name, index, attributes.get(IFLA_ADDRESS, b""), tuple(addresses.get(index, ()))))
    return found


def change_address(
    verb: Literal["replace", "del"], index: int, address: Address, *, valid_s: int = 0, preferred_s: int = 0, flags: int = 0
) -> None:
    """Add an address to the link or begin its lifetime anew (`replace`), or take it away (`del`)."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    body = ADDRESS.pack(family, address.network.prefixlen, flags & 0xFF, 0, index)
    body += _attribute(IFA_LOCAL, address.ip.packed) + _attribute(IFA_ADDRESS, address.ip.packed)
    if verb == "replace":
        if isinstance(address, IPv4Interface) and address.network.prefixlen < 31:
            body += _attribute(IFA_BROADCAST, address.network.broadcast_address.packed)
        body += _attribute(IFA_CACHEINFO, struct.pack("=IIII", preferred_s, valid_s, 0, 0))
        if flags:
            body += _attribute(IFA_FLAGS, struct.pack("=I", flags))
        _order(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body)
    else:
        _order(RTM_DELADDR, 0, body)


# ---- the bytes --------------------------------------------------------------------------------------------------------


def _attribute(kind: int, value: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(data)
        if length < ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
    return found


def _open() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    sock.settimeout(PATIENCE_S)
    sock.bind((0, 0))
    return sock


def _messages(sock: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and body of everything that the kernel answers."""
    while True:
        data = sock.recv(ANSWER_BYTES_MAX)
        while len(data) >= HEADER.size:
            length, kind, flags, _, _ = HEADER.unpack_from(data)
            yield kind, flags, data[HEADER.size : length]
            data = data[(length + 3) & ~3 :]


def _ask(sock: socket.socket, kind: int, flags: int, body: bytes) -> None:
    sock.send(HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body)


def _raise(body: bytes) -> None:
    number = -struct.unpack_from("=i", body)[0]
    if number:
        raise OSError(number, os.strerror(number))


def _dump(kind: int, body: bytes) -> list[bytes]:
    for _ in range(TRIES):
        found, whole = list[bytes](), True
        with _open() as sock:
            _ask(sock, kind, NLM_F_DUMP, body)
            for answer, flags, data in _messages(sock):
                whole = whole and not flags & EINTR_DUMP
                if answer == NLMSG_DONE:
                    break
                if answer == NLMSG_ERROR:
                    _raise(data)
                found.append(data)
        if whole:
            break
    return found


def _order(kind: int, flags: int, body: bytes) -> None:
    with _open() as sock:
        _ask(sock, kind, NLM_F_ACK | flags, body)
        for answer, _, data in _messages(sock):
            if answer == NLMSG_ERROR:
                _raise(data)
                return

"""Connections of an address that is about to go: the kernel is told to break them, so that the other ends hear it at once.

Without this a client whose connection was left open (by a proxy, or half closed by a service that is gone) finds out only when it
sends, or never. The kernel's socket diagnosis lists them and destroys them one by one (SOCK_DESTROY); it sends the RST itself, as
only it knows the sequence numbers. Listening sockets stay: they hurt nobody and may be wanted when the address comes back.
A kernel without CONFIG_INET_DIAG_DESTROY says EOPNOTSUPP: then clients learn it from the address's next holder, when they send.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from orchestrator.effects import netlink

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
BYTECODE = 1  # the attribute with a filter
SOURCE_IS = 7  # its instruction: compare the local address
TIME_WAIT, CLOSE, LISTEN = 6, 7, 10
CONNECTIONS = 0x1FFE & ~(1 << LISTEN | 1 << CLOSE | 1 << TIME_WAIT)  # a set of states; the bit of a state is its number
DIAG_REQUEST = struct.Struct("=BBBBI48s")
SOCKET_ID = slice(4, 52)  # of an answer: ports, addresses, interface, cookie; exactly what names the socket in a request
AT_A_TIME = 64


def source_is(address: IPv4Address | IPv6Address) -> bytes:
    """The filter: sockets whose local address is this one. Of IPv6 sockets, IPv4's also in their mapped form."""
    family, bits = (socket.AF_INET, 32) if address.version == 4 else (socket.AF_INET6, 128)
    condition = struct.pack("=BBxxi", family, bits, -1) + address.packed
    length = 4 + len(condition)
    code = struct.pack("=BBH", SOURCE_IS, length, length + 4) + condition  # yes: to the end; no: beyond it, which rejects
    return netlink.pack_attributes({BYTECODE: code})


def connections(sock: socket.socket, family: int, address: IPv4Address | IPv6Address) -> list[bytes]:
    """The ids of the sockets of this family with this local address."""
    body = DIAG_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, CONNECTIONS, bytes(48)) + source_is(address)
    return [answer[SOCKET_ID] for answer in netlink.dump(sock, SOCK_DIAG_BY_FAMILY, body)]


def destroy(sock: socket.socket, family: int, ids: list[bytes]) -> int:
    """Break them; how many are broken. One that ended by itself meanwhile is no matter."""
    errors = netlink.order(sock, SOCK_DESTROY, 0, [DIAG_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, CONNECTIONS, name) for name in ids])
    if errno.EOPNOTSUPP in errors:
        raise OSError(errno.EOPNOTSUPP, "this kernel cannot break connections (it lacks CONFIG_INET_DIAG_DESTROY)")
    return errors.count(0)


def reset(addresses: Iterable[IPv4Address | IPv6Address], patience_s: float) -> int:
    """Break every connection whose local end is one of the addresses (blocking). How many; OSError if it cannot be done or took
    longer than the patience: the rest stays."""
    deadline, broken = time.monotonic() + patience_s, 0
    with netlink.connect(NETLINK_SOCK_DIAG, patience_s) as sock:
        for address in addresses:
            for family in (socket.AF_INET, socket.AF_INET6) if address.version == 4 else (socket.AF_INET6,):
                ids = connections(sock, family, address)
                for first in range(0, len(ids), AT_A_TIME):
                    if time.monotonic() > deadline:
                        raise OSError(errno.ETIMEDOUT, f"after {patience_s} s {broken} were broken and more are left")
                    broken += destroy(sock, family, ids[first : first + AT_A_TIME])
    return broken

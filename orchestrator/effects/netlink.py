"""Netlink by hand: requests as bytes, answers as bytes. Blocks, for microseconds, or for as long as the socket's timeout says.

pyroute2 has no words for some of what is needed here, and makes an event loop and its objects for every question: milliseconds, and with
32 modules that renew their addresses every 3 s that was the largest part of what hactld took.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence

REQUEST, ACKNOWLEDGE, DUMP = 0x001, 0x004, 0x300
INTERRUPTED = 0x010  # something changed under a dump
DUMP_TRIES = 5
REPLACE, CREATE = 0x100, 0x400
ERROR, DONE = 2, 3
HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
RECEIVE_BYTES = 1 << 18


def connect(protocol: int, timeout_s: float) -> socket.socket:
    """A socket of one netlink protocol."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    sock.settimeout(timeout_s)
    return sock


def message(kind: int, flags: int, body: bytes) -> bytes:
    """A request."""
    return HEADER.pack(HEADER.size + len(body), kind, REQUEST | flags, 0, 0) + body


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes behind a body's fixed part."""
    found = {}
    while len(data) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(data)
        if length < ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
    return found


def kinds_in(data: bytes) -> Iterator[int]:
    """Of the messages in what was received."""
    while len(data) >= HEADER.size:
        length, kind, *_ = HEADER.unpack_from(data)
        if length < HEADER.size:
            break
        yield kind
        data = data[(length + 3) & ~3 :]


def pack_attributes(values: Mapping[int, bytes]) -> bytes:
    """The opposite."""
    return b"".join(ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4) for kind, value in values.items())


def dump(sock: socket.socket, kind: int, body: bytes) -> list[bytes]:
    """All that the kernel lists, asked again when it changed meanwhile; OSError when it does not."""
    for _ in range(DUMP_TRIES):
        found, whole = _dump_once(sock, kind, body)
        if whole:
            return found
    raise failure(errno.EAGAIN)


def _dump_once(sock: socket.socket, kind: int, body: bytes) -> tuple[list[bytes], bool]:
    sock.send(message(kind, DUMP, body))
    found: list[bytes] = []
    whole = True
    while True:
        for answered, flags, answer in messages(sock.recv(RECEIVE_BYTES)):
            whole = whole and not flags & INTERRUPTED
            if answered == DONE:
                return found, whole
            if answered == ERROR:
                raise failure(error_in(answer))
            found.append(answer)


def order(sock: socket.socket, kind: int, flags: int, bodies: Sequence[bytes]) -> list[int]:
    """Several requests at once; of each the errno, 0 for done."""
    sock.send(b"".join(message(kind, ACKNOWLEDGE | flags, body) for body in bodies))
    errors: list[int] = []
    while len(errors) < len(bodies):
        errors += [error_in(answer) for answered, _, answer in messages(sock.recv(RECEIVE_BYTES)) if answered == ERROR]
    return errors


def failure(code: int) -> OSError:
    """What the kernel said, as an exception."""
    return OSError(code, os.strerror(code))


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, flags and body of each."""
    while len(data) >= HEADER.size:
        length, kind, flags, *_ = HEADER.unpack_from(data)
        if length < HEADER.size:
            break
        yield kind, flags, data[HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def error_in(body: bytes) -> int:
    """The errno of an acknowledgement."""
    return -int(struct.unpack_from("=i", body)[0])

"""Netlink by hand, for what pyroute2 has no clean words for: requests as bytes, answers as bytes. Blocks, for as long as the
socket's timeout says."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence

REQUEST, ACKNOWLEDGE, DUMP = 0x001, 0x004, 0x300
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


def pack_attributes(values: Mapping[int, bytes]) -> bytes:
    """The opposite."""
    return b"".join(ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4) for kind, value in values.items())


def dump(sock: socket.socket, kind: int, body: bytes) -> list[bytes]:
    """All that the kernel lists; OSError when it does not."""
    sock.send(message(kind, DUMP, body))
    found: list[bytes] = []
    while True:
        for answered, answer in messages(sock.recv(RECEIVE_BYTES)):
            if answered == DONE:
                return found
            if answered == ERROR:
                raise failure(error_in(answer))
            found.append(answer)


def order(sock: socket.socket, kind: int, flags: int, bodies: Sequence[bytes]) -> list[int]:
    """Several requests at once; of each the errno, 0 for done."""
    sock.send(b"".join(message(kind, ACKNOWLEDGE | flags, body) for body in bodies))
    errors: list[int] = []
    while len(errors) < len(bodies):
        errors += [error_in(answer) for answered, answer in messages(sock.recv(RECEIVE_BYTES)) if answered == ERROR]
    return errors


def failure(code: int) -> OSError:
    """What the kernel said, as an exception."""
    return OSError(code, os.strerror(code))


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and body of each."""
    while len(data) >= HEADER.size:
        length, kind, *_ = HEADER.unpack_from(data)
        yield kind, data[HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def error_in(body: bytes) -> int:
    """The errno of an acknowledgement."""
    return -int(struct.unpack_from("=i", body)[0])

"""Does a port accept connections? One is opened and closed again; nothing is sent.

A name that nobody resolves holds up a thread for half a minute and more. It is one of the checker's own (one_thread.py): trio's threads are
few and shared, and the service address and the starts of services depend on them.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from typing import Any

import trio

from orchestrator.checkers.checker import Finding
from orchestrator.checkers.one_thread import OneThread
from orchestrator.checkers.targets import Endpoint, parse_endpoint

WORDS = {
    errno.ECONNREFUSED: "refuses connections",
    errno.EHOSTUNREACH: "cannot be reached: no such host answers",
    errno.ENETUNREACH: "cannot be reached: there is no route",
    errno.ETIMEDOUT: "does not answer",
    errno.ECONNRESET: "breaks connections off",
}


class TcpChecker:
    """Up while somebody accepts connections there."""

    def __init__(self, to: str, source: str | None = None) -> None:
        self.endpoint, self.source = parse_endpoint(to), source
        self._thread = OneThread()

    async def look(self) -> Finding:
        """Connect, and hang up."""
        try:
            connected = await connect(self.endpoint, self._thread, self.source)
        except OSError as error:
            return Finding(False, why_not(self.endpoint, error))
        connected.close()
        return Finding(True, f"{self.endpoint} accepts connections")

    async def changed(self) -> None:
        """Nobody tells."""
        await trio.sleep_forever()


async def connect(endpoint: Endpoint, thread: OneThread, source: str | None = None) -> trio.socket.SocketType:
    """A connection to the first of its addresses that takes one, or the OSError of the last. A name is looked up in `thread`."""
    family = socket.AF_UNSPEC if source is None else socket.AF_INET if ip_address(source).version == 4 else socket.AF_INET6
    failure = OSError(f"{endpoint.host} has no address")
    for found, kind, protocol, address in await _addresses(endpoint, family, thread):
        sock = trio.socket.socket(found, kind, protocol)
        try:
            if source is not None:
                await sock.bind((source, 0))
            await sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


Address = tuple[int, int, int, Any]  # family, kind, protocol, and what connect() takes


async def _addresses(endpoint: Endpoint, family: int, thread: OneThread) -> list[Address]:
    try:
        return _look_up(endpoint, family, socket.AI_NUMERICHOST)  # an address needs no thread
    except socket.gaierror as error:
        if error.errno != socket.EAI_NONAME:
            raise
    return await thread.run(_look_up, endpoint, family, 0)


def _look_up(endpoint: Endpoint, family: int, flags: int) -> list[Address]:
    """Blocking, unless flags say that it is no name."""
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, family, socket.SOCK_STREAM, flags=flags)
    except UnicodeError:  # no name that DNS can hold
        raise socket.gaierror(socket.EAI_NONAME, "it is no host name") from None
    return [(each, kind, protocol, address) for each, kind, protocol, _, address in found]


def why_not(endpoint: Endpoint, error: OSError) -> str:
    """In words that say what to look at."""
    if isinstance(error, socket.gaierror):
        return f"{endpoint.host} cannot be resolved: {error.strerror}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{endpoint} cannot be tried: the source address is not on this node"
    return f"{endpoint} {WORDS.get(error.errno or 0) or f'cannot be reached: {error.strerror or error}'}"

"""Does a port accept connections? One is opened and closed again; nothing is sent."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

import trio

from orchestrator.checkers.checker import Finding
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

    async def look(self) -> Finding:
        """Connect, and hang up."""
        try:
            connected = await connect(self.endpoint, self.source)
        except OSError as error:
            return Finding(False, why_not(self.endpoint, error))
        connected.close()
        return Finding(True, f"{self.endpoint} accepts connections")

    async def changed(self) -> None:
        """Nobody tells."""
        await trio.sleep_forever()


async def connect(endpoint: Endpoint, source: str | None = None) -> trio.socket.SocketType:
    """A connection to the first of its addresses that takes one, or the OSError of the last."""
    family = socket.AF_UNSPEC if source is None else socket.AF_INET if ip_address(source).version == 4 else socket.AF_INET6
    failure = OSError(f"{endpoint.host} has no address")
    for found, kind, protocol, _, address in await trio.socket.getaddrinfo(endpoint.host, endpoint.port, family, socket.SOCK_STREAM):
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


def why_not(endpoint: Endpoint, error: OSError) -> str:
    """In words that say what to look at."""
    if isinstance(error, socket.gaierror):
        return f"{endpoint.host} cannot be resolved: {error.strerror}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{endpoint} cannot be tried: the source address is not on this node"
    return f"{endpoint} {WORDS.get(error.errno or 0) or f'cannot be reached: {error.strerror or error}'}"

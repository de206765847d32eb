"""The two doors of a node, which all its peers share: heartbeats arrive on one socket for each own address, calls on one listener for each.

Who stands before a door is known by the address that it comes from: a datagram is given to the pair of that address, a connection to the
server of that peer, and only there its keys are looked at. Nobody can be mistaken for another peer: an address is expected for one peer
only, and what comes from it must be made with that peer's key. Whatever comes from an address that is nobody's is dropped, counted, and
logged once for each door: a stranger must be able neither to confuse hactld nor to fill its log.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from orchestrator.heartbeat import IP_FREEBIND, PORT, Network
from orchestrator.peer import PORT as CALL_PORT

DATAGRAM_BYTES_MAX: Final = 9000  # a longer one is cut off, and so is nobody's
BACKLOG: Final = 64
UNKNOWN: Final = "unknown-address"

Hear = Callable[[bytes], None]
Serve = Callable[[trio.SocketStream], Awaitable[None]]


class PulseDoor:
    """UDP, for all pairs."""

    def __init__(self, log: Callable[[str], None], port: int = PORT) -> None:
        self.log, self.port = log, port
        self.dropped: Counter[str] = Counter()
        self._names: dict[str, str] = {}  # own address -> the network's name
        self._hearers: dict[tuple[str, str], Hear] = {}  # own address and the peer's -> who hears it
        self._sockets: dict[str, trio.socket.SocketType] = {}

    def expect(self, network: Network, hear: Hear) -> None:
        """What the peer sends over this network goes to `hear`, from the next `run` on."""
        assert (network.here, network.there) not in self._hearers, f"{network.there} is expected twice"
        self._names[network.here] = network.name
        self._hearers[network.here, network.there] = hear

    def sockets_of(self, networks: tuple[Network, ...]) -> dict[str, trio.socket.SocketType]:
        """By the network's name: what to send with. Once `run` has started."""
        return {network.name: self._sockets[network.here] for network in networks}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        try:
            for here in self._names:
                self._sockets[here] = sock = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
                await sock.bind((here, self.port))
            async with trio.open_nursery() as nursery:
                for here in self._names:
                    nursery.start_soon(self._listen, here)
                task_status.started()
        finally:
            for sock in self._sockets.values():  # the same process may open the door again
                sock.close()

    async def _listen(self, here: str) -> None:
        while True:
            try:
                data, (there, *_) = await self._sockets[here].recvfrom(DATAGRAM_BYTES_MAX)
            except OSError:  # an ICMP "unreachable" for one of our own pulses
                continue
            if (hear := self._hearers.get((here, there))) is not None:
                hear(data)
                continue
            kind = f"{UNKNOWN} on {self._names[here]}"
            self.dropped[kind] += 1
            if self.dropped[kind] == 1:
                self.log(f"heartbeat dropped: {kind} from {there} (counted from now on, not logged again)")


class CallDoor:
    """TCP, for all peers."""

    def __init__(self, log: Callable[[str], None], port: int = CALL_PORT) -> None:
        self.log, self.port = log, port
        self.refused: Counter[str] = Counter()
        self._here: dict[str, None] = {}
        self._servers: dict[str, Serve] = {}  # by the peer's address

    def expect(self, network: Network, serve: Serve) -> None:
        """A connection from the peer's address is answered by `serve`, from the next `run` on."""
        self._here[network.here] = None
        self._servers[network.there] = serve

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        listeners = []
        for here in self._here:
            sock = trio.socket.socket()
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
            sock.setsockopt(trio.socket.IPPROTO_IP, IP_FREEBIND, 1)
            await sock.bind((here, self.port))
            sock.listen(BACKLOG)
            listeners.append(trio.SocketListener(sock))
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(trio.serve_listeners, self._serve, [listener])
            task_status.started()

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            there = str(stream.socket.getpeername()[0])
        except OSError:
            return  # it went away before we looked
        if (serve := self._servers.get(there)) is not None:
            await serve(stream)
            return
        self.refused[UNKNOWN] += 1
        if self.refused[UNKNOWN] == 1:
            self.log(f"call refused: {UNKNOWN} from {there} (counted from now on, not logged again)")

"""Ping: does any of the administrator's addresses answer? A hint that tells "the peer is gone" from "I was cut off".

It never grants anything by itself (two halves of a split network may both reach their routers). The window is shorter than the
peer's silence must last, so that a node that was cut off knows it before it may draw conclusions from the silence.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable

import trio

EVERY_S = 0.5
WINDOW_S = 2.0
ECHO_REQUEST, ECHO_REPLY = 8, 0


def checksum(data: bytes) -> int:
    """The Internet checksum."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(identity: int, number: int) -> bytes:
    """One ICMP packet."""
    header = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, identity, number)
    return struct.pack("!BBHHH", ECHO_REQUEST, 0, checksum(header), identity, number)


class Ping:
    """Asks all addresses twice a second and tells the verdict at every change, and once a second anyway."""

    def __init__(self, addresses: tuple[str, ...], deliver: Callable[[bool], None], log: Callable[[str], None]) -> None:
        self.addresses, self.deliver, self.log = addresses, deliver, log
        self.identity = os.getpid() & 0xFFFF
        self._answered_at = float("-inf")

    async def run(self) -> None:
        """Until cancelled; at once over when there is nothing to ask."""
        if not self.addresses:
            return
        try:
            sock = trio.socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        except PermissionError:
            self.log("ping needs the right to open raw sockets; without an answer this node counts as cut off")
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hear, sock)
            number = 0
            while True:
                number = (number + 1) & 0xFFFF
                for address in self.addresses:
                    try:
                        await sock.sendto(echo_request(self.identity, number), (address, 0))
                    except OSError:
                        continue  # no route: the missing answer says it
                await trio.sleep(EVERY_S)
                self.deliver(trio.current_time() - self._answered_at < WINDOW_S)

    async def _hear(self, sock: trio.socket.SocketType) -> None:
        while True:
            try:
                data, (host, *_) = await sock.recvfrom(2048)
            except OSError:
                continue
            icmp = data[(data[0] & 0x0F) * 4 :] if data else b""
            if len(icmp) < 8 or icmp[0] != ECHO_REPLY or struct.unpack("!H", icmp[4:6])[0] != self.identity:
                continue
            if host in self.addresses:
                self._answered_at = trio.current_time()

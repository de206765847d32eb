"""Do other machines answer an ICMP echo? Both families, several addresses, of which one or all must answer.

Several questions go to each address within a look: one packet may be lost. A look that no answer ends is over a little before its deadline,
so that it can say who did not answer.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from typing import Literal

import trio

from orchestrator.checkers.checker import Finding
from orchestrator.config import listed
from orchestrator.witness.ping import ECHO_REPLY, echo_request

QUESTIONS = 3
PART_OF_TIMEOUT = 0.9
ECHO_REQUEST_6, ECHO_REPLY_6 = 128, 129
RECEIVE_BYTES = 2048
TROUBLES = {
    errno.ENETUNREACH: "cannot be reached: there is no route",
    errno.EHOSTUNREACH: "cannot be reached: no such host answers",
    errno.EINVAL: "cannot be reached: a route of this node swallows it",
    errno.EACCES: "cannot be reached: this node's firewall or routes forbid it",
    errno.EPERM: "cannot be reached: this node's firewall forbids it",
}


@dataclass
class Asked:
    """What became of one address."""

    address: str
    trouble: str = "does not answer"
    answered: trio.Event = field(default_factory=trio.Event)


class PingChecker:
    """Up while any of them answers, or all of them do."""

    def __init__(self, to: tuple[str, ...], need: Literal["any", "all"] = "any", timeout_s: float = 5.0) -> None:
        self.addresses, self.need, self.patience_s = to, need, timeout_s * PART_OF_TIMEOUT

    async def look(self) -> Finding:
        """Ask all beside each other."""
        asked = [Asked(address) for address in self.addresses]
        enough = 1 if self.need == "any" else len(asked)
        with trio.move_on_after(self.patience_s):
            async with trio.open_nursery() as nursery:
                for each in asked:
                    nursery.start_soon(self._ask, each, asked, enough, nursery.cancel_scope)
        answered = [each for each in asked if each.answered.is_set()]
        if len(answered) >= enough:
            return Finding(True, f"{listed(each.address for each in answered)} answer{'s' if len(answered) == 1 else ''}")
        return Finding(False, "; ".join(f"{each.address} {each.trouble}" for each in asked if not each.answered.is_set()))

    async def changed(self) -> None:
        """Nobody tells."""
        await trio.sleep_forever()

    async def _ask(self, each: Asked, asked: list[Asked], enough: int, scope: trio.CancelScope) -> None:
        try:
            sock = open_socket(each.address)
        except OSError as error:
            each.trouble = f"cannot be asked: {error.strerror}"
            return
        with sock:
            number, identity = secrets.randbelow(1 << 15), secrets.randbelow(1 << 16)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._question, sock, each, identity, number)
                await _hear(sock, each, identity, range(number, number + QUESTIONS))
                nursery.cancel_scope.cancel()
        each.answered.set()
        if sum(other.answered.is_set() for other in asked) >= enough:
            scope.cancel()

    async def _question(self, sock: trio.socket.SocketType, each: Asked, identity: int, number: int) -> None:
        for more in range(QUESTIONS):
            try:
                await sock.sendto(question(each.address, identity, number + more), (each.address, 0))
            except OSError as error:  # no route now: perhaps at the next try
                each.trouble = TROUBLES.get(error.errno or 0, f"cannot be asked: {error.strerror}")
            await trio.sleep(self.patience_s / QUESTIONS)


async def _hear(sock: trio.socket.SocketType, each: Asked, identity: int, numbers: range) -> None:
    """Until it has answered."""
    while True:
        try:
            data, (host, *_) = await sock.recvfrom(RECEIVE_BYTES)
        except OSError:  # somebody on the way said no: the missing answer says it
            continue
        if ip_address(host.partition("%")[0]) == ip_address(each.address) and is_answer(data, each.address, identity, numbers):
            return


def open_socket(address: str) -> trio.socket.SocketType:
    """Of its family; raw, which needs the right to it."""
    if isinstance(ip_address(address), IPv4Address):
        return trio.socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    return trio.socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)


def question(address: str, identity: int, number: int) -> bytes:
    """The packet; the checksum of ICMPv6 covers the addresses too, and is the kernel's."""
    if isinstance(ip_address(address), IPv4Address):
        return echo_request(identity, number)
    return struct.pack("!BBHHH", ECHO_REQUEST_6, 0, 0, identity, number) + os.urandom(8)


def is_answer(data: bytes, address: str, identity: int, numbers: range) -> bool:
    """Is this the reply to one of ours? A raw socket hears all replies to this machine, and of IPv4 with their IP headers."""
    if isinstance(ip_address(address), IPv4Address):
        data, wanted = data[(data[0] & 0x0F) * 4 :] if data else b"", ECHO_REPLY
    else:
        wanted = ECHO_REPLY_6
    if len(data) < 8 or data[0] != wanted:
        return False
    said, number = struct.unpack_from("!HH", data, 4)
    return said == identity and number in numbers

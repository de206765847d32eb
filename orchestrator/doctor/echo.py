"""Echo requests of our own: how far away a host is, what is lost on the way, and how large a packet may be. Blocks; needs root.

Every request forbids routers to cut it into pieces, and the kernel to trust what it believes about the path (IP_PMTUDISC_PROBE): what comes
back has passed whole, in both directions.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from orchestrator.witness.ping import checksum

ECHO_REQUEST, ECHO_REPLY = 8, 0
HEADERS_BYTES = 28  # IPv4 and ICMP
IP_MTU_DISCOVER, IP_PMTUDISC_PROBE, IP_FREEBIND = 10, 3, 15
REQUESTS = 20
PACE_S = 0.02
LAST_WAIT_S = 0.5
SIZES_BYTES = (9000, 8900, 4000, 1500, 1492, 1480, 1450, 1400, 1350, 1280, 1024, 576)
ATTEMPTS = 3


@dataclass(slots=True)
class Echo:
    """What came back from one address."""

    sent: int = 0
    rtts_s: list[float] = field(default_factory=list)
    full_passes: bool | None = None
    largest_bytes: int | None = None
    trouble: str = ""

    @property
    def lost(self) -> int:
        """Of the small ones."""
        return self.sent - len(self.rtts_s)

    @property
    def rtt_s(self) -> float | None:
        """The median."""
        return sorted(self.rtts_s)[len(self.rtts_s) // 2] if self.rtts_s else None


class Asker:
    """A raw socket that asks one address and hears its answers only."""

    def __init__(self, here: str, there: str) -> None:
        self.there = there
        self.identity = int.from_bytes(os.urandom(2), "big")
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        try:
            self.sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
            self.sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
            self.sock.bind((here, 0))
        except OSError:
            self.sock.close()
            raise
        self.sent_at: dict[int, float] = {}

    def close(self) -> None:
        """No more."""
        self.sock.close()

    def ask(self, number: int, bytes_: int) -> None:
        """A packet of this whole size; OSError when the kernel refuses it."""
        payload = bytes(max(0, bytes_ - HEADERS_BYTES) & ~1)
        head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, self.identity, number)
        packet = struct.pack("!BBHHH", ECHO_REQUEST, 0, checksum(head + payload), self.identity, number) + payload
        self.sent_at[number] = time.monotonic()
        self.sock.sendto(packet, (self.there, 0))

    def answers_until(self, deadline: float) -> Iterator[tuple[int, float]]:
        """Number and round trip of what comes back."""
        while (left_s := deadline - time.monotonic()) > 0:
            self.sock.settimeout(left_s)
            try:
                data, (host, *_) = self.sock.recvfrom(65536)
            except TimeoutError:
                return
            except OSError:
                continue  # an ICMP error for one of ours
            icmp = data[(data[0] & 0x0F) * 4 :] if data else b""
            if host != self.there or len(icmp) < 8 or icmp[0] != ECHO_REPLY:
                continue
            identity, number = struct.unpack("!HH", icmp[4:8])
            if identity == self.identity and number in self.sent_at:
                yield number, time.monotonic() - self.sent_at.pop(number)


def ask(here: str, there: str, mtu: int | None, requests: int = REQUESTS) -> Echo:
    """Everything about one way."""
    echo = Echo()
    try:
        asker = Asker(here, there)
    except OSError as failure:
        echo.trouble = failure.strerror or str(failure)
        return echo
    try:
        _ask_small(asker, echo, requests)
        if mtu and echo.rtts_s and not echo.trouble:
            _ask_large(asker, echo, mtu)
    finally:
        asker.close()
    return echo


def _ask_small(asker: Asker, echo: Echo, requests: int) -> None:
    for number in range(requests):
        try:
            asker.ask(number, 84)
        except OSError as failure:
            echo.trouble = failure.strerror or str(failure)
            return
        echo.sent += 1
        last = number == requests - 1
        for _, rtt_s in asker.answers_until(time.monotonic() + (LAST_WAIT_S if last else PACE_S)):
            echo.rtts_s.append(rtt_s)
            if last and len(echo.rtts_s) == echo.sent:
                break


def _ask_large(asker: Asker, echo: Echo, mtu: int) -> None:
    """The interface's own size first; when that does not come back, the largest that does."""
    assert echo.rtt_s is not None
    patience_s = max(0.1, 6 * echo.rtt_s)
    echo.full_passes = _passes(asker, mtu, 1000, patience_s)
    if echo.full_passes:
        echo.largest_bytes = mtu
        return
    for at, size in enumerate(size for size in SIZES_BYTES if size < mtu):
        if _passes(asker, size, 2000 + 10 * at, patience_s):
            echo.largest_bytes = size
            return


def _passes(asker: Asker, bytes_: int, number: int, patience_s: float) -> bool:
    """One of a few: a single one may be lost for another reason."""
    for attempt in range(ATTEMPTS):
        try:
            asker.ask(number + attempt, bytes_)
        except OSError:
            return False  # larger than the interface allows
        if any(number <= answered < number + ATTEMPTS for answered, _ in asker.answers_until(time.monotonic() + patience_s)):
            return True
    return False

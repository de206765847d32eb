"""Frames on the wire: ask who has an address, and say where it lives now; ARP and neighbour discovery alike.

Closing a packet socket waits for the kernel, 10 to 30 ms: a probe's socket is closed in a thread, and the one that announces stays
open. All addresses are asked for beside each other, so several cost the time of one.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

import trio

from orchestrator.effects import arp, ndp
from orchestrator.effects.links import Address, Interface, ipv6_setting

QUESTIONS = 3  # one may be lost, and another
ASK_EVERY_S = 0.05
PROBE_S = 0.15  # the whole of it
SO_ATTACH_FILTER = 26


def attach_filter(sock: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    """Let the kernel drop what is not asked for: on a busy interface that is nearly everything."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(buffer)))


def open_probe(interface: str, address: Address) -> socket.socket:
    """A packet socket for the answers about this address."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # deaf until it is bound, so that the filter misses nothing
    try:
        if address.version == 6:
            attach_filter(sock, ndp.FILTER)
        sock.bind((interface, ndp.ETHERTYPE if address.version == 6 else arp.ETHERTYPE))
    except BaseException:
        sock.close()
        raise
    return sock


def question(mac: bytes, address: IPv4Address | IPv6Address) -> bytes:
    """In the family's own protocol."""
    return ndp.question(mac, address) if isinstance(address, IPv6Address) else arp.question(mac, address)


async def probe(interface: Interface, address: Address) -> frozenset[bytes]:
    """The machines (other than this one) that say they have the address."""
    claim = ndp.claim if address.version == 6 else arp.claim
    answers: set[bytes] = set()
    began = trio.current_time()
    opened = await trio.to_thread.run_sync(open_probe, interface.name, address)
    sock = trio.socket.from_stdlib_socket(opened)
    try:
        for number in range(QUESTIONS):
            await sock.send(question(interface.mac, address.ip))
            last = number == QUESTIONS - 1
            with trio.move_on_at(began + (PROBE_S if last else ASK_EVERY_S * (number + 1))):
                while True:
                    said = claim(await sock.recv(2048))
                    if said is not None and said[1] == address.ip and said[0] != interface.mac:
                        answers.add(said[0])
    finally:
        trio.lowlevel.notify_closing(opened)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(opened.close)
    return frozenset(answers)


async def probe_all(places: Sequence[tuple[Address, Interface]]) -> dict[Address, frozenset[bytes]]:
    """Who answers for which of them; OSError when one cannot be asked for."""
    answers: dict[Address, frozenset[bytes]] = {}
    failures: list[OSError] = []

    async def ask(address: Address, interface: Interface) -> None:
        try:
            answers[address] = await probe(interface, address)
        except OSError as error:
            failures.append(OSError(error.errno, f"cannot ask on {interface.name} who has {address.ip}: {error.strerror}"))

    async with trio.open_nursery() as nursery:
        for address, interface in places:
            nursery.start_soon(ask, address, interface)
    if failures:
        raise failures[0]
    return answers


class Announcer:
    """Says where addresses live, for as long as somebody asks it to."""

    def __init__(self) -> None:
        self._sock: socket.socket | None = None

    def announce(self, interface: Interface, address: Address) -> None:
        """At once; OSError when the link is down."""
        if self._sock is None:
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._sock.setblocking(False)
        target = address.ip
        if isinstance(target, IPv6Address):
            frames = ndp.announcements(interface.mac, target, router=ipv6_setting(interface.name, "forwarding") == "1")
        else:
            frames = arp.announcements(interface.mac, target)
        for frame in frames:
            self._sock.sendto(frame, (interface.name, ndp.ETHERTYPE if address.version == 6 else arp.ETHERTYPE))

"""ARP by hand: ask whether an address is in use, and tell the network where it lives now (IPv4)."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address

import trio

ETH_P_ARP = 0x0806
BROADCAST = b"\xff" * 6
REQUEST, REPLY = 1, 2
PROBE_WAIT_S = 0.15
PROBES = 2


def frame(operation: int, sender_mac: bytes, sender: IPv4Address, target_mac: bytes, target: IPv4Address) -> bytes:
    """An Ethernet frame with one ARP packet, broadcast."""
    header = struct.pack("!6s6sH", BROADCAST, sender_mac, ETH_P_ARP)
    return header + struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, sender_mac, sender.packed, target_mac, target.packed)


def sender_of(data: bytes) -> tuple[bytes, IPv4Address] | None:
    """Who says in this frame that he has which address; None for what is no ARP for IPv4 over Ethernet."""
    if len(data) < 42 or struct.unpack("!H", data[12:14])[0] != ETH_P_ARP or struct.unpack("!HHBB", data[14:20]) != (1, 0x0800, 6, 4):
        return None
    return data[22:28], IPv4Address(data[28:32])


def open_socket(interface: str) -> trio.socket.SocketType:
    """A packet socket for ARP on one interface."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP))
    sock.setblocking(False)
    sock.bind((interface, ETH_P_ARP))
    return trio.socket.from_stdlib_socket(sock)


async def probe(interface: str, mac: bytes, address: IPv4Address) -> set[bytes]:
    """The machines (other than `mac`) that say they have `address`."""
    answers: set[bytes] = set()
    with open_socket(interface) as sock:
        for _ in range(PROBES):
            await sock.send(frame(REQUEST, mac, IPv4Address(0), b"\0" * 6, address))
            with trio.move_on_after(PROBE_WAIT_S):
                while True:
                    said = sender_of(await sock.recv(2048))
                    if said is not None and said[1] == address and said[0] != mac:
                        answers.add(said[0])
    return answers


async def announce(interface: str, mac: bytes, address: IPv4Address) -> None:
    """Gratuitous ARP, as a request and as a reply: some systems believe only one of them."""
    with open_socket(interface) as sock:
        await sock.send(frame(REQUEST, mac, address, b"\0" * 6, address))
        await sock.send(frame(REPLY, mac, address, mac, address))

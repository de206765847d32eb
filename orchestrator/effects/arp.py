"""ARP by hand, as frames: ask whether an IPv4 address is in use, and tell the network where it lives now."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

ETHERTYPE = 0x0806
BROADCAST = b"\xff" * 6
REQUEST, REPLY = 1, 2


def frame(operation: int, sender_mac: bytes, sender: IPv4Address, target_mac: bytes, target: IPv4Address) -> bytes:
    """An Ethernet frame with one ARP packet, broadcast."""
    header = struct.pack("!6s6sH", BROADCAST, sender_mac, ETHERTYPE)
    return header + struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, sender_mac, sender.packed, target_mac, target.packed)


def question(mac: bytes, address: IPv4Address) -> bytes:
    """Who has it? Asked from no address, so that nobody's table changes."""
    return frame(REQUEST, mac, IPv4Address(0), b"\0" * 6, address)


def claim(data: bytes) -> tuple[bytes, IPv4Address] | None:
    """Who says in this frame that he has which address; None for what is no ARP for IPv4 over Ethernet."""
    if len(data) < 42 or struct.unpack("!H", data[12:14])[0] != ETHERTYPE or struct.unpack("!HHBB", data[14:20]) != (1, 0x0800, 6, 4):
        return None
    return data[22:28], IPv4Address(data[28:32])


def announcements(mac: bytes, address: IPv4Address) -> tuple[bytes, ...]:
    """Gratuitous ARP, as a request and as a reply: some systems believe only one of them."""
    return frame(REQUEST, mac, address, b"\0" * 6, address), frame(REPLY, mac, address, mac, address)

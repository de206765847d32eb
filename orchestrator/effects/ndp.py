"""Neighbour discovery by hand, as frames: what arp.py is for IPv4.

The question is the one of duplicate address detection (RFC 4862): a Neighbour Solicitation from the unspecified address, which a
holder must answer to everybody. Announced is by unsolicited Neighbour Advertisements with the override flag (RFC 4861, 7.2.6).
"""

from __future__ import annotations

import struct
from ipaddress import IPv6Address

ETHERTYPE = 0x86DD
ICMP = 58
SOLICITATION, ADVERTISEMENT = 135, 136
OVERRIDE, ROUTER = 0x20000000, 0x80000000
TARGET_MAC = 2  # the option that carries a hardware address in an advertisement
HOPS = 255  # whatever came over a router has fewer, and is not believed
NOBODY = IPv6Address("::")
ALL_NODES = IPv6Address("ff02::1")
# In the kernel: of all IPv6 only advertisements (the bytes "next header" and ICMP type, behind the Ethernet header).
FILTER = ((0x30, 0, 0, 20), (0x15, 0, 3, ICMP), (0x30, 0, 0, 54), (0x15, 0, 1, ADVERTISEMENT), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0))


def group_of(address: IPv6Address) -> IPv6Address:
    """The multicast group that whoever has the address listens to."""
    return IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:])


def checksum(source: IPv6Address, target: IPv6Address, message: bytes) -> int:
    """Of ICMPv6, over the addresses too."""
    data = source.packed + target.packed + struct.pack("!II", len(message), ICMP) + message
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def frame(mac: bytes, source: IPv6Address, group: IPv6Address, message: bytes) -> bytes:
    """An Ethernet frame to a multicast group, with one ICMPv6 message whose checksum is still missing."""
    message = message[:2] + struct.pack("!H", checksum(source, group, message)) + message[4:]
    ethernet = struct.pack("!6s6sH", b"\x33\x33" + group.packed[12:], mac, ETHERTYPE)
    return ethernet + struct.pack("!IHBB", 6 << 28, len(message), ICMP, HOPS) + source.packed + group.packed + message


def question(mac: bytes, address: IPv6Address) -> bytes:
    """Who has it? Asked from no address, so that nobody's table changes."""
    return frame(mac, NOBODY, group_of(address), struct.pack("!BBHI", SOLICITATION, 0, 0, 0) + address.packed)


def claim(data: bytes) -> tuple[bytes, IPv6Address] | None:
    """Who says in this frame that he has which address; None for what is no advertisement."""
    if len(data) < 78 or data[12:14] != b"\x86\xdd" or (data[20], data[21], data[54]) != (ICMP, HOPS, ADVERTISEMENT):
        return None
    mac, options = data[6:12], data[78:]
    while len(options) >= 8 and options[1]:
        if options[0] == TARGET_MAC:
            mac = options[2:8]
        options = options[options[1] * 8 :]
    return mac, IPv6Address(data[62:78])


def announcements(mac: bytes, address: IPv6Address, router: bool) -> tuple[bytes, ...]:
    """One that overrides what the neighbours know. `router`: a machine that forwards must not say that it does not."""
    flags = OVERRIDE | (ROUTER if router else 0)
    message = struct.pack("!BBHI", ADVERTISEMENT, 0, 0, flags) + address.packed + bytes((TARGET_MAC, 1)) + mac
    return (frame(mac, address, ALL_NODES, message),)

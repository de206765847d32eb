"""ARP and neighbour discovery as bytes: what is sent has the form of the standards, and only a real claim is believed."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from orchestrator.effects import arp, ndp

MAC, OTHER = bytes.fromhex("024c53000b01"), bytes.fromhex("024c53000b02")
VIP4, VIP6 = IPv4Address("10.9.0.100"), IPv6Address("fd77::12:3456")


def valid_checksum(frame: bytes) -> bool:
    """Over the pseudo header and the message with its checksum, the sum is all ones."""
    message = frame[54:]
    data = frame[22:54] + struct.pack("!II", len(message), 58) + message
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


def test_the_questions_come_from_no_address() -> None:
    asked = arp.question(MAC, VIP4)
    assert asked[:14] == b"\xff" * 6 + MAC + b"\x08\x06" and asked[28:32] == bytes(4) and asked[38:42] == VIP4.packed
    asked = ndp.question(MAC, VIP6)
    assert asked[:14] == bytes.fromhex("3333ff123456") + MAC + b"\x86\xdd"
    assert asked[22:38] == bytes(16) and IPv6Address(asked[38:54]) == IPv6Address("ff02::1:ff12:3456")
    assert (asked[20], asked[21], asked[54]) == (58, 255, 135) and asked[62:78] == VIP6.packed and len(asked) == 78
    assert valid_checksum(asked)


def test_a_question_is_no_claim() -> None:
    assert arp.claim(arp.question(MAC, VIP4)) == (MAC, IPv4Address(0))
    assert ndp.claim(ndp.question(MAC, VIP6)) is None


def test_announcements_claim_the_address() -> None:
    assert [arp.claim(frame) for frame in arp.announcements(MAC, VIP4)] == [(MAC, VIP4)] * 2
    (frame,) = ndp.announcements(MAC, VIP6, router=False)
    assert frame[:6] == bytes.fromhex("333300000001") and frame[22:38] == VIP6.packed and valid_checksum(frame)
    assert frame[58] == 0x20, "override, and nothing else: nobody asked"
    assert ndp.announcements(MAC, VIP6, router=True)[0][58] == 0xA0
    assert ndp.claim(frame) == (MAC, VIP6)


def test_who_claims_is_who_the_advertisement_names() -> None:
    (frame,) = ndp.announcements(MAC, VIP6, router=False)
    by_proxy = frame[:6] + OTHER + frame[12:]
    assert ndp.claim(by_proxy) == (MAC, VIP6)
    assert ndp.claim(by_proxy[:78]) == (OTHER, VIP6), "without the option it is who sent it"


def test_nonsense_is_no_claim() -> None:
    (frame,) = ndp.announcements(MAC, VIP6, router=False)
    for length in range(78):
        assert ndp.claim(frame[:length]) is None
    from_afar = frame[:21] + bytes((254,)) + frame[22:]
    assert ndp.claim(from_afar) is None, "it came over a router"
    assert ndp.claim(frame[:78] + bytes(8)) == (MAC, VIP6), "an option without a length ends them"
    assert arp.claim(frame) is None and ndp.claim(arp.question(MAC, VIP4) + bytes(64)) is None

"""Heartbeats: datagrams from the peer's address, sealed with its key or not. Whatever comes is a pulse of the peer's or is counted as none;
and who has the key cannot make hactld remember more and more."""

from __future__ import annotations

import trio

from orchestrator.core.states import Readiness, State, Summary
from orchestrator.heartbeat import Heartbeats, Network
from orchestrator.peer_words import KNOWN_MAX
from orchestrator.pulse import BadPulse, Pulse, Share, decode, encode
from orchestrator.seal import RUN_BYTES, UNPROVEN_MAX, Sealer, Secrets
from tests.fuzz.streams import run

LAN = Network("lan", "192.0.2.1", "192.0.2.2")
PULSE = Pulse(
    "c",
    "n2",
    "boot",
    5,
    1,
    {bytes(RUN_BYTES): 3},
    Share("", "", {"pg": Summary(State.PRIM, Readiness.READY, serves=True, term=4, reason="because", up=1, catalogue=7)}),
)
RAW = 0x80


def pulse(data: bytes) -> None:
    """What is inside."""
    try:
        said = decode(data, "c", "n2")
    except BadPulse:
        return
    again = decode(encode(said), "c", "n2") if len(data) < 900 else said
    assert again == said


def datagrams(data: bytes) -> None:
    """A row of them, each a byte for its run (or RAW: not sealed), one for its number, one for its length. The real receiver hears them."""

    async def hear() -> None:
        heard: list[object] = []
        ours = Heartbeats(
            cluster="c",
            node="n1",
            peer="n2",
            boot="b",
            incarnation=1,
            networks=(LAN,),
            interval_s=0.5,
            say=dict,
            deliver=heard.append,
            log=lambda text: None,
            secrets=Secrets(None, "n2"),
        )
        theirs: dict[int, Sealer] = {}
        ours._sealer.renew()
        left, room = data, 40
        while len(left) >= 3 and room:
            (kind, number, length), left, room = left[:3], left[3:], room - 1
            text, left = left[: 4 * length], left[4 * length :]
            if kind & RAW:
                ours.hear(LAN, text)
                continue
            if kind not in theirs:
                theirs[kind] = Sealer(Secrets(None, "n1"), "n2")
                theirs[kind].renew()
                theirs[kind].run = bytes([kind]) * RUN_BYTES
                theirs[kind]._cipher = cipher_of(theirs[kind].run)
            ours.hear(LAN, theirs[kind].seal(text, 0, LAN.name, number))
        assert len(ours._opener._runs) <= UNPROVEN_MAX + 1 and len(ours._words._words) <= KNOWN_MAX
        assert sum(ours.dropped.values()) + len(heard) <= 200 and len(ours.dropped) <= 12
        ours._words.now(trio.current_time() + 100)

    run(hear)


def cipher_of(key_run: bytes) -> object:
    from orchestrator.seal import INSECURE_SECRET, derive

    return derive(INSECURE_SECRET, key_run, "n2", "n1", "insecure")


PARSERS = {"pulse": pulse, "datagrams": datagrams}


def seeds() -> dict[str, dict[str, bytes]]:
    """By parser."""
    text = encode(PULSE)
    padded = text + bytes(-len(text) % 4)
    row = bytes([3, 1, len(padded) // 4]) + padded
    return {
        "pulse": {
            "one": text,
            "none": encode(Pulse("c", "n2", "b", 1, 1, {}, Share())),
            "deep": b"\x81\xa8lockstep" + b"\x91" * 900 + b"\xc0",
        },
        "datagrams": {"one": row, "again": row + row, "raw": bytes([RAW, 0, 12]) + b"LSHB\2".ljust(48, b"\0")},
    }

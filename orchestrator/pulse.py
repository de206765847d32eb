"""What a heartbeat says: one datagram of it, as bytes.

A pulse is one datagram or a few. What 32 modules are does not fit into one that every path carries whole, and of a datagram in fragments
nothing arrives when one of them is lost. So the names, in order, are cut into ranges, and each datagram says everything about its own
range: "of all names after A and up to B, these are mine, and so they are". It needs no other datagram of the same pulse to be understood:
each one alone proves that its sender lives, has a counter and the echoes, and either brings all that is to be said about a module or does
not speak of it at all. What the receiver makes of that is in peer_words.py.

Nothing from the network is believed by its form: whatever is not exactly this is BadPulse.

What a release adds goes beside the summaries, under a name of its own: a release that does not know it leaves it out, and one that misses
it knows nothing of it. So the two meet under one VERSION, and no upgrade of one node makes its peer silent. `resources` is the first such
addition: of each module that is watched by checkers which of them are up and down (core/resources.py), and whether a rule stands against
handing the role to this node. VERSION is for what cannot be left out. """

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

import msgpack

from orchestrator.core.states import Readiness, State, Summary
from orchestrator.seal import OVERHEAD_BYTES, RUN_BYTES
from rfs.foreign import from_msgpack

VERSION: Final = 3
ECHOES_MAX: Final = 4
DATAGRAM_BYTES_MAX: Final = 1232  # IPv6's least MTU (1280) without its headers: no path cuts it into pieces
PULSE_BYTES_MAX: Final = DATAGRAM_BYTES_MAX - OVERHEAD_BYTES
NAME_CHARACTERS_MAX: Final = 64
TEXT_CHARACTERS_MAX: Final = 40
REASON_BYTES_MAX: Final = 200
MODULES_MAX: Final = 256
FLAGS: Final = ("serves", "rfs_alive", "yielded", "complete", "services_failed", "paused", "led")  # a bit each, the first the lowest
RESOURCES: Final = ("catalogue", "up", "down", "unfit")  # the addition, in this order
TEXTS: Final = ("data", "generation", "role", "link", "service")


class BadPulse(Exception):
    """These bytes are no pulse of our peer; `kind` is what is counted."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Share:
    """What one datagram says of the modules: all there is to say about the names after `after`, up to `upto` (empty: to the end)."""

    after: str = ""
    upto: str = ""
    modules: Mapping[str, Summary] = field(default_factory=dict)

    def speaks_of(self, name: str) -> bool:
        """Is this name in its range?"""
        return self.after < name and (not self.upto or name <= self.upto)


@dataclass(frozen=True, slots=True)
class Pulse:
    """One datagram."""

    cluster: str
    node: str
    boot: str
    incarnation: int
    counter: int
    echoes: Mapping[bytes, int]  # runs of the receiver (seal.py) -> the newest counter of theirs heard on this network
    share: Share


# ---- summaries --------------------------------------------------------------------------------------------------------


def summary_to_wire(summary: Summary) -> list[Any]:
    """Only plain values, in a fixed order: names would be two thirds of it."""
    bits = sum(getattr(summary, flag) << place for place, flag in enumerate(FLAGS))
    texts = [getattr(summary, name) for name in TEXTS]
    return [summary.state.value, summary.readiness.value, bits, summary.term, *texts, clipped(summary.reason)]


def clipped(text: str) -> str:
    """No longer than a reason may be on the wire, and still whole characters."""
    return text.encode(errors="replace")[:REASON_BYTES_MAX].decode(errors="ignore")


def summary_from_wire(wire: object) -> Summary:
    """Every field checked; BadPulse for anything else."""
    if not isinstance(wire, list) or len(wire) != 5 + len(TEXTS):
        raise BadPulse("malformed")
    state, readiness, bits, term, *texts, reason = wire
    if not all(type(number) is int and 0 <= number < 2**63 for number in (bits, term)) or bits >> len(FLAGS):
        raise BadPulse("malformed")
    if not all(isinstance(text, str) and len(text) <= TEXT_CHARACTERS_MAX for text in texts):
        raise BadPulse("malformed")
    if not isinstance(reason, str) or len(reason) > REASON_BYTES_MAX:
        raise BadPulse("malformed")
    fields: dict[str, Any] = {flag: bool(bits >> place & 1) for place, flag in enumerate(FLAGS)}
    fields.update(zip(TEXTS, texts, strict=True))
    try:
        return Summary(state=State(state), readiness=Readiness(readiness), term=term, reason=reason, **fields)
    except ValueError as error:
        raise BadPulse("malformed") from error


def resources_to_wire(modules: Mapping[str, Summary]) -> dict[str, list[int]]:
    """What is beside the summaries; nothing of a module that has no checkers."""
    return {
        name: [int(getattr(summary, field)) for field in RESOURCES]
        for name, summary in modules.items()
        if summary.catalogue or summary.unfit
    }


def with_resources(modules: Mapping[str, Summary], wire: object) -> dict[str, Summary]:
    """The summaries with what was beside them; None, from a release that does not know it: as they are."""
    found = dict(modules)
    if wire is None:
        return found
    if not isinstance(wire, dict) or not set(wire) <= set(modules):
        raise BadPulse("malformed")
    for name, numbers in wire.items():
        match numbers:
            case [int(catalogue), int(up), int(down), int(unfit)] if all(type(number) is int and 0 <= number < 2**63 for number in numbers):
                if up & down or unfit > 1:
                    raise BadPulse("malformed")
                found[name] = replace(found[name], catalogue=catalogue, up=up, down=down, unfit=bool(unfit))
            case _:
                raise BadPulse("malformed")
    return found


def modules_from_wire(wire: object) -> dict[str, Summary]:
    """A map of names to summaries."""
    if not isinstance(wire, dict) or len(wire) > MODULES_MAX:
        raise BadPulse("malformed")
    if not all(isinstance(name, str) and 0 < len(name) <= NAME_CHARACTERS_MAX for name in wire):
        raise BadPulse("malformed")
    return {name: summary_from_wire(value) for name, value in wire.items()}


@lru_cache(maxsize=64)  # an idle pair says the same again and again
def _modules_from_bytes(packed: bytes, beside: bytes) -> dict[str, Summary]:
    try:
        modules = modules_from_wire(from_msgpack(packed))
        return with_resources(modules, from_msgpack(beside) if beside else None)
    except ValueError as error:
        raise BadPulse("malformed") from error


# ---- datagrams --------------------------------------------------------------------------------------------------------


def shares(modules: Mapping[str, Summary], room_bytes: int) -> Iterator[Share]:
    """The modules in ranges of which each fits into `room_bytes`; at least one, that says "none" when there are none."""
    after, used_bytes = "", 0
    taken: dict[str, Summary] = {}
    for name in sorted(modules):
        size_bytes = sum(map(len, pack({name: modules[name]}))) - 2  # without their two heads
        if taken and used_bytes + size_bytes > room_bytes:
            upto = next(reversed(taken))
            yield Share(after, upto, taken)
            after, used_bytes, taken = upto, 0, {}
        taken[name] = modules[name]
        used_bytes += size_bytes
    yield Share(after, "", taken)


class Speech:
    """What is said is cut and packed once, and again only when it is another."""

    def __init__(self, cluster: str, node: str, boot: str) -> None:
        echoes = {bytes([run]) * RUN_BYTES: 2**63 for run in range(ECHOES_MAX)}
        longest = Pulse(cluster, node, boot, 2**63, 2**63, echoes, Share())
        self._room_bytes = PULSE_BYTES_MAX - len(encode(longest)) - 2 * (NAME_CHARACTERS_MAX + 2) - 16
        self._said: Mapping[str, Summary] | None = None
        self._packed: list[tuple[Share, Packed]] = []

    def parts(self, modules: Mapping[str, Summary]) -> list[tuple[Share, Packed]]:
        """The shares and their summaries as bytes."""
        if modules != self._said:
            self._said = modules
            self._packed = [(share, pack(share.modules)) for share in shares(modules, self._room_bytes)]
        return self._packed


Packed = tuple[bytes, bytes]  # summaries, and what is beside them


def pack(modules: Mapping[str, Summary]) -> Packed:
    """Summaries as bytes, and what is beside them."""
    packed: bytes = msgpack.packb({name: summary_to_wire(summary) for name, summary in modules.items()}, unicode_errors="replace")
    beside: bytes = msgpack.packb(resources_to_wire(modules), unicode_errors="replace")
    return packed, beside


def encode(pulse: Pulse, packed: Packed | None = None) -> bytes:
    """The datagram; `packed`: its summaries, where they are packed already."""
    summaries, beside = pack(pulse.share.modules) if packed is None else packed
    document = {
        "lockstep": VERSION,
        "cluster": pulse.cluster,
        "node": pulse.node,
        "boot": pulse.boot,
        "incarnation": pulse.incarnation,
        "counter": pulse.counter,
        "echoes": [[run, counter] for run, counter in pulse.echoes.items()],
        "range": [pulse.share.after, pulse.share.upto],
        "modules": summaries,
        "resources": beside,
    }
    data: bytes = msgpack.packb(document)
    return data


def decode(data: bytes, cluster: str, peer: str) -> Pulse:
    """The pulse in a datagram that claims to come from `peer` of `cluster`."""
    if len(data) > PULSE_BYTES_MAX:
        raise BadPulse("too-long")
    try:
        document = from_msgpack(data)
    except ValueError as error:
        raise BadPulse("malformed") from error
    if not isinstance(document, dict) or type(document.get("lockstep")) is not int:
        raise BadPulse("malformed")
    if document["lockstep"] != VERSION:
        raise BadPulse("other-version")
    if document.get("cluster") != cluster:
        raise BadPulse("other-cluster")
    if document.get("node") != peer:
        raise BadPulse("unknown-node")
    numbers = [document.get(name) for name in ("incarnation", "counter")]
    if not all(type(number) is int and 0 <= number < 2**64 for number in numbers) or not isinstance(document.get("boot"), str):
        raise BadPulse("malformed")
    incarnation, counter = (int(number) for number in numbers if number is not None)
    share = _share(document.get("range"), document.get("modules"), document.get("resources", b""))
    return Pulse(cluster, peer, document["boot"], incarnation, counter, _echoes(document.get("echoes")), share)


def _share(limits: object, packed: object, beside: object) -> Share:
    match limits, packed, beside:
        case [str(after), str(upto)], bytes(data), bytes(more) if len(after) <= NAME_CHARACTERS_MAX and len(upto) <= NAME_CHARACTERS_MAX:
            share = Share(after, upto, _modules_from_bytes(data, more))
            if all(share.speaks_of(name) for name in share.modules):
                return share
    raise BadPulse("malformed")


def _echoes(wire: object) -> dict[bytes, int]:
    if not isinstance(wire, list) or len(wire) > ECHOES_MAX:
        raise BadPulse("malformed")
    found: dict[bytes, int] = {}
    for entry in wire:
        match entry:
            case [bytes(run), int(counter)] if len(run) == RUN_BYTES and type(counter) is int and 0 <= counter < 2**64:
                found[run] = counter
            case _:
                raise BadPulse("malformed")
    return found

"""The pulse: a small UDP datagram on every network, every interval, and at once when what we say about a module changes.

It carries who speaks (cluster, node, boot, incarnation of this hactld), one counter for all networks, the newest counter of
the peer heard on this network (so that each side sees both directions), and a summary of every module. It is sealed
(seal.py): only the peer can have made it, and only now. Whatever is not a well-formed pulse of our peer, from the peer's own
address, is dropped, counted, and logged once per kind: a stranger on the network must be able neither to confuse hactld nor
to fill its log.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import trio

from orchestrator.core.events import Heartbeat
from orchestrator.core.states import Readiness, State, Summary
from orchestrator.seal import RUN_BYTES, Opener, Sealer, Secrets, Unsealed

PORT = 5599
VERSION = 2
ECHOES_MAX = 4
PULSE_BYTES_MAX = 8192
MODULES_MAX = 64
REASON_CHARACTERS_MAX = 200
IP_FREEBIND = 15  # the address may come up after hactld


class BadPulse(Exception):
    """These bytes are no pulse of our peer; `kind` is what is counted."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Pulse:
    """One datagram."""

    cluster: str
    node: str
    boot: str
    incarnation: int
    counter: int
    echoes: Mapping[bytes, int]  # runs of the receiver (seal.py) -> the newest counter of theirs heard on this network
    modules: Mapping[str, Summary]


LATER_FLAGS = ("paused", "led")  # a peer of the first release does not send them


def summary_to_wire(summary: Summary) -> dict[str, Any]:
    """Only plain values."""
    return {
        "state": summary.state.value,
        "readiness": summary.readiness.value,
        "data": summary.data,
        "generation": summary.generation,
        "role": summary.role,
        "term": summary.term,
        "link": summary.link,
        "serves": summary.serves,
        "rfs_alive": summary.rfs_alive,
        "yielded": summary.yielded,
        "complete": summary.complete,
        "services_failed": summary.services_failed,
        "paused": summary.paused,
        "led": summary.led,
        "service": summary.service,
        "reason": summary.reason[:REASON_CHARACTERS_MAX],
    }


def summary_from_wire(wire: object) -> Summary:
    """Every field checked; BadPulse for anything else."""
    if not isinstance(wire, dict):
        raise BadPulse("malformed")
    flags = ("serves", "rfs_alive", "yielded", "complete", "services_failed", *LATER_FLAGS)
    kinds: dict[str, type] = {"term": int, **dict.fromkeys(flags, bool)}
    fields: dict[str, Any] = {}
    for name in ("data", "generation", "role", "link", "service", "reason", *kinds):
        value = wire.get(name, False) if name in LATER_FLAGS else wire.get(name)
        if type(value) is not kinds.get(name, str) or (isinstance(value, str) and len(value) > REASON_CHARACTERS_MAX):
            raise BadPulse("malformed")
        fields[name] = value
    try:
        return Summary(state=State(wire.get("state")), readiness=Readiness(wire.get("readiness")), **fields)
    except ValueError as error:
        raise BadPulse("malformed") from error


def modules_from_wire(wire: object) -> dict[str, Summary]:
    """A map of names to summaries."""
    if not isinstance(wire, dict) or len(wire) > MODULES_MAX or not all(isinstance(name, str) and len(name) <= 64 for name in wire):
        raise BadPulse("malformed")
    return {name: summary_from_wire(value) for name, value in wire.items()}


def encode(pulse: Pulse) -> bytes:
    """The datagram. Reasons are left out when it would become too long."""
    modules = {name: summary_to_wire(summary) for name, summary in pulse.modules.items()}
    document = {
        "lockstep": VERSION,
        "cluster": pulse.cluster,
        "node": pulse.node,
        "boot": pulse.boot,
        "incarnation": pulse.incarnation,
        "counter": pulse.counter,
        "echoes": [[run, counter] for run, counter in pulse.echoes.items()],
        "modules": modules,
    }
    data: bytes = msgpack.packb(document)
    if len(data) > PULSE_BYTES_MAX:
        document["modules"] = {name: {**wire, "reason": ""} for name, wire in modules.items()}
        data = msgpack.packb(document)
    return data


def decode(data: bytes, cluster: str, peer: str) -> Pulse:
    """The pulse in a datagram that claims to come from `peer` of `cluster`."""
    if len(data) > PULSE_BYTES_MAX:
        raise BadPulse("too-long")
    try:
        document = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, msgpack.exceptions.UnpackException) as error:
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
    modules = modules_from_wire(document.get("modules"))
    return Pulse(cluster, peer, document["boot"], incarnation, counter, _echoes(document.get("echoes")), modules)


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


@dataclass(frozen=True, slots=True)
class Network:
    """One network between the two nodes."""

    name: str
    here: str
    there: str


class FirstHeard:
    """When the peer is known to have said what. A pulse that comes late on one network proves that the peer lived when it was said: no
    later than when something newer was heard on any other. Without this, somebody on one network could store pulses and keep a dead
    peer alive with them."""

    def __init__(self) -> None:
        self._heard: deque[tuple[int, float]] = deque(maxlen=256)  # counter and time, both rising

    def note(self, counter: int, now: float) -> float:
        """The time that a pulse with this counter stands for."""
        if not self._heard or counter > self._heard[-1][0]:
            self._heard.append((counter, now))
            return now
        return next(at for known, at in self._heard if known >= counter)


class Heartbeats:
    """Sends and hears the pulse on all networks."""

    def __init__(
        self,
        *,
        cluster: str,
        node: str,
        peer: str,
        boot: str,
        incarnation: int,
        networks: tuple[Network, ...],
        interval_s: float,
        say: Callable[[], Mapping[str, Summary]],
        deliver: Callable[[Heartbeat], None],
        log: Callable[[str], None],
        secrets: Secrets,
        port: int = PORT,
    ) -> None:
        self.cluster, self.node, self.peer, self.boot, self.incarnation = cluster, node, peer, boot, incarnation
        self.networks, self.interval_s, self.say, self.deliver, self.log, self.port = networks, interval_s, say, deliver, log, port
        self.counter = 0
        self.peer_boot = ""
        self.dropped: Counter[str] = Counter()
        self._secrets = secrets
        self._sealer = Sealer(secrets, node)
        self._opener = Opener(secrets, node, lambda: self.counter)
        self._newest: dict[tuple[str, bytes], int] = {}  # network and the peer's run -> its newest counter
        self._first_heard = FirstHeard()
        self._now = trio.Event()

    def pulse_now(self) -> None:
        """Something changed that the peer must not learn half a second late."""
        self._now.set()

    async def run(self, sockets: Mapping[str, trio.socket.SocketType]) -> None:
        """Pulse until cancelled, with the door's sockets (doors.py), by the network's name."""
        await self._pulse_forever(sockets)

    async def _pulse_forever(self, sockets: Mapping[str, trio.socket.SocketType]) -> None:
        while True:
            self._now = trio.Event()
            self.counter += 1
            if self._sealer.renew():
                await self._send(sockets, self.say())
            else:
                self._complain("nothing is sent", f": {self._secrets.trouble or 'no key of the peer is paired'}")
            with trio.move_on_after(self.interval_s):
                await self._now.wait()

    async def _send(self, sockets: Mapping[str, trio.socket.SocketType], modules: Mapping[str, Summary]) -> None:
        counter = self.counter
        for index, network in enumerate(self.networks):
            pulse = Pulse(self.cluster, self.node, self.boot, self.incarnation, counter, self._echoes_on(network), modules)
            try:
                sealed = self._sealer.seal(encode(pulse), index, network.name, counter)
                await sockets[network.name].sendto(sealed, (network.there, self.port))
            except OSError as error:  # the network is down or refuses: silence is the message, the peer's detector reads it
                self._complain(f"send on {network.name}: {error.strerror}")

    def _echoes_on(self, network: Network) -> dict[bytes, int]:
        """Of the peer's run that is believed, and of the newest of those that have yet to prove that they are there."""
        runs = [self._opener.proven or b"", *self._opener.unproven[-(ECHOES_MAX - 1) :]]
        return {run: self._newest[network.name, run] for run in runs if (network.name, run) in self._newest}

    def hear(self, network: Network, data: bytes) -> None:
        """A datagram from the peer's address on this network."""
        try:
            text, run, number = self._opener.open(data, network.name)
            pulse = decode(text, self.cluster, self.peer)
            if pulse.counter != number:
                raise BadPulse("malformed")
            self._accept(network, run, pulse)
        except (BadPulse, Unsealed) as bad:
            self._complain(f"{bad.kind} on {network.name}", f" from {network.there}")

    def _accept(self, network: Network, run: bytes, pulse: Pulse) -> None:
        newest = self._newest.get((network.name, run))
        self._newest[network.name, run] = max(newest or 0, pulse.counter)
        echo = max((pulse.echoes.get(own, 0) for own in self._sealer.runs), default=0)
        was_proven = self._opener.proven == run
        if not was_proven and newest is None:
            self.pulse_now()  # a number to echo that nobody can have recorded
        if not self._opener.believes(run, echo):
            return
        if not was_proven:
            self.pulse_now()  # so does the peer learn at once that it was heard
            known = {run, *self._opener.unproven}
            self._newest = {key: counter for key, counter in self._newest.items() if key[1] in known}
            self._first_heard = FirstHeard()
        self.peer_boot = pulse.boot
        at = self._first_heard.note(pulse.counter, trio.current_time())
        self.deliver(Heartbeat(at, network.name, pulse.incarnation, pulse.counter, echo, pulse.modules))

    def _complain(self, kind: str, first: str = "") -> None:
        """Kinds are few, whoever sends whatever: the address that a stranger may choose is told once and not counted by."""
        self.dropped[kind] += 1
        if self.dropped[kind] == 1:
            self.log(f"heartbeat dropped: {kind}{first} (counted from now on, not logged again)")

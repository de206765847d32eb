"""The pulse: a small UDP datagram on every network, every interval, and at once when what we say about a module changes.

It carries who speaks (cluster, node, boot, incarnation of this hactld), one counter for all networks, the newest counter of
the peer heard on this network (so that each side sees both directions), and a summary of every module: in one datagram, or, when there
are many modules, in a few, each complete in itself and with a counter of its own (pulse.py, peer_words.py). It is sealed
(seal.py): only the peer can have made it, and only now. Whatever is not a well-formed pulse of our peer, from the peer's own
address, is dropped, counted, and logged once per kind: a stranger on the network must be able neither to confuse hactld nor
to fill its log.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import trio

from orchestrator.core.events import Heartbeat, PeerTold
from orchestrator.core.states import Summary
from orchestrator.peer_words import PeerWords
from orchestrator.pulse import ECHOES_MAX, BadPulse, Pulse, Speech, decode, encode
from orchestrator.seal import Opener, Sealer, Secrets, Unsealed

PORT = 5599
GAP_S = 0.01  # many modules that change at once are a few pulses, not one for each change
IP_FREEBIND = 15  # the address may come up after hactld


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
        deliver: Callable[[Heartbeat | PeerTold], None],
        log: Callable[[str], None],
        secrets: Secrets,
        port: int = PORT,
        timeout_s: float = 3.0,
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
        self._speech = Speech(cluster, node, boot)
        self._words = PeerWords(timeout_s)
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
            if self._sealer.renew():
                await self._send(sockets, self.say())
            else:
                self._complain("nothing is sent", f": {self._secrets.trouble or 'no key of the peer is paired'}")
            await trio.sleep(min(GAP_S, self.interval_s))
            with trio.move_on_after(self.interval_s - GAP_S):
                await self._now.wait()

    async def _send(self, sockets: Mapping[str, trio.socket.SocketType], modules: Mapping[str, Summary]) -> None:
        for share, packed in self._speech.parts(modules):
            self.counter += 1
            counter = self.counter
            for index, network in enumerate(self.networks):
                pulse = Pulse(self.cluster, self.node, self.boot, self.incarnation, counter, self._echoes_on(network), share)
                try:
                    sealed = self._sealer.seal(encode(pulse, packed), index, network.name, counter)
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
            self._forget_runs()  # or whoever has the key could make us remember a number of each of any number of runs
            self.pulse_now()  # a number to echo that nobody can have recorded
        if not self._opener.believes(run, echo):
            return
        if not was_proven:
            self.pulse_now()  # so does the peer learn at once that it was heard
            self._forget_runs()
            self._first_heard = FirstHeard()
        self.peer_boot = pulse.boot
        at = self._first_heard.note(pulse.counter, trio.current_time())
        self._words.heard(pulse.incarnation, pulse.counter, pulse.share, at)
        words = self._words.now(trio.current_time())
        self.deliver(Heartbeat(at, network.name, pulse.incarnation, pulse.counter, echo, words))

    def _forget_runs(self) -> None:
        """What was heard of those that the opener does not know any more."""
        known = {self._opener.proven, *self._opener.unproven}
        self._newest = {key: counter for key, counter in self._newest.items() if key[1] in known}

    def told(self, told: PeerTold) -> None:
        """What the peer said over the call channel, because it could not wait for the next pulse. It joins what the pulses say: else the
        next one, which may speak of other modules, would bring back what was said before."""
        if self._words.told(told.incarnation, told.counter, told.modules, told.now):
            self.deliver(replace(told, modules=self._words.now(told.now)))

    def _complain(self, kind: str, first: str = "") -> None:
        """Kinds are few, whoever sends whatever: the address that a stranger may choose is told once and not counted by."""
        self.dropped[kind] += 1
        if self.dropped[kind] == 1:
            self.log(f"heartbeat dropped: {kind}{first} (counted from now on, not logged again)")

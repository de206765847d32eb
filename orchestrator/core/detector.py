"""Is the peer alive? Heartbeats in, verdicts out.

Every node pulses on every network and echoes the newest pulse it heard there, so each side sees both directions:
*hear* (its pulses arrive here) and *heard* (ours arrive there). The peer is silent when nothing arrived on any network
for the timeout; one network alone only makes a warning. A peer that was restarted has a new incarnation; a late packet of
the old one must not bring it back, so counters only grow and a replaced incarnation is never accepted again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Heard:
    """One network, seen from here."""

    at: float
    counter: int = 0
    echo: int = 0
    echo_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Detector:
    """What arrived, per network."""

    networks: Mapping[str, Heard]
    timeout_s: float
    incarnation: int = 0
    former: tuple[int, ...] = field(default=())

    @staticmethod
    def new(networks: tuple[str, ...], timeout_s: float, now: float) -> Detector:
        """Nothing heard yet; silence is counted from now."""
        return Detector({network: Heard(at=now, echo_at=now) for network in networks}, timeout_s)

    def accepts(self, network: str, incarnation: int, counter: int) -> bool:
        """Is this pulse news?"""
        if network not in self.networks or incarnation in self.former:
            return False
        return incarnation != self.incarnation or counter > self.networks[network].counter

    def is_newest(self, incarnation: int, counter: int) -> bool:
        """Networks differ in speed: is this at least as new as what came over any of them?"""
        return incarnation != self.incarnation or counter >= max(heard.counter for heard in self.networks.values())

    def heard(self, network: str, incarnation: int, counter: int, echo: int, now: float) -> Detector:
        """A pulse that is news."""
        assert self.accepts(network, incarnation, counter), "a pulse that is no news must be dropped"
        before = self
        if incarnation != self.incarnation:
            fresh = {name: replace(was, counter=0, echo=0) for name, was in self.networks.items()}
            former = (*self.former, self.incarnation)[-16:] if self.incarnation else self.former
            before = replace(self, incarnation=incarnation, former=former, networks=fresh)
        was = before.networks[network]
        news = Heard(at=now, counter=counter, echo=echo, echo_at=now if echo > was.echo else was.echo_at)
        return replace(before, networks={**before.networks, network: news})

    def thawed(self, now: float) -> Detector:
        """This process stood still: silence is counted afresh."""
        return replace(self, networks={name: replace(was, at=now, echo_at=now) for name, was in self.networks.items()})

    def silent(self, now: float) -> bool:
        """Nothing on any network for the timeout."""
        return all(now - heard.at >= self.timeout_s for heard in self.networks.values())

    def falls_silent_at(self) -> float:
        """When that will be so if nothing more comes."""
        return max(heard.at for heard in self.networks.values()) + self.timeout_s

    def verdicts(self, now: float) -> dict[str, str]:
        """Per network: ok, silent (we do not hear it), deaf (it does not hear us)."""

        def verdict(heard: Heard) -> str:
            if now - heard.at >= self.timeout_s:
                return "silent"
            return "deaf" if now - heard.echo_at >= self.timeout_s else "ok"

        return {name: verdict(heard) for name, heard in self.networks.items()}

"""The networks between two simulated nodes: each may be cut, both ways or one way, lose datagrams, or be slow."""

from __future__ import annotations

import random

NETWORKS = ("lan", "repl")


class Networks:
    """What gets through now."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.cut: set[str] = set()
        self.one_way: set[tuple[str, str]] = set()  # network and the sender that is not heard on it
        self.loss: dict[str, float] = {}  # of datagrams; connections repeat what is lost
        self.lag_s: dict[str, float] = {}

    def carries(self, network: str, sender: str) -> bool:
        """Does a datagram of this sender arrive?"""
        if network in self.cut or (network, sender) in self.one_way:
            return False
        return network not in self.loss or self._chance.random() >= self.loss[network]

    def connects(self, network: str) -> bool:
        """Does a connection hold? It needs both ways."""
        return network not in self.cut and not any(lame == network for lame, _ in self.one_way)

    def delay_s(self, network: str) -> tuple[float, float]:
        """Of a datagram: least and most."""
        lag_s = self.lag_s.get(network, 0.0)
        return 0.001 + lag_s / 2, 0.03 + lag_s

    def heal(self) -> None:
        """All is well again."""
        self.cut.clear()
        self.one_way.clear()
        self.loss.clear()
        self.lag_s.clear()

"""Is a service address on this machine, and does no other machine answer for it?

The other machine may be the peer, right after a takeover: the kernel of a node whose daemons are dead or frozen answers until the
lifetime of its addresses is over. For so long the peer's answers are borne; a stranger's never are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import IPv4Address

import trio

from orchestrator.checkers.checker import Finding
from orchestrator.checkers.one_thread import OneThread
from orchestrator.effects import links, wire
from orchestrator.effects.links import LIFETIME_S, Address, Interface
from orchestrator.effects.network_news import NetworkNews, News

PEER_PATIENCE_S = LIFETIME_S + 5.0


class IpChecker:
    """Up while the address is here and nobody else has it. `peers`: the other node's own addresses, by which its machine is known."""

    def __init__(self, news: NetworkNews, address: Address, peers: Collection[str] = ()) -> None:
        self.address, self.peers = address, [IPv4Address(peer) for peer in peers]
        self._news, self._thread = news, OneThread()
        self._heard = 0
        self._peer_macs: set[bytes] = set()
        self._peer_since: float | None = None
        self._was_here = False

    async def look(self) -> Finding:
        """On the interfaces, then on the wire."""
        self._heard = self._news.count(News.REMOVED)
        interfaces = await self._thread.run(links.read_interfaces)
        place = self._place(interfaces)
        self._was_here = place is not None
        if place is None:
            return Finding(False, f"{self.address.ip} is not on this machine")
        if len(place.mac) != 6 or not any(place.mac) or not place.has_carrier:  # lo, no Ethernet, no cable: nobody could answer
            return Finding(True, f"{self.address.ip} is on {place.name}")
        answers = await wire.probe(place, self.address) - {each.mac for each in interfaces}
        self._peer_macs |= links.neighbours(self.peers)
        return self._judge(place, answers)

    async def changed(self) -> None:
        """When the address has gone."""
        if not self._was_here:
            await trio.sleep_forever()
        while True:
            self._heard = await self._news.after(News.REMOVED, self._heard)
            if self._place(await self._thread.run(links.read_interfaces)) is None:
                return

    def _judge(self, place: Interface, answers: frozenset[bytes]) -> Finding:
        strangers = answers - self._peer_macs
        if not answers:
            self._peer_since = None
            return Finding(True, f"{self.address.ip} is on {place.name}, and nowhere else")
        if not strangers:
            now = trio.current_time()
            self._peer_since = now if self._peer_since is None else self._peer_since
            if now - self._peer_since < PEER_PATIENCE_S:
                return Finding(True, f"{self.address.ip} is on {place.name}; the peer's machine still answers for it")
        who = ", ".join(sorted(mac.hex(":") for mac in strangers or answers))
        return Finding(False, f"{self.address.ip} is also on {'another machine' if strangers else 'the peer'} ({who})")

    def _place(self, interfaces: Sequence[Interface]) -> Interface | None:
        return next((each for each in interfaces if each.has(self.address)), None)

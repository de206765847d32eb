"""Is a network interface on, and somebody at the other end of its cable? The kernel tells of every change.

It is found by its name, by the address that this node has on a network of the cluster, or by the subnet of a service address. One that
was found is still known when it has lost that address: what is to be done about a cable and about an interface that is off differs.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from orchestrator.checkers.checker import Finding
from orchestrator.checkers.one_thread import OneThread
from orchestrator.effects import EffectFailed, links
from orchestrator.effects.links import Address, Interface
from orchestrator.effects.network_news import NetworkNews, News


class InterfaceChecker:
    """Up while it is on and has a carrier. Given is a name, an address that is its own, or a service address (with its prefix length)."""

    def __init__(
        self, news: NetworkNews, name: str | None = None, own: str | None = None, service: Address | None = None
    ) -> None:
        assert (name, own, service).count(None) == 2, "one of them says which interface"
        self.name, self.own, self.service = name, ipaddress.ip_address(own) if own is not None else None, service
        self._news, self._thread = news, OneThread()
        self._known: str | None = None
        self._was_up: bool | None = None
        self._heard = dict.fromkeys(News, 0)

    async def look(self) -> Finding:
        """Ask the kernel."""
        self._heard = {news: self._news.count(news) for news in News}
        finding = self._judge(await self._thread.run(links.read_interfaces))
        self._was_up = finding.up
        return finding

    async def changed(self) -> None:
        """When a link changed, and this one is not as it was looked at. One that is not known yet may come with an address."""
        news = News.LINK if self._known is not None else News.ANY
        up = self._was_up
        while up is self._was_up:
            self._heard[news] = await self._news.after(news, self._heard[news])
            up = self._judge(await self._thread.run(links.read_interfaces)).up

    def _judge(self, interfaces: Sequence[Interface]) -> Finding:
        found = self._find(interfaces) or next((each for each in interfaces if each.name == self._known), None)
        if found is None:
            return Finding(False, self._absent())
        self._known = found.name
        if not found.is_on:
            return Finding(False, f"{found.name} is switched off; 'ip link set {found.name} up' switches it on")
        if not found.has_carrier:
            return Finding(False, f"{found.name} has no carrier: look at its cable and at the switch")
        return Finding(True, f"{found.name} is up")

    def _find(self, interfaces: Sequence[Interface]) -> Interface | None:
        if self.service is not None:
            try:
                return links.choose_interface(interfaces, self.service, None)
            except EffectFailed:
                return None
        for each in interfaces:
            if each.name == self.name or any(address.ip == self.own for address in each.addresses):
                return each
        return None

    def _absent(self) -> str:
        if self.name is not None:
            return f"there is no interface {self.name}"
        if self.own is not None:
            return f"no interface of this node has the address {self.own}"
        assert self.service is not None
        return f"no interface of this node has an address in {self.service.network}"

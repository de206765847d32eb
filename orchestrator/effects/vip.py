"""The service addresses of one module: probe, add with a short lifetime, announce, renew, remove.

They live 15 s in the kernel and are renewed every 3 s, but only when the core says so (`keep`): so a hactld that is restarted loses
nothing, a dead one loses them within 15 s, and one that stood still renews nothing before it has checked that the role is still
its own. They are taken together: when one is somebody else's, or cannot be added, none is left behind. Before they go, the
connections that still hang on them are broken. Netlink runs in a worker thread: it blocks. A renewal looks whether they are still there
only if the kernel has told of a link or of an address that is gone since the last look.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address

import trio

from orchestrator.config import VipConfig
from orchestrator.effects import EffectFailed, links, source_routes, tcp_reset, wire
from orchestrator.effects.links import LIFETIME_S, Address, Interface
from orchestrator.effects.network_news import NetworkNews, News

RENEW_EVERY_S = 3.0
ANNOUNCE_EVERY_S = 10.0
ANNOUNCE_OFTEN_S = 1.0  # right after a takeover a frozen old primary may still answer for the address
ANNOUNCE_OFTEN_FOR_S = 20.0
BURST_S = 1.0  # at every renewal of the first second: one announcement may be lost
LEARN_EVERY_S = 5.0
FRESH_S = 5.0  # for how long a look ahead counts: it may have begun when the data link was lost, before the silence counted
RESET_PATIENCE_S = 0.25
STOOD_STILL_S = 2.0
LOOK_ANYWAY_S = 30.0

Places = list[tuple[Address, Interface]]
Seen = tuple[float, dict[Address, frozenset[bytes]]]  # when, and who answered for what
NEVER: Seen = (float("-inf"), {})


class Vip:
    """All service addresses of one module, taken and given back together."""

    def __init__(
        self,
        addresses: Sequence[VipConfig],
        peer_addresses: Sequence[str],
        lost: Callable[[str], None],
        log: Callable[[str, str], None],
        news: NetworkNews | None = None,
    ) -> None:
        self.configs = {ipaddress.ip_interface(config.address): config for config in addresses}
        self.peer_addresses = [IPv4Address(address) for address in peer_addresses]
        self.peer_macs: set[bytes] = set()
        self.lost, self.log, self._news = lost, log, news if news is not None else NetworkNews()
        self._looked: tuple[float, int, int] | None = None  # when they were seen to be there, and what had been told until then
        self._places: Places = []
        self._renewed_at = self._announced_at = self._up_at = float("-inf")
        self._changing = trio.Lock()  # what lies on the interfaces: a renewal must not put back what is being taken off
        self._looking = trio.Lock()
        self._seen = NEVER
        self._announcer = wire.Announcer()
        self._is_up = False
        self._told_of_reset = False

    async def held(self) -> bool:
        """Are all of them on this machine?"""
        try:
            interfaces = await self._read()
            if self._missing(interfaces):
                return False
            self._places = self._choose(interfaces)
        except EffectFailed:
            return False  # taking them will say why
        self._is_up = bool(self.configs)
        return self._is_up

    async def look_ahead(self) -> None:
        """Ask who has the addresses before they are to be taken: then it is known by that time."""
        if not self.configs or self._is_up:
            return
        with suppress(EffectFailed):  # taking them will say why
            async with self._looking:
                if trio.current_time() - self._seen[0] > FRESH_S / 2:
                    await self._look(await self._read())

    async def look_afterwards(self) -> None:
        """The addresses were taken from the peer's hands without a look, who had held them until then. If a stranger has one all the same,
        all are given back, and the core hears of it."""
        async with self._looking:
            try:
                answers = await wire.probe_all(self._places)
            except OSError:  # the link is down: there is nobody to disturb
                return
        self._learn_peer()
        foreign = {address: macs - self.peer_macs for address, macs in answers.items() if macs - self.peer_macs}
        if foreign and self._is_up:
            async with self._changing:
                self._is_up = False
                with suppress(EffectFailed):
                    await self._release(self._places)
            self.lost(in_use(foreign))

    async def up(self, granted: bool, handed: bool = False) -> None:
        """Take the addresses. `granted`: an answer from the peer's own machine is the old primary's, and is overridden. `handed`: the peer
        has just given them back; the look comes afterwards."""
        async with self._changing:
            self._is_up, self._looked = True, None
            await self._take(granted, handed)
        self._announce()

    async def down(self) -> None:
        """Give them back; fine if they are gone."""
        self._is_up, self._looked = False, None
        async with self._changing:
            if not self._places:  # a hactld that has just started: wherever they lie
                interfaces = await self._read()
                self._places = [(address, each) for address in self.configs for each in interfaces if each.has(address)]
            await self._break_connections()
            for address, interface in self._places:
                self.log("vip-del", f"[#] ip addr del {address} dev {interface.name}")
            await self._release(self._places)

    async def keep(self) -> None:
        """Renew and announce, each at its own pace. An address that was removed behind our back is reported, not put back."""
        async with self._changing:
            if self._is_up:
                await self._renew(trio.current_time())

    async def learn_for_ever(self) -> None:
        """Remember the peer's machine while it is alive: later it may not answer."""
        while self.configs:
            self._learn_peer()
            await trio.sleep(LEARN_EVERY_S)

    # ---- taking -----------------------------------------------------------------------------------------------------------

    async def _take(self, granted: bool, handed: bool) -> None:
        interfaces = await self._read()
        self._places = self._choose(interfaces)
        for address, interface in self._places:
            links.check_usable(interface, address)
        if not handed:
            await self._check_free(interfaces, granted)
        for address, interface in self._places:
            preferred_s = links.preferred_s(address, self.configs[address].source)
            self.log("vip-add", f"[#] ip addr add {address} dev {interface.name} valid_lft {LIFETIME_S} preferred_lft {preferred_s}")
        was_there = [(address, interface) for address, interface in self._places if interface.has(address)]
        try:
            await self._change(self._hold_all)
            await self._change(self._prefer_all)
        except EffectFailed:
            with trio.CancelScope(shield=True), suppress(EffectFailed):
                await self._release([place for place in self._places if place not in was_there])
            raise
        self._renewed_at = self._up_at = trio.current_time()

    async def _check_free(self, interfaces: Sequence[Interface], granted: bool) -> None:
        async with self._looking:  # a look ahead that is under way is waited for
            if trio.current_time() - self._seen[0] > FRESH_S or self._taken_by_others(granted):
                await self._look(interfaces)
            foreign, self._seen = self._taken_by_others(granted), NEVER  # what was seen counts once
        if foreign:
            raise EffectFailed(in_use(foreign))

    async def _look(self, interfaces: Sequence[Interface]) -> None:
        """Ask for all that are not here already."""
        places = [(address, interface) for address, interface in self._choose(interfaces) if not interface.has(address)]
        at = trio.current_time()
        try:
            self._seen = (at, await wire.probe_all(places))
        except OSError as error:
            raise EffectFailed(f"service address: {error.strerror}") from error

    def _taken_by_others(self, granted: bool) -> dict[Address, frozenset[bytes]]:
        """What the last look found that forbids taking the addresses."""
        self._learn_peer()
        harmless = self.peer_macs if granted else frozenset()
        return {address: answers - harmless for address, answers in self._seen[1].items() if answers - harmless}

    # ---- holding ----------------------------------------------------------------------------------------------------------

    async def _renew(self, now: float) -> None:
        if now - self._renewed_at >= RENEW_EVERY_S:
            on_time = now - self._renewed_at < RENEW_EVERY_S + STOOD_STILL_S  # else this process stood still, and they may have expired
            self._renewed_at = now
            if not (on_time and self._are_there(now)):
                told = self._told()
                interfaces = await self._read()
                if trio.current_time() - now > STOOD_STILL_S:
                    return  # this process stood still: whether the addresses are still ours the core must say first
                if missing := self._missing(interfaces):
                    self.lost(f"the service address {', '.join(str(address.ip) for address in missing)} is gone from this machine")
                    return
                self._places, self._looked = self._choose(interfaces), (now, *told)
            await self._change(self._hold_all)
            if any(config.source for config in self.configs.values()):
                try:
                    await self._change(self._prefer_all)
                except EffectFailed as failure:  # the addresses themselves are well: a wrong source is no reason to move
                    self.log("vip-source", str(failure))
        age_s = now - self._up_at
        pace_s = 0.0 if age_s < BURST_S else ANNOUNCE_OFTEN_S if age_s < ANNOUNCE_OFTEN_FOR_S else ANNOUNCE_EVERY_S
        if now - self._announced_at >= pace_s:
            self._announce()

    def _are_there(self, now: float) -> bool:
        """They were at the last look, which is not long ago, and nothing has been told since that could concern them."""
        looked = self._looked
        return looked is not None and self._news.is_heard and now - looked[0] < LOOK_ANYWAY_S and looked[1:] == self._told()

    def _told(self) -> tuple[int, int]:
        return self._news.count(News.LINK), self._news.count(News.REMOVED)

    def _hold_all(self) -> None:
        """Blocks."""
        for address, interface in self._places:
            links.hold_address(interface, address, self.configs[address].source)

    def _prefer_all(self) -> None:
        """Blocks."""
        for address, interface in self._places:
            if self.configs[address].source:
                source_routes.prefer_source(interface, address)

    def _announce(self) -> None:
        self._announced_at = trio.current_time()
        for address, interface in self._places:
            try:
                self._announcer.announce(interface, address)
            except OSError as error:  # the link is down: the address is of no use now, and will be announced again
                self.log("vip-announce", f"{address} on {interface.name}: {error.strerror}")

    # ---- giving back ------------------------------------------------------------------------------------------------------

    async def _break_connections(self) -> None:
        """Quickly, and whatever comes of it: the release must not wait for it."""
        addresses = [address.ip for address, _ in self._places if self.configs[address].tcp_reset]
        if not addresses:
            return
        try:
            broken = await trio.to_thread.run_sync(tcp_reset.reset, addresses, RESET_PATIENCE_S)
        except OSError as error:
            if not self._told_of_reset:
                self._told_of_reset = True
                self.log("vip-reset", f"open connections are not broken: {error.strerror or error}; clients notice when they send")
            return
        if broken:
            self.log("vip-reset", f"{broken} open connections broken")

    async def _release(self, places: Places) -> None:
        """Every one is tried, whatever becomes of the others."""
        failures: list[EffectFailed] = []
        for address, interface in places:
            try:
                await self._change(self._let_go, address, interface)
            except EffectFailed as failure:
                failures.append(failure)
        if failures:
            raise failures[0]

    def _let_go(self, address: Address, interface: Interface) -> None:
        """Blocks."""
        try:
            if self.configs[address].source:
                source_routes.forget_source(address)
        finally:
            links.remove_address(interface, address)

    # ---- helpers ----------------------------------------------------------------------------------------------------------

    def _learn_peer(self) -> None:
        self.peer_macs |= links.neighbours(self.peer_addresses)

    def _missing(self, interfaces: Sequence[Interface]) -> list[Address]:
        return [address for address in self.configs if not any(interface.has(address) for interface in interfaces)]

    def _choose(self, interfaces: Sequence[Interface]) -> Places:
        return [(address, links.choose_interface(interfaces, address, config.interface)) for address, config in self.configs.items()]

    async def _read(self) -> list[Interface]:
        try:
            return await trio.to_thread.run_sync(links.read_interfaces)
        except OSError as error:
            raise EffectFailed(f"the network interfaces cannot be read: {error}") from error

    async def _change(self, change: Callable[..., None], *arguments: object) -> None:
        """In a thread; what netlink refuses is one sentence."""
        try:
            await trio.to_thread.run_sync(change, *arguments)
        except OSError as error:
            names = ", ".join(str(address) for address in self.configs)
            raise EffectFailed(f"service address {names}: the kernel refuses it: {error}") from error


def in_use(foreign: Mapping[Address, Collection[bytes]]) -> str:
    """By whom."""
    who = "; ".join(f"{address.ip}: {', '.join(sorted(mac.hex(':') for mac in macs))}" for address, macs in foreign.items())
    return f"the service address is in use by another machine ({who})"

"""The service address: probe, add with a short lifetime, announce, renew, remove.

The address lives 15 s in the kernel and is renewed every 3 s, but only when the core says so (`keep`): so a hactld that is
restarted loses nothing, a dead one loses the address within 15 s, and one that stood still renews nothing before it has
checked that the role is still its own. Netlink runs in a worker thread: it blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Literal

import trio

from orchestrator.effects import EffectFailed, arp, rtnetlink

LIFETIME_S = 15
RENEW_EVERY_S = 3.0
ANNOUNCE_EVERY_S = 10.0
ANNOUNCE_OFTEN_S = 1.0  # right after a takeover a frozen old primary may still answer for the address
ANNOUNCE_OFTEN_FOR_S = 20.0
BURST_S = 1.0  # at every renewal of the first second: one announcement may be lost
EADDRNOTAVAIL, EEXIST, ENODEV = 99, 17, 19


@dataclass(frozen=True, slots=True)
class Interface:
    """A link of this machine."""

    name: str
    index: int
    mac: bytes
    addresses: tuple[IPv4Interface, ...]


def read_interfaces() -> list[Interface]:
    """All links with their IPv4 addresses (blocking)."""
    return [
        Interface(link.name, link.index, link.mac, tuple(each for each in link.addresses if isinstance(each, IPv4Interface)))
        for link in rtnetlink.read_links()
    ]


def change_address(verb: Literal["replace", "del"], interface: Interface, address: IPv4Interface) -> None:
    """Add or renew (`replace`), or remove (`del`) the address (blocking)."""
    lifetime_s = 0 if verb == "del" else LIFETIME_S
    try:
        rtnetlink.change_address(verb, interface.index, address, valid_s=lifetime_s, preferred_s=lifetime_s)
    except OSError as error:
        if not (verb == "del" and error.errno in (EADDRNOTAVAIL, ENODEV)):
            raise


def choose_interface(interfaces: Sequence[Interface], address: IPv4Interface, wanted: str | None) -> Interface:
    """The named one, or the one that has an address of its own in the same subnet."""
    for interface in interfaces:
        if wanted is not None and interface.name == wanted:
            return interface
        if wanted is None and any(own.ip in address.network and own.ip != address.ip for own in interface.addresses):
            return interface
    missing = f"there is no interface {wanted}" if wanted else f"no interface of this node has an address in {address.network}"
    raise EffectFailed(f"service address {address}: {missing}; name one with 'interface' in the module's file", refused=True)


def neighbours(of: Sequence[IPv4Address]) -> set[bytes]:
    """The hardware addresses under which this machine knows these addresses."""
    found: set[bytes] = set()
    try:
        lines = Path("/proc/net/arp").read_text().splitlines()[1:]
    except OSError:
        return found
    for line in lines:
        fields = line.split()
        if len(fields) >= 4 and fields[3] != "00:00:00:00:00:00" and IPv4Address(fields[0]) in of:
            found.add(bytes.fromhex(fields[3].replace(":", "")))
    return found


class Vip:
    """All service addresses of one module, taken and given back together."""

    def __init__(
        self,
        addresses: Sequence[tuple[str, str | None]],
        peer_addresses: Sequence[str],
        lost: Callable[[str], None],
        log: Callable[[str, str], None],
    ) -> None:
        self.addresses = [(IPv4Interface(address), interface) for address, interface in addresses]
        self.peer_addresses = [IPv4Address(address) for address in peer_addresses]
        self.peer_macs: set[bytes] = set()
        self.lost, self.log = lost, log
        self._interfaces: dict[IPv4Interface, Interface] = {}
        self._renewed_at = self._announced_at = self._up_at = float("-inf")
        self._changing = trio.Lock()  # what lies on the interfaces: a renewal must not put back what is being taken off
        self._is_up = False

    async def held(self) -> bool:
        """Are all of them on this machine?"""
        try:
            interfaces = await self._read()
            own = {address.ip for interface in interfaces for address in interface.addresses}
            if not all(address.ip in own for address, _ in self.addresses):
                return False
            self._choose(interfaces)
        except EffectFailed:
            return False  # taking them will say why
        self._is_up = bool(self.addresses)
        return self._is_up

    async def up(self, granted: bool) -> None:
        """Take the addresses. `granted`: an answer from the peer's own machine is the old primary's, and is overridden."""
        async with self._changing:
            self._is_up = True
            await self._take(granted)
        await self._announce()

    async def _take(self, granted: bool) -> None:
        self.learn_peer()
        self._choose(await self._read())
        for address, interface in self._interfaces.items():
            if all(own.ip != address.ip for own in interface.addresses):
                await self._probe(address, interface, granted)
        for address, interface in self._interfaces.items():
            self.log("vip-add", f"[#] ip addr add {address} dev {interface.name} valid_lft {LIFETIME_S} preferred_lft {LIFETIME_S}")
            await self._change("replace", address, interface)
        self._renewed_at = self._up_at = trio.current_time()

    async def down(self) -> None:
        """Give them back; fine if they are gone."""
        self._is_up = False
        async with self._changing:
            if not self._interfaces:
                try:
                    self._choose(await self._read())
                except EffectFailed:
                    return  # no such interface, so no such address
            for address, interface in self._interfaces.items():
                self.log("vip-del", f"[#] ip addr del {address} dev {interface.name}")
                await self._change("del", address, interface)

    async def keep(self) -> None:
        """Renew and announce, each at its own pace. An address that was removed behind our back is reported, not put back."""
        async with self._changing:
            if self._is_up:
                await self._renew(trio.current_time())

    async def _renew(self, now: float) -> None:
        self.learn_peer()
        if now - self._renewed_at >= RENEW_EVERY_S:
            self._renewed_at = now
            interfaces = await self._read()
            own = {address.ip for interface in interfaces for address in interface.addresses}
            missing = [str(address.ip) for address, _ in self.addresses if address.ip not in own]
            if missing:
                self.lost(f"the service address {', '.join(missing)} is gone from this machine")
                return
            self._choose(interfaces)
            for address, interface in self._interfaces.items():
                await self._change("replace", address, interface)
        age_s = now - self._up_at
        pace_s = 0.0 if age_s < BURST_S else ANNOUNCE_OFTEN_S if age_s < ANNOUNCE_OFTEN_FOR_S else ANNOUNCE_EVERY_S
        if now - self._announced_at >= pace_s:
            await self._announce()

    def learn_peer(self) -> None:
        """Remember the peer's machine while it is alive: later it may not answer."""
        self.peer_macs |= neighbours(self.peer_addresses)

    async def _read(self) -> list[Interface]:
        try:
            return await trio.to_thread.run_sync(read_interfaces)
        except OSError as error:
            raise EffectFailed(f"the network interfaces cannot be read: {error}") from error

    def _choose(self, interfaces: Sequence[Interface]) -> None:
        self._interfaces = {address: choose_interface(interfaces, address, wanted) for address, wanted in self.addresses}

    async def _probe(self, address: IPv4Interface, interface: Interface, granted: bool) -> None:
        try:
            answers = await arp.probe(interface.name, interface.mac, address.ip)
        except OSError as error:
            raise EffectFailed(f"service address {address}: cannot probe on {interface.name}: {error.strerror}") from error
        foreign = answers - self.peer_macs if granted else answers
        if foreign:
            who = ", ".join(sorted(mac.hex(":") for mac in foreign))
            raise EffectFailed(f"the service address {address.ip} is in use by another machine ({who})")

    async def _change(self, verb: Literal["replace", "del"], address: IPv4Interface, interface: Interface) -> None:
        try:
            await trio.to_thread.run_sync(change_address, verb, interface, address)
        except OSError as error:
            raise EffectFailed(f"service address {address}: ip addr {verb} on {interface.name} failed: {error}") from error

    async def _announce(self) -> None:
        self._announced_at = trio.current_time()
        for address, interface in self._interfaces.items():
            try:
                await arp.announce(interface.name, interface.mac, address.ip)
            except OSError as error:  # the link is down: the address is of no use now, and will be announced again
                self.log("vip-announce", f"{address} on {interface.name}: {error.strerror}")

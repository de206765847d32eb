"""The service address: what tests/cluster/test_vip.py cannot provoke on real interfaces."""

from __future__ import annotations

from ipaddress import IPv4Interface

import pytest
import trio

from orchestrator.effects import arp
from orchestrator.effects.vip import Interface, Vip

ADDRESS = "10.9.0.100/24"


class SlowVip(Vip):
    """One interface that is read slowly; what lies on it is kept here."""

    def __init__(self) -> None:
        super().__init__([(ADDRESS, None)], [], lambda reason: None, lambda kind, text: None)
        self.there: set[IPv4Interface] = set()

    async def _read(self) -> list[Interface]:
        seen = tuple(self.there)
        await trio.sleep(1)
        return [Interface(name="lan", index=1, mac=b"123456", addresses=(IPv4Interface("10.9.0.1/24"), *seen))]

    async def _change(self, verb: str, address: IPv4Interface, interface: Interface) -> None:
        await trio.sleep(0.1)
        (self.there.discard if verb == "del" else self.there.add)(address)


async def test_a_renewal_under_way_puts_nothing_back(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(*_: object) -> set[bytes]:
        return set()

    monkeypatch.setattr(arp, "probe", nobody)
    monkeypatch.setattr(arp, "announce", nobody)
    vip = SlowVip()
    await vip.up(granted=True)
    assert vip.there
    await trio.sleep(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vip.keep)
        await trio.sleep(0.5)
        nursery.start_soon(vip.down)  # the role is lost while the renewal reads the interfaces
    assert not vip.there
    await trio.sleep(10)
    await vip.keep()
    assert not vip.there, "one that comes late either"

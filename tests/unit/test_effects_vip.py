"""The service address: what tests/cluster/test_vip.py cannot provoke on real interfaces."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from ipaddress import IPv4Interface

import pytest
import trio

from orchestrator.config import VipConfig
from orchestrator.effects import EffectFailed, netlink, wire
from orchestrator.effects.links import Address, Interface
from orchestrator.effects.vip import Vip

ADDRESS = IPv4Interface("10.9.0.100/24")
STRANGER, PEER = b"strang", b"thpeer"


class SlowVip(Vip):
    """One interface that is read slowly; what lies on it is kept here."""

    def __init__(self) -> None:
        self.logged: list[str] = []
        self.losses: list[str] = []
        super().__init__([VipConfig(str(ADDRESS))], [], self.losses.append, lambda kind, text: self.logged.append(f"{kind} {text}"))
        self.there: set[Address] = set()

    async def _read(self) -> list[Interface]:
        seen = tuple(self.there)
        await trio.sleep(1)
        return [Interface(name="lan", index=1, mac=b"123456", addresses=(IPv4Interface("10.9.0.1/24"), *seen))]

    async def _change(self, change: Callable[..., None], *arguments: object) -> None:
        await trio.sleep(0.1)
        if change == self._hold_all:
            self.there.add(ADDRESS)
        elif change == self._let_go:
            self.there.discard(ADDRESS)

    def _announce(self) -> None:
        self._announced_at = trio.current_time()


class Wire:
    """Answers probes as it is told, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: bytes) -> None:
        self.answers, self.probes = frozenset(answers), 0
        monkeypatch.setattr(wire, "probe_all", self.probe_all)

    async def probe_all(self, places: Sequence[tuple[Address, Interface]]) -> dict[Address, frozenset[bytes]]:
        self.probes += 1
        answers = self.answers
        await trio.sleep(wire.PROBE_S)
        return {address: answers for address, _ in places}


async def test_a_renewal_under_way_puts_nothing_back(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    Wire(monkeypatch)
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


async def test_a_look_ahead_spares_the_probe(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    answering, vip = Wire(monkeypatch), SlowVip()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vip.look_ahead)
        await trio.sleep(0.5)
        nursery.start_soon(vip.up, False)  # waits for the one that is under way
    assert (answering.probes, vip.there) == (1, {ADDRESS})


async def test_an_old_look_ahead_counts_for_nothing(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    answering, vip = Wire(monkeypatch), SlowVip()
    await vip.look_ahead()
    answering.answers = frozenset({STRANGER})
    await trio.sleep(10)
    with pytest.raises(EffectFailed, match="in use by another machine"):
        await vip.up(False)
    assert answering.probes == 2 and not vip.there


async def test_looks_ahead_that_follow_each_other_are_one(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    answering, vip = Wire(monkeypatch), SlowVip()
    await vip.look_ahead()  # the link is lost
    await vip.look_ahead()  # the takeover is decided
    await vip.up(granted=True)
    await vip.look_ahead()
    assert (answering.probes, vip.there) == (1, {ADDRESS})


async def test_from_the_peers_hands_it_is_taken_at_once(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    answering, vip = Wire(monkeypatch, PEER), SlowVip()
    vip.peer_macs.add(PEER)
    await vip.up(granted=False, handed=True)
    assert (answering.probes, vip.there) == (0, {ADDRESS})
    await vip.look_afterwards()
    assert (answering.probes, vip.there, vip.losses) == (1, {ADDRESS}, []), "the peer's own answer is no stranger's"


async def test_a_stranger_found_afterwards_gets_it_back(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    answering, vip = Wire(monkeypatch, STRANGER), SlowVip()
    await vip.up(granted=False, handed=True)
    await vip.look_afterwards()
    assert not vip.there and len(vip.losses) == 1 and STRANGER.hex(":") in vip.losses[0]
    await vip.keep()
    assert not vip.there, "nothing renews it"
    with pytest.raises(EffectFailed, match="in use"):
        await vip.up(granted=False)
    assert answering.probes == 2


async def test_what_a_look_ahead_found_is_looked_at_again(autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer may have let go of the address since."""
    answering, vip = Wire(monkeypatch, PEER), SlowVip()
    vip.peer_macs.add(PEER)
    await vip.look_ahead()
    answering.answers = frozenset()
    await vip.up(granted=False)
    assert (answering.probes, vip.there) == (2, {ADDRESS})


async def test_only_the_peers_answer_is_overridden_and_only_with_a_grant(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering, vip = Wire(monkeypatch, PEER), SlowVip()
    vip.peer_macs.add(PEER)
    with pytest.raises(EffectFailed, match=PEER.hex(":")):
        await vip.up(granted=False)
    answering.answers = frozenset({PEER, STRANGER})
    with pytest.raises(EffectFailed, match=STRANGER.hex(":")) as caught:
        await vip.up(granted=True)
    assert PEER.hex(":") not in str(caught.value) and not vip.there
    answering.answers = frozenset({PEER})
    await vip.up(granted=True)
    assert vip.there


async def test_a_kernel_that_breaks_no_connections_is_named_once(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    Wire(monkeypatch)
    monkeypatch.setattr(netlink, "dump", lambda *_: [bytes(72)])
    monkeypatch.setattr(netlink, "order", lambda *_: [errno.EOPNOTSUPP])
    vip = SlowVip()
    for _ in range(2):
        await vip.up(granted=False)
        await vip.down()
        assert not vip.there
    told = [line for line in vip.logged if line.startswith("vip-reset")]
    assert len(told) == 1 and "CONFIG_INET_DIAG_DESTROY" in told[0]

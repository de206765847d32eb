"""What test_checkers.py runs in network namespaces: `python -m tests.cluster.checker_cases CASE`. Each case is a machine's whole life."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
import trio.testing

from orchestrator.checkers import ip as ip_checker
from orchestrator.checkers.checker import Checker, Finding
from orchestrator.checkers.interface import InterfaceChecker
from orchestrator.checkers.ip import IpChecker
from orchestrator.checkers.ping import PingChecker
from orchestrator.checkers.tcp import TcpChecker
from orchestrator.effects import links
from orchestrator.effects.network_news import NetworkNews
from tests.cluster.netns import Outside, ip, mac_of, outside

FOUR, SIX = ipaddress.ip_interface("10.9.0.100/24"), ipaddress.ip_interface("fd77::100/64")
NEWS = NetworkNews()
UP = Finding(True, "left is up")
OFF = Finding(False, "left is switched off; 'ip link set left up' switches it on")
NO_CARRIER = Finding(False, "left has no carrier: look at its cable and at the switch")


async def settles(checker: Checker, finding: Finding) -> None:
    """The kernel needs a moment for a carrier."""
    said = await checker.look()
    with trio.move_on_after(30):
        while said != finding:
            await trio.sleep(0.02)
            said = await checker.look()
    assert said == finding, said


@asynccontextmanager
async def told(checker: Checker) -> AsyncIterator[None]:
    """What happens in the block makes it worth looking again at once."""
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(checker.changed)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert nursery.child_tasks, "it was told before anything happened"
            yield


@asynccontextmanager
async def not_told(checker: Checker) -> AsyncIterator[None]:
    """What happens in the block concerns it not."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(checker.changed)
        await trio.testing.wait_all_tasks_blocked(0.05)
        yield
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert nursery.child_tasks, "it was told of what does not concern it"
        nursery.cancel_scope.cancel()


async def an_interface_by_its_name(other: Outside) -> None:
    checker = InterfaceChecker(NEWS, name="left")
    await settles(checker, UP)
    async with told(checker):
        ip("link set left down")
    assert await checker.look() == OFF
    async with told(checker):
        ip("link set left up")
    await settles(checker, UP)
    async with told(checker):
        other.ip("link set right down")
    assert await checker.look() == NO_CARRIER
    other.ip("link set right up")
    await settles(checker, UP)
    async with told(checker):
        ip("link del left")
    assert await checker.look() == Finding(False, "there is no interface left")


async def an_interface_by_an_address(other: Outside) -> None:
    for checker, absent in (
        (InterfaceChecker(NEWS, own="10.9.0.1"), "no interface of this node has the address 10.9.0.1"),
        (InterfaceChecker(NEWS, service=FOUR), "no interface of this node has an address in 10.9.0.0/24"),
        (InterfaceChecker(NEWS, service=SIX), "no interface of this node has an address in fd77::/64"),
    ):
        await settles(checker, UP)
        other.ip("link set right down")
        await settles(checker, NO_CARRIER)
        other.ip("link set right up")
        await settles(checker, UP)
        ip("link set left down")
        assert await checker.look() == OFF, "its IPv6 addresses went with it, and it is known all the same"
        ip("link set left up")
        if checker.service is SIX:
            ip("-6 addr add fd77::1/64 dev left nodad")
        await settles(checker, UP)
        ip("addr flush dev left")
        fresh = InterfaceChecker(NEWS, own="10.9.0.1") if checker.own else InterfaceChecker(NEWS, service=checker.service)
        assert await fresh.look() == Finding(False, absent)
        async with told(fresh):
            ip("addr add 10.9.0.1/24 dev left")
            ip("-6 addr add fd77::1/64 dev left nodad")
        assert await fresh.look() == UP


async def renewed_addresses_are_no_news(other: Outside) -> None:
    checker = InterfaceChecker(NEWS, service=FOUR)
    await settles(checker, UP)
    (left,) = (each for each in links.read_interfaces() if each.name == "left")
    async with not_told(checker):
        for _ in range(3):
            links.hold_address(left, FOUR, False)
            links.hold_address(left, SIX, False)


async def an_address_that_is_removed(other: Outside) -> None:
    for address in (FOUR, SIX):
        checker = IpChecker(NEWS, address)
        assert await checker.look() == Finding(False, f"{address.ip} is not on this machine")
        ip(f"addr add {address} dev left", "nodad" if address.version == 6 else "")
        assert await checker.look() == Finding(True, f"{address.ip} is on left, and nowhere else")
        async with told(checker):
            ip(f"addr del {address} dev left")
        assert not (await checker.look()).up
        ip(f"addr add {address.ip} dev lo")
        assert await checker.look() == Finding(True, f"{address.ip} is on lo")


async def a_stranger_answers_for_the_address(other: Outside) -> None:
    mac = mac_of(other.ip("link show right")).hex(":")
    for address in (FOUR, SIX):
        nodad, whole = ("nodad", "/128") if address.version == 6 else ("", "/32")
        checker = IpChecker(NEWS, address)
        ip(f"addr add {address} dev left", nodad)
        assert (await checker.look()).up
        other.ip(f"addr add {address.ip}{whole} dev right", nodad)
        assert await checker.look() == Finding(False, f"{address.ip} is also on another machine ({mac})")
        other.ip(f"addr del {address.ip}{whole} dev right")
        assert (await checker.look()).up


async def the_peer_answers_for_a_while(other: Outside) -> None:
    """As after a takeover from a node that is frozen."""
    mac = mac_of(other.ip("link show right")).hex(":")
    ip(f"addr add {FOUR} dev left")
    ip(f"neigh replace 10.9.0.2 lladdr {mac} dev left")
    other.ip(f"addr add {FOUR.ip}/32 dev right")
    checker = IpChecker(NEWS, FOUR, ["10.9.0.2"])
    assert await checker.look() == Finding(True, f"{FOUR.ip} is on left; the peer's machine still answers for it")
    ip_checker.PEER_PATIENCE_S = 0.0
    assert await checker.look() == Finding(False, f"{FOUR.ip} is also on the peer ({mac})")
    other.ip(f"addr del {FOUR.ip}/32 dev right")
    assert (await checker.look()).up
    assert checker._peer_since is None


async def who_answers_a_ping(other: Outside) -> None:
    four, six, nobody = "10.9.0.2", "fd77::2", "10.9.0.77"

    def ping(*to: str, need: str = "any") -> PingChecker:
        return PingChecker(to, need, timeout_s=1.0)  # type: ignore[arg-type]

    assert await ping(four).look() == Finding(True, "10.9.0.2 answers")
    assert await ping(six).look() == Finding(True, "fd77::2 answers")
    assert await ping("127.0.0.1", "::1", need="all").look() == Finding(True, "127.0.0.1 and ::1 answer")
    assert (await ping(nobody, four).look()).up and (await ping(four, nobody).look()).up
    began = trio.current_time()
    finding = await ping(four, nobody, need="all").look()
    assert not finding.up and finding.text.startswith("10.9.0.77 ") and four not in finding.text, finding
    assert trio.current_time() - began < 1.0, "it is over before its deadline"
    assert await ping("203.0.113.1").look() == Finding(False, "203.0.113.1 cannot be reached: there is no route")
    other.ip("link set right down")
    finding = await ping(four, six).look()
    assert not finding.up and four in finding.text and six in finding.text
    other.ip("link set right up")
    with trio.fail_after(20):
        while not (await ping(four).look()).up:
            pass


async def only_ones_own_answer_counts(other: Outside) -> None:
    """Two that ask the same address, and one that asks another, hear each other's answers."""
    other.ip("addr add 10.9.0.3/24 dev right")
    found: dict[str, Finding] = {}

    async def ask(to: str, number: int) -> None:
        found[f"{to} {number}"] = await PingChecker((to,), timeout_s=1.0).look()

    async with trio.open_nursery() as nursery:
        for number in range(10):
            for to in ("10.9.0.2", "10.9.0.3", "10.9.0.66"):
                nursery.start_soon(ask, to, number)
    assert all(finding.up is not name.startswith("10.9.0.66") for name, finding in found.items()), found


async def a_port_of_another_machine(other: Outside) -> None:
    with other.python("import socket; s = socket.create_server(('', 7000)); print('listening'); input()") as server:
        assert server.stdout is not None and server.stdout.readline() == "listening\n"
        assert (await TcpChecker("10.9.0.2:7000").look()).up
        assert (await TcpChecker("10.9.0.2:7000", source="10.9.0.1").look()).up
    server.wait()
    assert await TcpChecker("10.9.0.2:7000").look() == Finding(False, "10.9.0.2:7000 refuses connections")
    assert await TcpChecker("203.0.113.1:7000").look() == Finding(False, "203.0.113.1:7000 cannot be reached: there is no route")


CASES: dict[str, Callable[[Outside], Awaitable[None]]] = {
    case.__name__: case
    for case in (
        an_interface_by_its_name, an_interface_by_an_address, renewed_addresses_are_no_news, an_address_that_is_removed,
        a_stranger_answers_for_the_address, the_peer_answers_for_a_while, who_answers_a_ping, only_ones_own_answer_counts,
        a_port_of_another_machine,
    )
}  # fmt: skip


async def play(case: Callable[[Outside], Awaitable[None]], other: Outside) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(NEWS.run, print)
        await case(other)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    with outside() as elsewhere:
        trio.run(play, CASES[sys.argv[1]], elsewhere)

"""The service address in other hands: rows V1 and V2 of the catalogue."""

from __future__ import annotations

from orchestrator.lab.cluster import VIP
from orchestrator.lab.scenarios.application import history_of
from orchestrator.lab.scenarios.pair import LedgerPair
from orchestrator.lab.scenarios.scenario import EITHER, expect, scenario


@scenario("address-removed", "somebody removes the service address on the primary: it is taken again", "V1 S15", silence_s=9)
def address_removed(pair: LedgerPair) -> None:
    pair.lab.run("node1", ["ip", "addr", "del", f"{VIP}/24", "dev", "lan"])
    pair.until(lambda: pair.has_address("node1"), "the address is not taken again", 15)
    expect(not pair.has_address("node2") and pair.row("node2")["state"] == "SECOND", "the role moved", pair)


@scenario("address-moves", "the service address follows the role, and nobody else has it", "S6", serves="node2", silence_s=5, moves=1)
def address_moves(pair: LedgerPair) -> None:
    expect(pair.has_address("node1") and not pair.has_address("node2"), "the address is not where the role is", pair)
    pair.swap("node1")
    pair.wait_redundant("node2")
    expect(pair.has_address("node2") and not pair.has_address("node1"), "the address did not move", pair)


@scenario(
    "address-is-a-strangers",
    "a stranger has the service address when the role moves: it is not taken, and the reason is told",
    "V1",
    serves=EITHER,
    moves=3,
)
def address_is_a_strangers(pair: LedgerPair) -> None:
    pair.command("node2", "stop")
    pair.command("node1", "stop")
    for node in ("node2", "node1"):
        pair.wait_state(node, "STOP", None)
    pair.lab.run("witness", ["ip", "addr", "add", f"{VIP}/24", "dev", "lan"])
    try:
        for node in ("node1", "node2"):
            pair.command(node, "start")
        pair.until(lambda: "in use by another machine" in history_of(pair, "node1"), "the stranger is not noticed", 20)
        expect(not pair.has_address("node1") and not pair.service_pid("node1"), "a stranger's address was taken", pair)
    finally:
        pair.lab.run("witness", ["ip", "addr", "del", f"{VIP}/24", "dev", "lan"])


@scenario(
    "a-stranger-takes-the-address",
    "a stranger takes the service address while the primary serves: the client is back when he is gone",
    "V1",
)
def a_stranger_takes_the_address(pair: LedgerPair) -> None:
    pair.lab.run("witness", ["ip", "addr", "add", f"{VIP}/24", "dev", "lan"])
    pair.lab.run("witness", ["ip", "addr", "del", f"{VIP}/24", "dev", "lan"])
    expect(pair.has_address("node1"), "the primary gave its address to a stranger", pair)

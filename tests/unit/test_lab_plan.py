"""Who is in a lab, and that nobody has anybody else's address."""

from __future__ import annotations

from orchestrator.lab.plan import ADDRESSES, ADDRESSES_6, LANS, NODES, mac_address, members


def test_who_is_in_a_lab() -> None:
    assert members(2) == ("node1", "node2", "client", "witness")
    assert members(3) == NODES == (*members(2), "node3")


def test_addresses_are_unique() -> None:
    found = [address for each in (ADDRESSES, ADDRESSES_6) for node in NODES for address in each[node].values()]
    macs = [mac_address(node, lan) for node in NODES for lan in LANS if lan in ADDRESSES[node]]
    assert len(set(found)) == len(found) and len(set(macs)) == len(macs)

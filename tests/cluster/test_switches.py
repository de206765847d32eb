"""What an administrator turns: failover paused, stopstart, the way back to the default primary; in the lab, under load."""

from __future__ import annotations

import pytest

from orchestrator.lab.cluster import SERVERS
from tests.cluster.conftest import LedgerCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]


def hactl(cluster: LedgerCluster, node: str, *words: str) -> str:
    return cluster.lab.run(node, ["hactl", *words]).stderr


def test_paused_failover_stays_paused_over_a_boot_and_waits_for_the_word(cluster: LedgerCluster) -> None:
    assert "paused on node1" in hactl(cluster, "node1", "pause", "ledger")
    for node in SERVERS:
        assert (cluster.status(node) or {})["failover"]["state"] == "paused"
    cluster.lab.kill("node2")
    cluster.wait_state("node1", "ALONE")
    cluster.boot("node2")
    cluster.wait_state("node2", "SECOND")
    cluster.wait_acks()
    cluster.lab.kill("node1")
    cluster.until(lambda: "failover is paused" in (cluster.row("node2") or {}).get("reason", ""), "node2 does not say why it waits", 20)
    assert cluster.serving() == []
    hactl(cluster, "node2", "prim", "ledger")
    cluster.wait_acks(timeout_s=30)
    cluster.check_lines()
    cluster.boot("node1")
    cluster.wait_state("node1", "SECOND")
    hactl(cluster, "node2", "resume", "ledger")
    cluster.settle()
    assert all((cluster.status(node) or {})["failover"]["state"] == "armed" for node in SERVERS)


def test_stopstart_moves_the_role_and_comes_back_as_secondary(cluster: LedgerCluster) -> None:
    primary = cluster.primary()
    hactl(cluster, primary, "stopstart", "ledger")
    cluster.wait_state("node2" if primary == "node1" else "node1", "PRIM")
    cluster.wait_state(primary, "SECOND")
    cluster.wait_acks()
    cluster.settle()


def test_the_switch_for_booting_counts_for_more_than_the_configuration(cluster: LedgerCluster) -> None:
    hactl(cluster, "node2", "boot", "off", "ledger")
    cluster.lab.kill("node2")
    cluster.wait_state("node1", "ALONE")
    cluster.boot("node2")
    cluster.wait_state("node2", "STOP", None)
    hactl(cluster, "node2", "boot", "config", "ledger")
    cluster.command("node2", "start")
    cluster.settle()

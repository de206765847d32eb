"""What an administrator turns: failover paused, stopstart, the way back to the default primary; in the lab, under load."""

from __future__ import annotations

import json

import pytest

from orchestrator.lab.cluster import SERVERS
from orchestrator.lab.scenarios.pair import LedgerPair

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]


def hactl(cluster: LedgerPair, node: str, *words: str) -> str:
    return cluster.lab.run(node, ["hactl", *words]).stderr


def test_paused_failover_stays_paused_over_a_boot_and_waits_for_the_word(cluster: LedgerPair) -> None:
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
    cluster.until(lambda: all((cluster.status(node) or {})["failover"]["state"] == "armed" for node in SERVERS), "not armed again", 15)


def test_stopstart_moves_the_role_and_comes_back_as_secondary(cluster: LedgerPair) -> None:
    primary = cluster.primary()
    hactl(cluster, primary, "stopstart", "ledger")
    cluster.wait_state("node2" if primary == "node1" else "node1", "PRIM")
    cluster.wait_state(primary, "SECOND")
    cluster.wait_acks()
    cluster.settle()


def test_the_switch_for_booting_counts_for_more_than_the_configuration(cluster: LedgerPair) -> None:
    hactl(cluster, "node2", "boot", "off", "ledger")
    cluster.lab.kill("node2")
    cluster.wait_state("node1", "ALONE")
    cluster.boot("node2")
    cluster.wait_state("node2", "STOP", None)
    hactl(cluster, "node2", "boot", "config", "ledger")
    cluster.command("node2", "start")
    cluster.settle()


def test_what_was_asked_and_decided_is_in_the_history_of_both(cluster: LedgerPair) -> None:
    hactl(cluster, "node1", "swap", "ledger", "--wait")
    hactl(cluster, "node2", "swap", "ledger", "--wait")
    cluster.kill_daemon("node1")
    cluster.start_daemon("node1")
    cluster.settle()
    told = cluster.lab.run("node1", ["hactl", "history", "ledger", "-H", "all", "-n", "500", "--kind", "command"]).stdout
    assert "node1  ledger  swap: ledger moves to node2  (by root on node1)" in told
    assert "node2  ledger  swap: ledger moves to node1  (by root on node2)" in told


def test_why_and_simulate_answer_on_a_running_pair(cluster: LedgerPair) -> None:
    told = cluster.lab.run("node1", ["hactl", "why", "ledger"]).stdout
    assert "ledger is PRIM Ready on node1" in told and "Could node2 take the role in order now?  Yes." in told
    imagined = cluster.lab.run("node2", ["hactl", "simulate", "peer-dies", "ledger"]).stdout
    assert "make this copy primary" in imagined and "in the end ALONE Ready" in imagined
    cluster.wait_redundant("node1")


def test_a_drill_goes_there_and_back_and_tells_how_long_it_took(cluster: LedgerPair) -> None:
    report = json.loads(cluster.lab.run("node1", ["hactl", "drill", "ledger", "--json"], timeout_s=90).stdout)
    assert [(each["source"], each["target"]) for each in report["rounds"]] == [("node1", "node2"), ("node2", "node1")]
    assert all(0 <= each["gap_s"] < 5 and each["redundant_s"] < 30 for each in report["rounds"])
    cluster.settle()
    assert cluster.primary() == "node1"

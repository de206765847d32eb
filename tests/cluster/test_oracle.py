"""The oracle itself: what it must see is staged, and it sees it. A watch that never barks proves nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.lab.cluster import VIP, Trouble
from orchestrator.lab.scenarios import PLAIN, Scenario, Theatre
from orchestrator.lab.scenarios.pair import DIRECTORY, LEDGER, LedgerPair
from orchestrator.lab.scenarios.scenario import Impossible, expect
from orchestrator.lab.scenarios.watch import Watch

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]


def put_address_on_both(pair: LedgerPair) -> None:
    pair.lab.run("node2", ["ip", "addr", "add", f"{VIP}/32", "dev", "lo"])
    time.sleep(0.5)
    pair.lab.run("node2", ["ip", "addr", "del", f"{VIP}/32", "dev", "lo"])


def test_an_address_on_two_nodes_is_seen(cluster: LedgerPair) -> None:
    with Watch(cluster) as watch:
        put_address_on_both(cluster)
    assert watch.seen and "the service address is on node1 and node2" in watch.seen[0]
    assert watch.looks >= 4
    with Watch(cluster, two_may_serve=True) as watch:
        put_address_on_both(cluster)
    assert not watch.seen and watch.longest_both_s > 0.2


def test_a_lost_line_is_seen(cluster: LedgerPair) -> None:
    cluster.pause_writer(True)
    try:
        last = max(cluster.acks())
        cluster.lab.run("node1", ["sed", "-i", f"/^{last}$/d", LEDGER])
        with pytest.raises(Trouble, match=f"1 of .* acknowledged lines are not exactly once on node1: .{last}"):
            cluster.check_lines(("node1",))
        cluster.lab.run("node1", ["sh", "-c", f"echo {last} >> {LEDGER}; echo {last} >> {LEDGER}"])
        with pytest.raises(Trouble, match="there 2 times"):
            cluster.check_lines(("node1",))
        cluster.give_up({str(last)})
    finally:
        cluster.pause_writer(False)
        cluster.kill_service("node1")  # sed made a new file: the service must open it
    cluster.settle()


def test_what_is_wrong_is_the_verdict_and_leaves_evidence(theatre: Theatre, tmp_path: Path) -> None:
    def wrong(pair: LedgerPair) -> None:
        pair.swap("node1")
        pair.wait_redundant("node2")

    verdict = theatre.play(Scenario("wrong", "", (), wrong, PLAIN, "node1", 0.0, 0, False, False), tmp_path)
    assert verdict.problems[0].split(",")[0] == "node2 serves in the end"
    assert any("nobody answered the client for" in problem for problem in verdict.problems)
    assert any("the role moved 1 times" in problem for problem in verdict.problems)
    found = {path.name for path in Path(verdict.evidence).iterdir()}
    assert {"verdict.json", "now.txt", "node1.history.json", "node2.log.txt"} <= found
    assert "takeover" in (Path(verdict.evidence) / "node2.history.json").read_text()


def test_what_this_machine_lacks_is_skipped(theatre: Theatre) -> None:
    def lacking(pair: LedgerPair) -> None:
        raise Impossible("there is no such thing here")

    verdict = theatre.play(Scenario("lacking", "", (), lacking, PLAIN, "node1", None, 0, False, False))
    assert verdict.word == "skipped" and verdict.skipped == "there is no such thing here"


def test_a_file_that_only_one_node_has_is_seen(cluster: LedgerPair) -> None:
    """The comparison of the trees, in the lab; tests/unit/test_trees.py has its parts."""
    cluster.lab.run("node1", ["sh", "-c", f"echo 1 > {DIRECTORY}/one"])
    cluster.settle()
    expect(cluster.manifests("node1") == cluster.manifests("node2"), "the manifests differ")
    cluster.lab.run("node1", ["rm", f"{DIRECTORY}/one"])

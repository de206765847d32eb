"""The oracle itself: what it must see is staged, and it sees it. A watch that never barks proves nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.lab.cluster import VIP, Trouble
from orchestrator.lab.scenarios import PLAIN, Scenario, Theatre
from orchestrator.lab.scenarios.disks import write_behind_the_guard
from orchestrator.lab.scenarios.pair import DIRECTORY, LEDGER, LedgerPair
from orchestrator.lab.scenarios.scenario import Impossible
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
        without = f"sed /^{last}$/d {LEDGER} > /tmp/lines && cat /tmp/lines > {LEDGER}"  # the same file: the service has it open
        cluster.lab.run("node1", ["sh", "-c", without])
        with pytest.raises(Trouble, match=f"1 of .* acknowledged lines are not exactly once on node1: .{last}"):
            cluster.check_lines(("node1",))
        cluster.lab.run("node1", ["sh", "-c", f"echo {last} >> {LEDGER}; echo {last} >> {LEDGER}"])
        with pytest.raises(Trouble, match="there 2 times"):
            cluster.check_lines(("node1",))
        cluster.give_up({str(last)})
    finally:
        cluster.pause_writer(False)
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
    assert "rfs serves" in (Path(verdict.evidence) / "node2.history.json").read_text()


def test_what_this_machine_lacks_is_skipped(theatre: Theatre) -> None:
    def lacking(pair: LedgerPair) -> None:
        raise Impossible("there is no such thing here")

    verdict = theatre.play(Scenario("lacking", "", (), lacking, PLAIN, "node1", None, 0, False, False))
    assert verdict.word == "skipped" and verdict.skipped == "there is no such thing here"


def test_a_copy_that_differs_is_seen(cluster: LedgerPair) -> None:
    cluster.lab.run("node1", ["sh", "-c", f"echo whole > {DIRECTORY}/proof"])
    cluster.settle()
    write_behind_the_guard(cluster, "node2", f"echo wrong > {DIRECTORY}/proof")
    cluster.pause_writer(True)
    try:
        with pytest.raises(Trouble, match="the trees differ: proof: content"):
            cluster.compare_trees()
    finally:
        cluster.pause_writer(False)
    cluster.lab.run("node1", ["sh", "-c", f"echo whole > {DIRECTORY}/proof"])
    cluster.settle()
    cluster.lab.run("node1", ["rm", f"{DIRECTORY}/proof"])

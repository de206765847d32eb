"""The verdicts and the table of bench/run --failover."""

from __future__ import annotations

from pathlib import Path

from bench import many, pressure
from bench.failover import MANY, NAMES, ROWS, judged, keep, merged, table


def test_the_worst_of_all_rounds_counts() -> None:
    assert judged([3.1, 3.9, 3.0], 4.0) == {"runs_s": [3.1, 3.9, 3.0], "median_s": 3.1, "worst_s": 3.9, "met": True}
    assert judged([3.1, 4.1, 3.0], 4.0)["met"] is False


def test_the_table_says_what_was_missed() -> None:
    rows = [
        {"text": "node killed", "limit_s": 4.0, **judged([3.0, 4.5], 4.0)},
        {"text": "planned swap", "limit_s": 1.0, **judged([0.5], 1.0)},
    ]
    lines = table({"rows": rows}).splitlines()
    assert lines[1].split() == ["node", "killed", "(2", "times)", "3.75", "s", "4.50", "s", "4.00", "s", "MISSED"]
    assert lines[2].endswith("met") and not lines[2].endswith("MISSED")


def test_every_row_has_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(ROWS) + len(MANY)


def test_what_was_not_measured_stays(tmp_path: Path) -> None:
    old = {"rows": [{"name": "node", "worst_s": 3}, {"name": "swap", "worst_s": 1}], "machine": 1}
    new = {"rows": [{"name": "swap", "worst_s": 2}], "many": [{"name": "idle"}]}
    whole = merged(old, new)
    assert whole == {"rows": [{"name": "node", "worst_s": 3}, {"name": "swap", "worst_s": 2}], "many": [{"name": "idle"}], "machine": 1}
    keep(old, tmp_path)
    keep(new, tmp_path)
    assert merged(whole, {}) == whole and "idle" in (tmp_path / "failover.json").read_text()


def test_the_worse_node_counts() -> None:
    assert many.judged_idle({"node1": 0.019, "node2": 0.02}, {"node1": 1, "node2": 150_000_000})["met"]
    assert not many.judged_idle({"node1": 0.019, "node2": 0.021}, {"node1": 1, "node2": 1})["met"]
    assert not many.judged_idle({"node1": 0.01, "node2": 0.01}, {"node1": 150_000_001, "node2": 1})["met"]
    row = {"name": "idle", "text": "idle", "cpu": {"a": 0.017}, "rss_bytes": {"a": 60e6}, "met": True}
    assert many.line_of(row).split()[1:] == ["1.70%", "of", "a", "processor", "(asked", "2", "%),", "60", "MB", "(asked", "150)", "met"]


def test_answers_of_a_moment_after_the_kill_had_been_on_their_way(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("10.0.0.1 9.0\n10.0.0.1 10.01\n10.0.0.1 14.0\n10.0.0.2 13.0\n10.0.0.1 15.0\n10.0.0.2 13.5\n10.0.0.1 16.")
    assert many.first_answers(tmp_path / "out", 11.0) == {"10.0.0.1": 14.0, "10.0.0.2": 13.0}
    assert many.answers(tmp_path / "out") == {"10.0.0.1": 15.0, "10.0.0.2": 13.5}


def test_only_what_a_failure_would_justify_is_a_false_failover() -> None:
    quiet = [
        {"kind": "transition", "text": "from=PRIM Ready to=PRIM Transient cause=-"},
        {"kind": "paused", "text": "this process stood still for 1.5 s"},
        {"kind": "heartbeat", "text": "takeover"},
    ]
    assert pressure.judged(quiet)["met"] and pressure.judged(quiet)["stood_still"] == 1
    for kind, text, counted in (
        ("takeover", "node1 is silent", "takeovers"),
        ("grant", "node1 is silent", "grants"),
        ("fence", "node1 is primary", "fences"),
        ("transition", "from=PRIM Ready to=ALONE Ready cause=-", "alone"),
        ("transition", "from=SECOND Ready to=WAIT NotReady cause=-", "role_changes"),
    ):
        found = pressure.judged([*quiet, {"kind": kind, "text": text, "node": "node2", "time": "12:00"}])
        assert not found["met"] and found[counted] == 1 and found["lines"][-1] == f"12:00 node2 {kind} {text}"


def test_the_longest_wait() -> None:
    assert pressure.silence([1.0, 1.5, 4.0, 4.1]) == {"acknowledged": 4, "longest_wait_s": 2.5}
    assert pressure.silence([]) == {"acknowledged": 0, "longest_wait_s": 0.0}

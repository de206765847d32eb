"""The verdicts and the table of bench/run --failover."""

from __future__ import annotations

from bench.failover import NAMES, ROWS, judged, table


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
    assert len(set(NAMES)) == len(ROWS)

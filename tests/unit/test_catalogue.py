"""The catalogue of faults: no row without a proof or a reason, no proof that is not there, and the page says the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from orchestrator.hactl.cli import run
from orchestrator.lab.scenarios import TABLE
from orchestrator.lab.scenarios.catalogue import ACCEPTANCE, FAULTS, Row, of, page, proofs
from orchestrator.lab.scenarios.running import in_order, moves
from orchestrator.lab.scenarios.series import FAULTS as DEEDS
from orchestrator.lab.scenarios.series import by_name, plan, series

ROOT = Path(__file__).resolve().parents[2]
ROWS = (*FAULTS, *ACCEPTANCE)


def test_the_page_is_what_the_table_says() -> None:
    kept = (ROOT / "docs" / "fault-catalogue.md").read_text()
    assert kept == page(), "python -m orchestrator.lab.scenarios.catalogue > docs/fault-catalogue.md"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.number))
def test_each_row_is_proven_or_says_what_it_waits_for(row: Row) -> None:
    assert proofs(row)
    if not of(row.number) and not row.elsewhere:
        assert row.waits
    for place in row.elsewhere:
        path = re.split("[ :]", place)[0]
        assert (ROOT / path).exists(), f"{row.number}: {path} is not there"


def test_each_scenario_plays_rows_that_exist_and_is_expected_to_end_somehow() -> None:
    numbers = {row.number for row in ROWS}
    assert len(TABLE) >= 60
    for each in TABLE.values():
        assert set(each.covers) <= numbers and each.covers, each.name
        assert each.serves in ("node1", "node2", "either")
        assert re.fullmatch("[a-z0-9-]+", each.name) and not by_name(each.name)


def test_the_mirrors_acceptance_tests_are_all_played() -> None:
    assert [row.number for row in ACCEPTANCE] == [f"S{number}" for number in range(1, 19)]
    assert all(of(row.number) for row in ACCEPTANCE[:10])
    assert all(of(row.number) for row in ACCEPTANCE), "and so are those of the checkers"


def test_scenarios_of_one_stage_follow_each_other() -> None:
    stages = [each.stage.name for each in in_order(TABLE.values())]
    assert [name for name, before in zip(stages, ["", *stages], strict=False) if name != before] == [
        *sorted({*stages} - {"plain"}),
        "plain",
    ]


def test_a_random_step_is_the_same_whenever_it_is_played() -> None:
    steps = list(series(7, 200))
    found = by_name(steps[5].name)
    assert found is not None and found.text == steps[5].text and steps[5].name == "random-7-5"
    assert steps[5].text != list(series(8, 200))[5].text
    assert sum(len(plan(7, step)) for step in range(len(steps))) >= 200
    assert {blow.fault for step in range(400) for blow in plan(7, step)} == set(DEEDS), "a fault that never comes"


def said(at: float, node: str, kind: str = "serving") -> dict[str, object]:
    return {"monotonic_s": at, "node": node, "kind": kind, "text": "rfs serves"}


def test_what_counts_as_a_move_of_the_role() -> None:
    assert moves([said(2, "node1"), said(1, "node2")]) == ["node2 rfs serves", "node1 rfs serves"]
    assert moves([said(1, "node1"), said(2, "node1")]) == [], "who served last only began again"
    assert moves([said(1, "node2", "transition"), said(2, "node2", "takeover")]) == [], "asked for, and not got"


def test_hactl_lists_scenarios_and_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lab", "run", "-o", "jsonl"]) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["scenario"] for each in listed} == set(TABLE)
    assert run(["lab", "run", "--list"]) == 0
    shown = capsys.readouterr().out
    assert "N9" in shown and "mtu-black-hole" in shown and "waits for a second release" in shown
    assert run(["lab", "run", "random-7"]) == 2
    assert "there is no scenario random-7" in capsys.readouterr().err

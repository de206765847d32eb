"""The bench of a resync: medians and verdicts, what people read, the options."""

from __future__ import annotations

from typing import Any

import pytest

from bench.main import parse
from bench.plot import GREEN, RED
from bench.resync import NAMES, table
from bench.resync_plot import asked
from bench.resync_row import Reach, ResyncRow, at_most, figures
from bench.resync_rows import ROWS, wire_limit
from bench.stage import Stage


def nothing(stage: Stage) -> dict[str, float]:
    raise AssertionError("a pure test measures nothing")


ROW = ResyncRow(
    "name", "a return", nothing, {"seconds": "s", "rate": "/s", "floor": "/s"},
    (at_most("seconds", 2, "2 s"), Reach("rate", "0.5 × floor", lambda found: 0.5 * found["floor"], at_least=True, reference="floor")),
)  # fmt: skip


def found(*floors: float) -> dict[str, Any]:
    return figures(ROW, [{"seconds": 1.0 + index, "rate": 40.0, "floor": floor} for index, floor in enumerate(floors)])


def test_medians_are_judged() -> None:
    first, second = found(100, 100, 100)["targets"]
    assert (first["met"], first["limit"], first["value_to_limit"]) == (True, 2, 1)
    assert (second["met"], second["limit"], second["unsteady"]) == (False, 50, [])


def test_an_unsteady_reference_judges_nothing() -> None:
    assert found(40, 100, 300)["targets"][1]["unsteady"] == ["floor"]


def test_the_table_says_what_was_found_and_what_was_asked() -> None:
    text = table({"rows": [found(100, 100, 100), {"name": "x", "text": "another", "failed": "no cable"}]})
    assert "≤ 2 s = 2.00: met (1.00 of it)" in text
    assert "≥ 0.5 × floor = 50.00: MISSED (0.80 of it)" in text
    assert "FAILED: no cable" in text


def test_the_picture_shows_the_part_that_is_used_up() -> None:
    lines = list(asked({"rows": [found(100, 100, 100), {"name": "x", "text": "another", "failed": "no cable"}]}))
    assert [(part, colour) for _, _, part, colour in lines] == [(1, GREEN), (1.25, RED)]
    assert [name for name, _, _, _ in lines] == ["a return", "a return: rate"]


def test_the_wire_s_limit_counts_what_the_target_hashed() -> None:
    assert wire_limit({"changed": 4.0, "read_2": 4.096}) == pytest.approx(8 + 0.064)


def test_every_reach_speaks_of_a_value_that_the_row_has() -> None:
    assert all(reach.value in row.units for row in ROWS for reach in row.reaches)


def test_rows_by_name() -> None:
    assert parse(["--resync", "--only", "link,moved"]).rows == ["link", "moved"]
    assert parse(["--resync"]).rows == NAMES
    with pytest.raises(SystemExit):
        parse(["--only", "moved"])

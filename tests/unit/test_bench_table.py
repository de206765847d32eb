"""The bench: what people read, and the options."""

from __future__ import annotations

from typing import Any

import pytest

from bench.main import parse
from bench.plot import GREEN, GREY, RED, limit_speed, short, verdict_colour, words
from bench.scale import FULL, QUICK
from bench.table import number, table

ROW: dict[str, Any] = {
    "name": "write_fsync_4k", "text": "4 KiB write + fsync, p50", "unit": "µs", "lower_is_better": True,
    "native": 100.0, "native_two": 120.0, "mirror": 250.0, "floor": 50.0, "mirror_to_native": 2.5, "mirror_to_floor": 5.0,
    "floor_spread": 0.05, "floor_is_steady": True, "targets": [{"text": "≤ this", "limit": 286.0, "value_to_limit": 0.87, "met": True}],
}  # fmt: skip


def results(**more: Any) -> dict[str, Any]:
    return {"rows": [{**ROW, **more}]}


def test_only_columns_that_were_measured_are_shown() -> None:
    heads = table(results()).splitlines()[0].split()
    assert heads == ["unit", "native", "2", "writers", "mirror", "floor"]
    assert "gluster" in table(results(gluster=900.0, mirror_to_gluster=0.28)).splitlines()[0]


def test_absolutes_come_first_and_ratios_after_them() -> None:
    lines = table(results()).splitlines()
    assert lines[1].split()[-5:] == ["µs", "100.0", "120.0", "250.0", "50.00"]
    assert lines[4].split()[-3:] == ["less", "2.50", "5.00"]


@pytest.mark.parametrize(("met", "steady", "word"), [(True, True, ": met"), (False, True, ": MISSED"), (False, False, "not judged")])
def test_the_verdict(met: bool, steady: bool, word: str) -> None:
    assert word in table(results(targets=[{**ROW["targets"][0], "met": met, "unsteady": [] if steady else ["floor"]}]))


def test_what_is_unsteady_is_named() -> None:
    assert "spreads (native by 31%)" in table(results(spread={"native": 0.31, "floor": 0.2, "mirror": 0.9}))
    assert "spreads" not in table(results())


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (3.14159, "3.14"), (123.45, "123.5"), (12345.6, "12,346"), (0.004, "0.00")])
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_limit_is_drawn_where_a_mirror_that_just_meets_it_would_be() -> None:
    assert limit_speed(ROW, ROW["targets"][0]) == pytest.approx(100 / 286)
    assert limit_speed({**ROW, "lower_is_better": False}, {"limit": 80.0}) == pytest.approx(0.8)
    assert limit_speed({"lower_is_better": True}, {"limit": 1.0}) is None, "without a native column"
    assert words(ROW) == "250.0 µs   (100.0)"


def test_short_numbers() -> None:
    assert [short(value) for value in (2.5, 250, 9999, 12_345, 12_820_513)] == ["2.50", "250.0", "9,999", "12.3 k", "12.8 M"]


def test_a_missed_target_is_red_and_a_doubtful_one_grey() -> None:
    assert verdict_colour(ROW["targets"][0]) == GREEN
    assert verdict_colour({"met": False}) == RED
    assert verdict_colour({"met": True, "unsteady": ["floor"]}) == GREY


def test_all_rows_or_those_that_are_named() -> None:
    assert parse(["--only", "stat,memory"]).rows == ["stat", "memory"]
    assert "memory" in parse([]).rows and "stat" in parse([]).rows
    with pytest.raises(SystemExit):
        parse(["--only", "nothing_like_it"])


def test_what_is_slow_gets_a_tenth_of_the_files() -> None:
    assert FULL.entries_of(slow=True) * 10 == FULL.entries_of(slow=False) == 100_000
    assert QUICK.archive_files_of(slow=True) * 10 == QUICK.archive_files_of(slow=False)
    assert FULL.repetitions_of("once") == 1 < FULL.repetitions_of("heavy") < FULL.repetitions_of("light")

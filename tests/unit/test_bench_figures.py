"""The bench: medians, ratios and verdicts out of repetitions."""

from __future__ import annotations

import pytest

from bench.bed import Bed
from bench.figures import figures, memory_figures, speed, spread
from bench.row import Row, Target
from bench.rows import ROWS
from bench.subject import Subject


def nothing(bed: Bed, subject: Subject) -> float:
    raise AssertionError("a pure test measures nothing")


def row(*, lower_is_better: bool, target: Target | None = None) -> Row:
    return Row("name", "text", "µs", lower_is_better, nothing, targets=(target,) if target else ())


def named(name: str) -> Row:
    return next(row for row in ROWS if row.name == name)


def test_medians_and_the_ratio_of_the_mirror_to_every_other_column() -> None:
    found = figures(row(lower_is_better=True), {"native": [1, 2, 90], "mirror": [8, 7, 9], "gluster": [16, 16, 16]})
    assert (found["native"], found["mirror"]) == (2, 8)
    assert found["mirror_to_native"] == 4
    assert found["mirror_to_gluster"] == 0.5
    assert "mirror_to_mirror" not in found


def test_a_column_of_nothing_has_no_ratio() -> None:
    assert "mirror_to_plain" not in figures(row(lower_is_better=True), {"mirror": [1.0], "plain": [0.0]})


@pytest.mark.parametrize(("floors", "steady"), [([100, 101, 102], True), ([100, 100, 100], True), ([60, 100, 140], False), ([50], True)])
def test_a_floor_that_spreads_is_unsteady(floors: list[float], steady: bool) -> None:
    assert figures(row(lower_is_better=True), {"mirror": [1], "floor": floors})["floor_is_steady"] is steady


def test_the_spread_is_of_the_middle_half() -> None:
    assert spread([1, 100, 101, 102, 9999]) == pytest.approx(2 / 101)
    assert spread([0, 0, 0]) == 0


@pytest.mark.parametrize(("lower_is_better", "value", "met"), [(True, 9, True), (True, 11, False), (False, 9, False), (False, 11, True)])
def test_a_target_is_a_limit_on_the_better_side(lower_is_better: bool, value: float, met: bool) -> None:
    asked = Target("twice native", lambda found: 2 * found["native"], ("native",))
    target = figures(row(lower_is_better=lower_is_better, target=asked), {"native": [5], "mirror": [value]})["targets"][0]
    assert target["limit"] == 10
    assert target["met"] is met
    assert target["value_to_limit"] == pytest.approx(value / 10)


def test_a_target_is_not_judged_by_what_is_unsteady() -> None:
    found = figures(named("create_unlink_p50"), {"native": [10, 20, 30], "mirror": [100, 500, 900], "floor": [50, 51, 52]})
    assert found["targets"][0]["unsteady"] == ["native"]


def test_a_target_without_its_columns_is_not_judged() -> None:
    assert figures(named("writers_4k"), {"native": [5], "mirror": [5]})["targets"] == []


@pytest.mark.parametrize(
    ("name", "columns", "limit"),
    [
        ("writers_4k", {"floor": 10_000}, 20_000),
        ("write_fsync_4k", {"native_two": 100, "floor": 50}, 260),
        ("create_unlink_p50", {"floor": 50, "native": 20}, 220),
        ("stat", {"native": 1000}, 800),
        ("readdir", {"native": 1000}, 800),
    ],
)
def test_what_is_asked(name: str, columns: dict[str, float], limit: float) -> None:
    found = figures(named(name), {"mirror": [1], **{column: [value] for column, value in columns.items()}})
    assert found["targets"][0]["limit"] == pytest.approx(limit)


def test_what_only_the_target_is_made_of_is_not_compared_with() -> None:
    found = figures(named("write_fsync_4k"), {"native": [100], "mirror": [250], "native_two": [120], "floor": [50]})
    assert found["floor"] == 50 and found["native_two"] == 120
    assert [key for key in found if key.startswith("mirror_to_")] == ["mirror_to_native"]


def test_memory_is_counted_over_the_idle() -> None:
    found = memory_figures(1000, 30_000_000, 30_500_000, 70, 20_000)
    assert found["bytes_per_inode"] == 500
    assert found["target"]["limit"] == 60_400_000
    assert found["target"]["met"]


def test_speed_is_more_when_better_whatever_the_unit() -> None:
    assert speed({"lower_is_better": True, "native": 2, "mirror": 8}, "mirror") == 0.25
    assert speed({"lower_is_better": False, "native": 2, "mirror": 8}, "mirror") == 4
    assert speed({"lower_is_better": True, "mirror": 8}, "mirror") is None


def test_names_of_rows_are_unique() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)

"""A simulator that finds nothing proves nothing: with one rule taken out it must find something."""

from __future__ import annotations

import os
from datetime import date

import pytest

from tests.sim.broken import BUILDS, detect, patched

SHARES = 6  # one of them a day; script/soak takes all
TODAY = [
    name
    for number, name in enumerate(BUILDS)
    if "LOCKSTEP_ALL_BUILDS" in os.environ or number % SHARES == date.today().toordinal() % SHARES
]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", TODAY)
def test_a_broken_build_is_caught(name: str) -> None:
    assert detect(BUILDS[name]) is not None, f"{name} ({BUILDS[name].guards}) went unnoticed for {BUILDS[name].most} lives"


@pytest.mark.parametrize("name", BUILDS)
def test_what_is_taken_out_is_there(name: str) -> None:
    with patched(BUILDS[name]):
        pass


def test_there_are_enough_of_them() -> None:
    assert len(BUILDS) >= 20

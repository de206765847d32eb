"""A hostile source, case by case, against the real engine (cases.py)."""

from __future__ import annotations

import pytest

from tests.hostile.cases import CASES, Case, Ends
from tests.hostile.world import is_possible, made

pytestmark = pytest.mark.skipif(bool(is_possible()), reason=is_possible() or "possible")


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_case(case: Case) -> None:
    with made() as world:
        world.open(refuses=case.refuses, exclude=case.exclude)
        world.session()
        case.play(world)
        outcome = world.ended() if case.ends is not Ends.HARMLESS else world.outcome()
        if case.ends is Ends.HARMLESS:
            assert not outcome.closed and outcome.failed is None, outcome.events
        elif case.ends is Ends.REFUSED:
            assert outcome.failed is None and outcome.lost is not None, outcome.events
            assert outcome.lost.text and outcome.lost.text.isprintable()
        else:
            assert outcome.failed is not None and outcome.failed.result == -case.code, outcome.events
        if case.then is not None:
            case.then(world)
        world.next_session_works()

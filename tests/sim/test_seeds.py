"""Random faults, then peace: the oracle is content all the while, one primary and one second in the end, and no rule went unvisited."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.sim.coverage import NOWHERE, Counted
from tests.sim.walk import walk

USUAL = 150
FIRST = int(os.environ.get("LOCKSTEP_SIM_FIRST", "0"))
SEEDS = int(os.environ.get("LOCKSTEP_SIM_SEEDS", str(USUAL)))


@pytest.fixture(scope="module")
def counted() -> Iterator[Counted]:
    with Counted() as counting:
        yield counting


@pytest.mark.parametrize("witness", [False, True], ids=["by policy", "with a witness"])
@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_faults_then_peace(seed: int, witness: bool, counted: Counted) -> None:
    counted.saw(walk(seed, witness).visited)
    counted.lives += 1


def test_the_default_run_visits_every_rule_and_every_pair_of_the_table(counted: Counted) -> None:
    if counted.lives < 2 * USUAL:
        pytest.skip("only a part of the lives was lived")
    assert not counted.missing()
    assert set(NOWHERE) <= {*counted.labels, *counted.pairs}, "of what is never visited some does not exist any more"

"""Two real hactld loops on a clock that jumps: the promises hold with the product's own lanes, renewals and notice of pauses."""

from __future__ import annotations

import os

import pytest

from tests.sim.runners import play

SEEDS = int(os.environ.get("LOCKSTEP_SIM_RUNNERS", "25"))


@pytest.mark.parametrize("witness", [False, True], ids=["by policy", "with a witness"])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_faults_then_peace_with_runners(seed: int, witness: bool) -> None:
    play(seed, witness)

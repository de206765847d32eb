"""A process is killed at each named step (rfs/steps.py) while an application works. Whatever dies, and wherever: what was acknowledged is
there, the pair comes together again by itself, the trees are equal, nothing hangs.

The operator is one who stands alone: lets a primary go on whose peer is dead, promotes a secondary whose peer is dead, starts what is dead.
"""

from __future__ import annotations

import random

import pytest

from rfs.steps import STEPS
from tests.faults.conftest import chosen
from tests.faults.provoke import CASES, PRIMARY
from tests.faults.scene import Scene, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(180)]
BY_NAME = {case.name: case for case in CASES}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case_name" in metafunc.fixturenames:
        # Two seconds each: five of six, others each day.
        metafunc.parametrize("case_name", chosen(metafunc.config, sorted(BY_NAME), size=len(BY_NAME) * 5 // 6))


def test_no_step_is_without_a_case() -> None:
    assert {case.step for case in CASES} == set(STEPS)


def test_a_process_dies_at_a_step(scene: Scene, case_name: str, dice: random.Random) -> None:
    case = BY_NAME[case_name]
    primary = scene.begin()
    secondary = scene.other(primary)
    victim = primary if case.victim == PRIMARY else secondary
    victim.arm(case.step, dice.randint(1, case.visits))
    case.provoke(scene, primary, secondary)
    wait_until(lambda: not victim.is_alive(), f"{victim.name} dies at {case.step}; {scene.told()}")
    scope = scene.settle(takeover=dice.random() < 0.5)
    assert scope in case.scopes

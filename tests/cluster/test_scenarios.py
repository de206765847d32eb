"""A slice of the scenarios of `hactl lab run`: every day another twelfth, script/soak (LOCKSTEP_SCENARIO_SHARE=all) every one.

The names of the day are the tests' own. docs/fault-catalogue.md says what each plays and what is asked of it.
"""

from __future__ import annotations

import datetime
import os

import pytest

from orchestrator.lab.scenarios import TABLE, Scenario, Theatre, in_order, series

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SHARES = 12
SHARE = os.environ.get("LOCKSTEP_SCENARIO_SHARE", str(datetime.datetime.now(datetime.UTC).timetuple().tm_yday % SHARES))  # or "all"
EVERY_DAY = {"primary-power-cut", "primary-isolated", "primary-frozen"}
RANDOM_STEPS = 2  # a day, of the day's own seed


def of_the_day(share: str) -> list[Scenario]:
    """Slow ones only with all."""
    if share == "all":
        return in_order(TABLE.values())
    quick = [each for each in TABLE.values() if not each.slow]
    return in_order(each for place, each in enumerate(quick) if place % SHARES == int(share) or each.name in EVERY_DAY)


@pytest.mark.parametrize("scenario", of_the_day(SHARE), ids=lambda scenario: str(scenario.name))
def test_scenario(theatre: Theatre, scenario: Scenario) -> None:
    verdict = theatre.play(scenario)
    if verdict.skipped:
        pytest.skip(verdict.skipped)
    assert verdict.passed, "\n".join([*verdict.problems, f"evidence: {verdict.evidence}"])


@pytest.mark.parametrize("step", range(RANDOM_STEPS))
def test_a_random_step(theatre: Theatre, step: int) -> None:
    day = datetime.datetime.now(datetime.UTC).toordinal()
    scenario = series.step_of(day, step)
    verdict = theatre.play(scenario)
    assert verdict.passed, f"{scenario.name}: {scenario.text}\n" + "\n".join([*verdict.problems, f"evidence: {verdict.evidence}"])

"""Lives of a pair keep every promise, and a broken build does not: which shows that the simulator can tell."""

import os
import time
from datetime import date

import pytest

from rfs import decide as deciding
from tests.datasim import coverage
from tests.datasim.broken import BUILDS, detect
from tests.datasim.main import kept_seeds
from tests.datasim.walk import Walk, walk


def test_kept_seeds_and_some_others() -> None:
    for seed in [*kept_seeds(), *range(60)]:
        walk(seed)


def test_a_seed_is_one_life() -> None:
    traces = []
    for _ in range(2):
        world = Walk(3)
        world.live()
        traces.append(world.trace)
    assert traces[0] == traces[1]


def test_the_list_of_rules_is_whole() -> None:
    assert coverage.rules_of_decide() == {*coverage.RULES, *coverage.NOT_HERE}
    assert all(hasattr(deciding, name) for name in coverage.RULES)


# Half of them a day; script/soak takes all.
TODAY = [name for number, name in enumerate(BUILDS) if "LOCKSTEP_ALL_BUILDS" in os.environ or number % 2 == date.today().toordinal() % 2]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", TODAY)
def test_a_broken_build_is_caught(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.process_time()
    caught = detect(BUILDS[name])
    assert caught is not None, f"{name} ({BUILDS[name].guards}) went unnoticed for {BUILDS[name].most} seeds"
    with capsys.disabled():
        print(f"\n  {name}: {caught[0]} seeds, {time.process_time() - began:.1f} s: {caught[1][:110]}")

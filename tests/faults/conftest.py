"""One pair for all cases, and which of the cases this run takes.

    pytest tests/faults --fault-cases all           every case (script/soak)
    pytest tests/faults --fault-seed N              the slice and the random choices of an earlier run, which are printed at its top

Without options a run takes a slice that moves on with the date, so that a week of runs has seen everything.
"""

from __future__ import annotations

import datetime
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scene import FaultNode, Scene
from tests.posix.node import free_address, know_each_other


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-cases", default="slice", choices=("slice", "all"), help="a slice of the fault cases, or all of them")
    parser.addoption("--fault-seed", type=int, default=None, help="which slice, and every random choice (default: the date)")


def seed_of(config: pytest.Config) -> int:
    given: int | None = config.getoption("--fault-seed", None)
    return datetime.date.today().toordinal() if given is None else given


def pytest_report_header(config: pytest.Config) -> str:
    return f"fault cases: {config.getoption('--fault-cases', 'slice')}; seed {seed_of(config)} (--fault-seed repeats it)"


def chosen(config: pytest.Config, cases: list[str], size: int) -> list[str]:
    """All, those that were named with -k, or the slice of this seed: every case comes once in len / size seeds."""
    if config.getoption("--fault-cases", "slice") == "all" or config.getoption("keyword"):
        return cases
    shuffled = random.Random(1).sample(cases, len(cases))
    seed = seed_of(config)
    start = seed * size % len(shuffled)
    return (shuffled + shuffled)[start : start + size]


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """The same for the same seed and test."""
    return random.Random(f"{seed_of(request.config)} {request.node.name}")


@pytest.fixture(scope="module")
def shared() -> Iterator[Scene]:
    """A pair that outlives many cases."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("needs root and /dev/fuse")
    with tempfile.TemporaryDirectory(prefix="lockstep-faults-", dir="/var/tmp") as path:
        here, there = free_address(), free_address()
        a, b = FaultNode(Path(path), "a", here, there), FaultNode(Path(path), "b", there, here)
        know_each_other(a, b)
        try:
            scene = Scene(Path(path), a, b)
            scene.build()
            yield scene
        finally:
            for node in (b, a):
                node.clean()


@pytest.fixture
def scene(shared: Scene, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The shared pair; a case that failed leaves no process behind that the next one would wait for."""
    yield shared
    shared.application.abandon()
    if request.session.testsfailed:
        for node in shared.nodes:
            node.disarm()

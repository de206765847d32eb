"""Random steps on one file against a model (fsx.py), in every way in which a file may be open; `pair` compares the other copy.

LOCKSTEP_FSX_STEPS=n (default 4000) and LOCKSTEP_FSX_SEEDS=first:count make it longer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.posix.conftest import Pair
from tests.posix.fsx import LIMIT, VARIANTS, Fsx

pytestmark = [pytest.mark.mount, pytest.mark.timeout(0 if "LOCKSTEP_FSX_STEPS" in os.environ else 120)]

STEPS = int(os.environ.get("LOCKSTEP_FSX_STEPS", "4000"))
FIRST_SEED, SEEDS = (int(word) for word in os.environ.get("LOCKSTEP_FSX_SEEDS", "1:1").split(":"))
PROCESSES = 4


@pytest.fixture
def file(pair: Pair) -> Iterator[Path]:
    """An empty file; afterwards it is the same on both nodes."""
    directory = pair.root / "fsx"
    directory.mkdir()
    yield directory / "file"
    pair.mirrored("fsx")
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
@pytest.mark.parametrize("variant", VARIANTS)
def test_one_process(file: Path, variant: str, seed: int) -> None:
    file.touch()
    Fsx(str(file), variant, seed).run(STEPS)


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + SEEDS))
@pytest.mark.parametrize("variant", [*VARIANTS, "all"])
def test_several_processes_each_in_its_region(file: Path, variant: str, seed: int) -> None:
    with open(file, "wb") as made:
        made.truncate(PROCESSES * LIMIT)
    running = []
    for region in range(PROCESSES):
        kind = VARIANTS[region] if variant == "all" else variant
        words = [str(file), kind, str(seed), str(STEPS // PROCESSES), str(region), str(PROCESSES)]
        running.append(subprocess.Popen([sys.executable, "-m", "tests.posix.fsx", *words], stderr=subprocess.PIPE, text=True))
    for process in running:
        _, said = process.communicate()
        assert process.returncode == 0, said

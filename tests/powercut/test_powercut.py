"""A pair whose power is cut, with what was not synced really lost: script/powercut for some time.

LOCKSTEP_POWERCUT_SECONDS=600 pytest tests/powercut     longer than the usual minute
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.powercut.disk import CannotRunHere, check_machine

ROOT = Path(__file__).resolve().parents[2]
SECONDS = float(os.environ.get("LOCKSTEP_POWERCUT_SECONDS", "55"))
SEED = os.environ.get("LOCKSTEP_POWERCUT_SEED", "")
CANNOT = 3
WAYS_BACK = 16  # cuts; at least two of them must come within the overwriting


def powercut(*options: str) -> dict[str, Any]:
    """The counts that script/powercut came to; anything else than its success fails the test, with its last words."""
    try:
        check_machine()
    except CannotRunHere as reason:
        pytest.skip(str(reason))
    command = [str(ROOT / "script/powercut"), *options, *(["--seed", SEED] if SEED else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == CANNOT:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    counts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(counts)
    return counts


@pytest.mark.mount
@pytest.mark.timeout(SECONDS * 2 + 180)
def test_a_cut_at_any_instant_loses_nothing_that_was_promised() -> None:
    """And the same states on disks that break their promise are found out, or this test would prove nothing."""
    counts = powercut("--seconds", f"{SECONDS:g}")
    assert counts["violations"] == 0
    assert counts["states_looked_at"] >= 20 and counts["rejoins_proved"] >= 3
    assert counts["controls"]["reorders"]["lost"] and counts["controls"]["forgets"]["lost"]


@pytest.mark.mount
@pytest.mark.timeout(240)
def test_the_target_of_a_resync_that_never_ends_finds_its_way_back() -> None:
    """Cut anywhere within it, and at times again within the way back."""
    counts = powercut("--way-back", str(WAYS_BACK))
    assert sum(often for found, often in counts["found"].items() if found.startswith("kept")) >= 2, counts

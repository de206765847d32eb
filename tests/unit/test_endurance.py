"""What hactld asks of the scheduler and of memory is its own: nothing that it starts has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.endurance import CAP_IPC_LOCK, NICENESS, endure, has_capability

ROOT = Path(__file__).resolve().parents[2]


def status_of(pid: int) -> dict[str, int]:
    """Its priority and its locked memory."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    locked = Path(f"/proc/{pid}/status").read_text().partition("VmLck:")[2].split()[0]
    return {"nice": int(fields[16]), "locked": int(locked)}


def inside() -> None:
    """Run by the test below: nobody else should have this."""
    refused = endure()
    child = subprocess.Popen(["sleep", "10"])
    try:
        print(json.dumps({"refused": refused, "own": status_of(os.getpid()), "child": status_of(child.pid)}))
    finally:
        child.kill()
        child.wait()


def test_what_is_asked_for_is_not_inherited() -> None:
    words = [sys.executable, "-c", "from tests.unit import test_endurance; test_endurance.inside()"]
    said = json.loads(subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout)
    assert said["child"] == {"nice": os.getpriority(os.PRIO_PROCESS, 0), "locked": 0}
    if not any("priority" in refusal for refusal in said["refused"]):
        assert said["own"]["nice"] == NICENESS
    if not any("memory" in refusal for refusal in said["refused"]):
        assert said["own"]["locked"] > 0
    if os.geteuid() == 0 and has_capability(CAP_IPC_LOCK):
        assert said["refused"] == [] or "Permission" in said["refused"][0]


def test_a_right_that_nobody_has() -> None:
    with pytest.raises(ValueError):
        has_capability(-1)
    assert not has_capability(63)

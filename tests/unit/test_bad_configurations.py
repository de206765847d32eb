"""Bad configurations (tests/golden/bad/): `hactl config check` finds every fault at once, in the words of tests/golden/bad/NAME/said.txt.

`LOCKSTEP_GOLDEN=write` writes them anew; read the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from orchestrator.hactl.cli import run

BAD = Path(__file__).resolve().parents[1] / "golden" / "bad"
NAMES = sorted(path.name for path in BAD.iterdir())
FEWEST = {"checkers": 14, "cluster": 15, "module": 25, "scripts": 7, "syntax": 6, "tables": 8, "together": 10}


def test_there_are_some() -> None:
    assert set(NAMES) == set(FEWEST)


@pytest.mark.parametrize("name", NAMES)
def test_every_fault_is_told_at_once(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "check", "--config-dir", str(BAD / name)]) == 3
    captured = capsys.readouterr()
    said = captured.err.replace(str(BAD), "BAD")
    assert captured.out == "" and said.endswith("Nothing was applied.\n")
    if os.environ.get("LOCKSTEP_GOLDEN") == "write":
        (BAD / name / "said.txt").write_text(said)
    assert said == (BAD / name / "said.txt").read_text()
    assert sum(line.startswith("  ") for line in said.splitlines()) >= FEWEST[name], "one fault hides another"


@pytest.mark.parametrize("name", NAMES)
def test_programs_are_told_the_same(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "check", "--json", "--config-dir", str(BAD / name)]) == 3
    problems = json.loads(capsys.readouterr().out)["problems"]
    said = (BAD / name / "said.txt").read_text()
    assert len(problems) == sum(line.startswith("  ") for line in said.splitlines())
    assert all(each["text"] in said and (each["line"] is None or f"line {each['line']} " in said) for each in problems)

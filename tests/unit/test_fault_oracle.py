"""The fault tests' application: what it was told and is not there must be seen, what was under way may be there or not."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import application
from tests.faults.application import GROUP, JOURNAL

ROOT = Path(__file__).parents[2]


@pytest.fixture
def told(tmp_path: Path) -> tuple[Path, Path]:
    directory, log = tmp_path / "tree", tmp_path / "log"
    directory.mkdir()
    subprocess.run([sys.executable, str(ROOT / "tests/faults/application.py"), directory, log, "0", str(3 * GROUP)], check=True, timeout=30)
    return directory, log


def wrong(told: tuple[Path, Path]) -> list[str]:
    return application.wrong(str(told[0]), str(told[1]))


def test_all_is_there(told: tuple[Path, Path]) -> None:
    assert wrong(told) == [] and application.noted(str(told[1])) == (list(range(3 * GROUP)), [3 * GROUP], [])


@pytest.mark.parametrize("what", ["content", "name", "stranger", "line", "order", "twice"])
def test_what_is_lost_is_seen(told: tuple[Path, Path], what: str) -> None:
    journal, renamed = told[0] / JOURNAL, told[0] / "directory0" / "renamed"
    lines = journal.read_bytes().splitlines(keepends=True)
    match what:
        case "content":
            renamed.write_bytes(b"other")
        case "name":
            renamed.rename(told[0] / "directory0" / "elsewhere")
        case "stranger":
            (told[0] / "stranger").touch()
        case "line":
            journal.write_bytes(b"".join(lines[:2] + lines[3:]))
        case "order":
            journal.write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
        case _:
            journal.write_bytes(b"".join([*lines, lines[-1]]))
    assert wrong(told)


@pytest.mark.parametrize("done", [False, True])
def test_what_was_under_way_may_be_there_or_not(told: tuple[Path, Path], done: bool) -> None:
    if done:
        (told[0] / f"made{3 * GROUP}").write_bytes(b"in part")
    assert wrong(told) == []

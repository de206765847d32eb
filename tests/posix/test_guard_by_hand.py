"""`rfsmount guard` and `unguard` without a mount: who works on plain directories, and what keeps them from being closed again."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rfs.mount_table import read_mount_table, stack_at

pytestmark = pytest.mark.mount


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A directory and its state; nothing lies over it afterwards."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    directory = tmp_path / "data"
    directory.mkdir()
    yield directory, tmp_path / "state"
    for _ in stack_at(str(directory), read_mount_table()):
        subprocess.run(["umount", str(directory)], check=True)


def rfsmount(verb: str, place: tuple[Path, Path], *more: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "rfs.cli", verb, str(place[0]), "--state", str(place[1]), *more]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def may_write(directory: Path) -> bool:
    try:
        (directory / "here").write_text("x")
    except OSError as error:
        assert error.errno == errno.EROFS
        return False
    return True


def noted(place: tuple[Path, Path]) -> dict[str, object]:
    found: dict[str, object] = json.loads((place[1] / "guards").read_text())
    return found


def test_unguard_takes_off_what_guard_lays_and_nothing_is_trusted_afterwards(place: tuple[Path, Path]) -> None:
    assert rfsmount("guard", place).returncode == 0 and not may_write(place[0])
    assert rfsmount("unguard", place).returncode == 0 and may_write(place[0])
    assert noted(place)["guards"] == {} and noted(place)["trusted"] is False
    assert rfsmount("unguard", place).returncode == 0, "twice is once"
    assert rfsmount("guard", place, "--refuse-holders").returncode == 0 and not may_write(place[0])
    assert noted(place)["trusted"] is False


def test_what_somebody_has_open_is_not_closed(place: tuple[Path, Path]) -> None:
    with (place[0] / "held").open("w"):
        done = rfsmount("guard", place, "--refuse-holders")
        assert done.returncode == 6 and "still in use" in done.stderr and may_write(place[0])
    assert rfsmount("guard", place, "--refuse-holders").returncode == 0 and not may_write(place[0])

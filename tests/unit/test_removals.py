"""What the brake has set aside, as status finds it: by the names of places that root alone can have made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rfs.removals import KEPT_NAME, Removal, find_removals


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[tuple[list[Path], list[int]]]:
    """Two directories, and their descriptors."""
    paths = [tmp_path / "data", tmp_path / "wal"]
    for path in paths:
        path.mkdir()
    descriptors = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in paths]
    yield paths, descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def found(trees: tuple[list[Path], list[int]]) -> list[Removal]:
    return list(find_removals([str(path) for path in trees[0]], trees[1]))


def test_nothing_was_ever_kept(trees: tuple[list[Path], list[int]]) -> None:
    assert found(trees) == []


def test_each_place_says_how_many_of_how_many(trees: tuple[list[Path], list[int]]) -> None:
    (data, wal), _ = trees
    for path, name in ((data, "removed.2.1000-of-1001"), (data, "removed.1.5-of-7"), (wal, "removed.1.9999-of-9999")):
        (path / KEPT_NAME / name).mkdir(parents=True)
    (data / KEPT_NAME / "17.cache").mkdir()  # local files, which no brake has set aside
    (data / KEPT_NAME / "removed.x.1-of-2").mkdir()
    one, two, three = found(trees)
    assert (one.files, one.of_files, two.files, three.path) == (5, 7, 1000, str(wal))
    assert two.place == f"{data}/{KEPT_NAME}/removed.2.1000-of-1001"
    said = two.sentence("/var/lib/state")
    assert f"1000 of 1001 files of {data}" in said and two.place in said and "'rfsmount discard --state /var/lib/state'" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_what_a_user_has_planted_is_not_believed(trees: tuple[list[Path], list[int]]) -> None:
    (data, wal), _ = trees
    (data / KEPT_NAME / "removed.1.5-of-7").mkdir(parents=True)
    os.chown(data / KEPT_NAME, 4711, 4711)
    (data / "elsewhere" / "removed.1.5-of-7").mkdir(parents=True)
    (wal / KEPT_NAME).symlink_to(data / "elsewhere")
    assert found(trees) == []

"""What counts as equal content of two files: the bytes, not where the holes are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.lab.trees import READ_BYTES, differences, manifest, mirrored


def content(root: Path, name: str, size: int, *pieces: tuple[int, bytes]) -> object:
    """Of a file that is made of pieces; the rest is holes."""
    with open(root / name, "wb") as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
    return manifest(str(root))[name]["content"]


def test_a_hole_and_written_zeros_are_the_same(tmp_path: Path) -> None:
    size = 5 * READ_BYTES + 123
    one = content(tmp_path, "one", size, (3 * READ_BYTES - 1, b"xyz"))
    zeros = content(tmp_path, "zeros", size, (0, bytes(size)), (3 * READ_BYTES - 1, b"xyz"))
    assert one == zeros


def test_each_byte_and_its_place_count(tmp_path: Path) -> None:
    size = 3 * READ_BYTES
    places = [(0, b"x"), (1, b"x"), (READ_BYTES, b"x"), (size - 1, b"x"), (size - 1, b"y"), (READ_BYTES, os.urandom(READ_BYTES))]
    found = [content(tmp_path, str(number), size, place) for number, place in enumerate(places)]
    assert len(set(map(str, found))) == len(found)


def test_the_size_counts(tmp_path: Path) -> None:
    for name, size in (("a", 5), ("b", 6)):
        (tmp_path / name).mkdir()
        content(tmp_path / name, "file", size)
        os.utime(tmp_path / name / "file", (1, 1))
        os.utime(tmp_path / name, (1, 1))
    assert differences(manifest(str(tmp_path / "a")), manifest(str(tmp_path / "b"))) == ["file: size 5 / 6"]


@pytest.mark.parametrize(
    ("pattern", "local"),
    [
        ("*.pid", {"a.pid", "d/b.pid"}),
        ("./a.pid", {"a.pid"}),
        ("**/tmp", {"tmp", "tmp/x", "d/tmp", "d/tmp/x"}),
        ("tmp/**", {"tmp/x"}),
        ("d/*", {"d/b.pid", "d/tmp", "d/tmp/x"}),
        ("d/?.pid", {"d/b.pid"}),
        ("#odd+/**", {"#odd+/x"}),
    ],
)
def test_what_is_local_is_left_out(pattern: str, local: set[str]) -> None:
    paths = {".", "a.pid", "tmp", "tmp/x", "d", "d/b.pid", "d/tmp", "d/tmp/x", "#odd+", "#odd+/x"}
    tree = {path: {"mode": path} for path in paths}
    assert paths - set(mirrored(tree, [pattern])) == local
    assert mirrored(tree, []) == tree

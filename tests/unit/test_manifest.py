"""Manifests: what the engine writes is what is there, what is compared is what differs, and damaged ones are refused."""

from __future__ import annotations

import io
import os
import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rfs import manifest
from rfs.manifest import BadManifest, Entry, Where, compare, ranges, read
from rfs.patterns import Patterns

PLAIN = Entry(0, stat.S_IFREG | 0o644, 0, 0, 5, 0, 1, b"c" * 16, b"x" * 16, 0, b"f", b"")


def listed(path: Path, patterns: Patterns = Patterns(), *, content: bool = True) -> list[Entry]:  # noqa: B008
    async def write() -> list[Entry]:
        tree = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with tempfile.TemporaryFile("w+b") as file:
                await manifest.write([tree], [patterns], file, with_content=content)
                file.seek(0)
                return list(read(file))
        finally:
            os.close(tree)

    return trio.run(write)


def test_what_is_written_is_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "a-b").write_text("sorted behind what is in a")
    os.link(tmp_path / "a-b", tmp_path / "hard")
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "local.tmp").write_text("local")
    found = listed(tmp_path, Patterns(exclude=("*.tmp",)))
    assert [one.path for one in found] == [b"", b"a", b"a/file", b"a-b", b"fifo", b"hard", b"link"]
    by_path = {one.path: one for one in found}
    assert by_path[b"a/file"].size == 100_000 and by_path[b"link"].target == b"a"
    assert by_path[b"hard"].number == by_path[b"a-b"].number != 0
    assert by_path[b"a/file"].mtime_ns == (tmp_path / "a" / "file").stat().st_mtime_ns
    assert [one.kind for one in found] == ["directory", "directory", "file", "file", "fifo", "file", "symlink"]
    assert list(compare(found, found)) == []


def test_a_hole_is_as_zeros_that_were_written(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "f").write_bytes(bytes(300_000) + b"end")
    with open(tmp_path / "two" / "f", "wb") as file:
        file.seek(300_000)
        file.write(b"end")
    contents = [listed(tmp_path / name)[1].content for name in ("one", "two")]
    assert contents[0] == contents[1] != bytes(16)
    trees = [os.open(tmp_path / name, os.O_RDONLY) for name in ("one", "two")]
    hashes = [manifest.block_hashes(tree, b"f", 0, 100) for tree in trees]
    assert hashes[0] == hashes[1] and hashes[0][0] == 300_003 and len(hashes[0][1]) == 5 * 16
    assert manifest.block_hashes(trees[0], b"f", 4 * 65536, 100)[1] == hashes[0][1][64:]
    with pytest.raises(OSError, match="Invalid cross-device link"):
        manifest.block_hashes(trees[0], b"../two/f", 0, 1)
    (tmp_path / "one" / "out").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        manifest.block_hashes(trees[0], b"out", 0, 1)
    for tree in trees:
        os.close(tree)


def what(mine: list[Entry], theirs: list[Entry], local: frozenset[int] = frozenset()) -> list[tuple[Where, bytes, tuple[str, ...]]]:
    return [(one.where, one.entry.path, one.what) for one in compare(mine, theirs, local)]


@pytest.mark.parametrize(
    ("change", "respect"),
    [
        ({"content": b"d" * 16}, "content"), ({"size": 6}, "content"), ({"mode": stat.S_IFREG | 0o600}, "mode"), ({"uid": 1}, "owner"),
        ({"gid": 1}, "owner"), ({"mtime_ns": 2}, "mtime"), ({"xattrs": b"y" * 16}, "xattrs"), ({"rdev": 1}, "device"),
        ({"mode": stat.S_IFIFO | 0o644}, "type"),
    ],
)  # fmt: skip
def test_each_respect(change: dict[str, object], respect: str) -> None:
    assert what([PLAIN], [replace(PLAIN, **change)]) == [(Where.BOTH, b"f", (respect,))]  # type: ignore[arg-type]


def test_names_of_one_side_and_hard_links() -> None:
    names = [replace(PLAIN, path=path, number=7) for path in (b"a", b"b", b"c")]
    other = [replace(names[0], number=1), replace(names[1], number=2), replace(names[2], number=1)]
    assert what(names, other) == [(Where.BOTH, b"b", ("links",))]
    assert what(names, names[1:]) == [(Where.HERE, b"a", ()), (Where.BOTH, b"b", ("links",)), (Where.BOTH, b"c", ("links",))]
    assert what([], names[:1]) == [(Where.THERE, b"a", ())]
    directory = replace(PLAIN, mode=stat.S_IFDIR | 0o755)
    assert what([directory], [replace(directory, mtime_ns=9)], frozenset({0})) == []


def test_ranges() -> None:
    one, two, three = (bytes([number]) * 16 for number in (1, 2, 3))
    assert ranges(one + two + three, one + two + three, 3 * 65536) == []
    assert ranges(one + two + three, one + three + two, 2 * 65536 + 10) == [(65536, 65546)]
    assert ranges(one + two, one, 70_000) == [(65536, 4464)]
    assert ranges(two + one + two, one + one + one, 3 * 65536) == [(0, 65536), (131072, 65536)]


@given(st.binary(max_size=400))
def test_random_bytes_are_no_manifest(raw: bytes) -> None:
    try:
        list(read(io.BytesIO(raw)))
    except BadManifest:
        pass


def test_paths_that_lead_out_or_back_are_refused(tmp_path: Path) -> None:
    (tmp_path / "aaaaaa").write_text("x")
    (tmp_path / "bbbbbb").write_text("x")
    tree = os.open(tmp_path, os.O_RDONLY)
    with tempfile.TemporaryFile("w+b") as file:
        trio.run(lambda: manifest.write([tree], [], file, with_content=False))
        file.seek(0)
        whole = file.read()
    os.close(tree)
    assert len(list(read(io.BytesIO(whole)))) == 3
    for old, new in (
        (b"aaaaaa", b"../../"),
        (b"aaaaaa", b"a//../"),
        (b"aaaaaa", b"cccccc"),
        (b"bbbbbb", b"aaaaaa"),
        (b"bbbbbb", b"b\0bbbb"),
    ):
        with pytest.raises(BadManifest):
            list(read(io.BytesIO(whole.replace(old, new))))
    with pytest.raises(BadManifest):
        list(read(io.BytesIO(whole[:-3])))

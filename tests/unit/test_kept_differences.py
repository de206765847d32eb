"""What differs is saved byte by byte with all it carries, or nothing is."""

import errno
import json
import os
import stat
from collections import namedtuple
from pathlib import Path

import pytest

from rfs import kept_differences
from rfs.errors import SaidNo

Room = namedtuple("Room", "f_bavail f_frsize")


def line(path: str, where: str = "both", what: tuple[str, ...] = (), **more: object) -> dict[str, object]:
    base = {"directory": 0, "path": path, "where": where, "type": "file", "what": list(what), "ranges": [], "size_here": 0, "size_there": 0}
    return base | more


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "file").write_bytes(os.urandom(70_000))
    os.chmod(root / "sub" / "file", 0o640)
    os.utime(root / "sub" / "file", ns=(1, 1_000_000_001))
    os.utime(root / "sub", ns=(1, 2_000_000_001))
    os.link(root / "sub" / "file", root / "hard")
    (root / "link").symlink_to("nowhere")
    os.mkfifo(root / "fifo")
    return root


def kept(tree: Path, lines: list[dict[str, object]]) -> tuple[Path, list[dict[str, object]], kept_differences.Kept]:
    state = tree.parent / "state"
    state.mkdir(exist_ok=True)
    differences = state / "differences.jsonl"
    differences.write_text("".join(json.dumps(one) + "\n" for one in lines))
    descriptor = os.open(tree, os.O_RDONLY)
    try:
        done = kept_differences.save([descriptor], str(differences), str(state))
    finally:
        os.close(descriptor)
    place = Path(done.place)
    return place / "0", [json.loads(text) for text in (place / "manifest.jsonl").read_text().splitlines()], done


def test_whole_with_all_it_carries(tree: Path) -> None:
    place, told, done = kept(
        tree,
        [
            line("hard", "here"), line("fifo", "here", type="fifo"), line("link", what=("target",)), line("sub", "here", type="directory"),
            line("sub/file", "here"), line("there", "there"), line("gone", "here"),
        ],
    )  # fmt: skip
    assert (place / "sub" / "file").read_bytes() == (tree / "sub" / "file").read_bytes()
    assert (place / "hard").stat().st_ino == (place / "sub" / "file").stat().st_ino
    status = (place / "sub" / "file").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o640, 1_000_000_001)
    assert (place / "sub").stat().st_mtime_ns == 2_000_000_001
    assert os.readlink(place / "link") == "nowhere" and (place / "fifo").is_fifo()
    assert [one["saved"] for one in told] == ["whole"] * 5 + ["nothing", "gone"]
    assert (done.places, done.bytes) == (5, 70_000)


def test_of_a_large_file_only_what_differs(tree: Path) -> None:
    size = kept_differences.WHOLE_BYTES + 100
    with open(tree / "large", "wb") as file:
        file.truncate(size)
        os.pwrite(file.fileno(), b"own", size - 3)
        os.pwrite(file.fileno(), b"same", 0)
    last = size // 65536 * 65536
    place, told, _ = kept(tree, [line("large", what=("content",), ranges=[[last, 65536]], size_here=size, size_there=size + 5)])
    assert told[0]["saved"] == "ranges"
    saved = (place / "large").read_bytes()
    assert len(saved) == size and saved[-3:] == b"own" and saved[:4] == bytes(4)


def test_attributes_are_told(tree: Path) -> None:
    place, told, _ = kept(tree, [line("sub/file", what=("mode", "owner"))])
    assert not (place / "sub").exists()
    assert told[0]["saved"] == "attributes" and told[0]["here"]["mode"] == "0640"  # type: ignore[index]


def test_names_that_are_no_text(tree: Path) -> None:
    (tree / os.fsdecode(b"\xff\n")).write_text("x")
    place, told, _ = kept(tree, [line(os.fsdecode(b"\xff\n"), "here")])
    assert (place / os.fsdecode(b"\xff\n")).read_text() == "x" and os.fsencode(str(told[0]["path"])) == b"\xff\n"


def test_without_room_nothing_is_begun(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda path: Room(10, 4096))
    with pytest.raises(SaidNo, match="does not fit into the 1 MiB that are free; make room"):
        kept(tree, [line("sub/file", "here")])
    assert list((tree.parent / "state" / "kept").iterdir()) == []


def test_what_fails_half_way_is_taken_away_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(reading: int, writing: int, offset: int, length: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kept_differences, "_copy_range", full)
    with pytest.raises(SaidNo, match="cannot be saved"):
        kept(tree, [line("link", what=("target",)), line("sub/file", "here")])
    assert list((tree.parent / "state" / "kept").iterdir()) == []


def test_it_can_be_stopped(tree: Path) -> None:
    class Stopped(BaseException):
        pass

    def stop() -> None:
        raise Stopped

    state = tree.parent / "state"
    state.mkdir()
    (state / "d").write_text(json.dumps(line("sub/file", "here")) + "\n")
    descriptor = os.open(tree, os.O_RDONLY)
    with pytest.raises(Stopped):
        kept_differences.save([descriptor], str(state / "d"), str(state), stop)
    os.close(descriptor)
    assert list((state / "kept").iterdir()) == []

"""A split brain, made by cutting the cable while both may go on: what differs is shown, one side is kept, the other saved first."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.lab.trees import differences, manifest
from rfs import exit_codes
from tests.posix.cable import Cable
from tests.posix.node import Node, free_address, know_each_other, needs_mounts

pytestmark = [pytest.mark.mount, needs_mounts]


class Forked:
    """Two nodes that were a pair, and the cables between them."""

    def __init__(self, path: Path) -> None:
        here, there = free_address(), free_address()
        self.cables = Cable(here), Cable(there)
        self.a = Node(path, "a", here, self.cables[1].address)
        self.b = Node(path, "b", there, self.cables[0].address)
        know_each_other(self.a, self.b)

    def pair(self, *options: str) -> None:
        assert self.a.mount("primary", *options).returncode == exit_codes.DONE
        assert self.b.mount("secondary", *options).returncode == exit_codes.DONE
        self.a.until(link="paired")

    def cut(self) -> None:
        """Both go on, each alone."""
        for cable in self.cables:
            cable.cut()
        self.a.until(link="alone")
        assert self.b.run("promote").returncode == exit_codes.DONE

    def mend(self) -> None:
        for cable in self.cables:
            cable.mend()
        for node in (self.a, self.b):
            node.until(link="diverged")

    def whole(self, primary: Node) -> None:
        """They are one again, and equal."""
        primary.until(link="paired", role="primary")
        deadline = time.monotonic() + 10
        while found := self.unequal():  # the holding directory goes after that: for a moment the root has another mtime
            assert time.monotonic() < deadline, found
            time.sleep(0.05)

    def unequal(self) -> list[str]:
        both = zip(self.a.directories, self.b.directories, strict=True)
        return [each for here, there in both for each in differences(manifest(str(here)), manifest(str(there)))]


@pytest.fixture
def forked(tmp_path: Path) -> Iterator[Forked]:
    made = Forked(tmp_path)
    yield made
    made.b.clean()
    made.a.clean()
    for cable in made.cables:
        cable.close()


COMMON = os.urandom(200_000)
LARGE = 20 << 20


def before(data: Path) -> None:
    for name in ("same", "other content", "other mode", "other xattr", "gone on a", "gone on b", "hard1"):
        (data / name).write_bytes(COMMON)
    os.link(data / "hard1", data / "hard2")
    (data / "symlink").symlink_to("somewhere")
    (data / "a directory").mkdir()
    (data / "a directory" / "file").write_text("x")
    with open(data / "large", "wb") as file:
        file.truncate(LARGE)
        file.seek(5 << 20)
        file.write(COMMON)


def at(data: Path, name: str, offset: int, content: bytes) -> None:
    with open(data / name, "r+b") as file:
        file.seek(offset)
        file.write(content)


def on_a(data: Path) -> None:
    at(data, "other content", 70_000, b"a's")
    (data / "only a").write_text("a")
    (data / "gone on a").unlink()
    at(data, "large", 5 << 20, b"a's")


def on_b(data: Path) -> None:
    at(data, "other content", 150_000, b"b's")
    (data / "only b").mkdir()
    (data / "only b" / "file\n").write_bytes(COMMON)
    (data / "gone on b").unlink()
    os.chmod(data / "other mode", 0o711)
    os.setxattr(data / "other xattr", "user.b", b"value")
    (data / "symlink").unlink()
    (data / "symlink").symlink_to("elsewhere")
    at(data, "large", 12 << 20, b"b's")
    (data / "hard2").unlink()
    (data / "hard2").write_bytes(COMMON)


def split(forked: Forked, *, checkpointed: bool = False) -> None:
    forked.pair(*(("--checkpoint", "1") if checkpointed else ()))
    before(forked.a.directories[0])
    deadline = time.monotonic() + 20
    while checkpointed and forked.a.counters()["marked_places"]:  # a file that is new since is one place, and none of its bytes are counted
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.05)
    forked.cut()
    on_a(forked.a.directories[0])
    on_b(forked.b.directories[0])
    forked.mend()


def lines(path: str) -> dict[str, dict[str, object]]:
    return {line["path"]: line for line in map(json.loads, Path(path).read_text().splitlines()) if line["directory"] == 0}


def test_what_differs_is_shown_by_either_side(forked: Forked) -> None:
    split(forked, checkpointed=True)
    asked = forked.b.run("diff", "--json")
    assert asked.returncode == 1, asked.stderr
    told = json.loads(asked.stdout)
    found = lines(told["file"])
    names = {name: (line["where"], *sorted(set(line["what"]) - {"mtime"})) for name, line in found.items()}  # type: ignore[call-overload]
    names.pop("", None)  # the root's own mtime
    assert names == {
        "other content": ("both", "content"), "only a": ("there",), "gone on a": ("here",), "large": ("both", "content"),
        "only b": ("here",), "only b/file\n": ("here",), "gone on b": ("there",), "other mode": ("both", "mode"),
        "other xattr": ("both", "xattrs"), "symlink": ("both", "target"), "hard2": ("both", "links"),
    }  # fmt: skip
    assert found["other content"]["ranges"] == [[65536, 131072]]
    assert found["large"]["ranges"] == [[5 << 20, 65536], [12 << 20, 65536]]
    assert (told["only_here"], told["only_there"]) == (3, 2)
    shown = forked.a.run("diff")
    assert shown.returncode == 1 and "only here: " in shown.stdout and "content, mtime: " in shown.stdout
    estimate = json.loads(forked.a.run("diff", "--estimate", "--json").stdout)
    if estimate["kind"] == "full":
        assert estimate["compare_bytes"] > LARGE and estimate["files"] >= 9
    else:
        assert 65536 < estimate["compare_bytes"] < LARGE and estimate["places"] >= 3
    assert forked.a.status()["mode"] == forked.b.status()["mode"] == "alone"  # nobody was disturbed


@pytest.mark.parametrize("said_on", ["winner", "loser"])
def test_one_side_is_kept_and_the_other_is_saved(forked: Forked, said_on: str) -> None:
    split(forked)
    loser = forked.b.directories[0]
    was = {name: (loser / name).read_bytes() for name in ("other content", "only b/file\n", "gone on a", "hard2", "large")}
    done = (
        forked.a.run("resolve", "--keep", "here", "--json") if said_on == "winner" else forked.b.run("resolve", "--keep", "peer", "--json")
    )
    assert done.returncode == exit_codes.DONE, done.stderr
    told = json.loads(done.stdout)
    assert told["yields"] == "b"
    forked.whole(forked.a)
    kept = Path(told["kept"])
    assert (forked.a.directories[0] / "only a").read_text() == "a" and not (forked.a.directories[0] / "only b").exists()
    for name in ("other content", "only b/file\n", "gone on a"):
        assert (kept / "0" / name).read_bytes() == was[name], name
    assert os.readlink(kept / "0" / "symlink") == "elsewhere"
    saved = lines(str(kept / "manifest.jsonl"))
    assert saved["large"]["saved"] == "ranges" and saved["other mode"]["saved"] == "attributes"
    assert saved["other mode"]["here"]["mode"] == "0711"  # type: ignore[index]
    assert saved["other xattr"]["here"]["xattrs"] == {"user.b": b"value".hex()}  # type: ignore[index]
    with open(kept / "0" / "large", "rb") as file:
        assert os.fstat(file.fileno()).st_size == LARGE and os.fstat(file.fileno()).st_blocks * 512 <= 3 * 65536
        for offset in (5 << 20, 12 << 20):
            file.seek(offset)
            assert file.read(65536) == was["large"][offset : offset + 65536]
    refused = forked.a.run("diff")
    assert refused.returncode == exit_codes.REFUSED and "have not diverged" in refused.stderr


def test_copies_that_never_were_a_pair(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    (a.directories[0] / "file").write_text("a's")
    (a.directories[0] / "same").write_text("same")
    (b.directories[0] / "file").write_text("b's")
    (b.directories[1] / "own").write_text("b's own")
    for node in (a, b):
        assert node.mount("primary").returncode == exit_codes.DONE
    b.until(link="diverged")
    done = b.run("resolve", "--keep", "peer", "--json")
    assert done.returncode == exit_codes.DONE, done.stderr
    a.until(link="paired", role="primary")
    b.until(link="paired", role="secondary")
    kept = Path(json.loads(done.stdout)["kept"])
    assert (b.directories[0] / "file").read_text() == "a's" and (kept / "0" / "file").read_text() == "b's"
    assert (kept / "1" / "own").read_text() == "b's own"
    assert a.tree() == b.tree()


def test_nothing_is_given_up_that_cannot_be_saved(forked: Forked) -> None:
    forked.pair()
    small = forked.b.state / "kept"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        forked.cut()
        (forked.b.directories[0] / "precious").write_bytes(os.urandom(3 << 20))
        (forked.a.directories[0] / "file").write_text("a's")
        forked.mend()
        refused = forked.a.run("resolve", "--keep", "here")
        assert refused.returncode == exit_codes.REFUSED
        assert "b does not yield" in refused.stderr and "does not fit" in refused.stderr
        assert forked.b.status()["mode"] == "alone" and (forked.b.directories[0] / "precious").stat().st_size == 3 << 20
        forked.b.until(link="diverged")
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert forked.a.run("resolve", "--keep", "here").returncode == exit_codes.DONE
    forked.whole(forked.a)

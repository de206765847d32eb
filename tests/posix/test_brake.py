"""The brake: a resync that takes more away than it leaves sets it aside, and a person says what becomes of it. What is ordinary goes on
without a word."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from orchestrator.lab.trees import differences, manifest
from rfs import exit_codes
from tests.posix.node import Node, needs_mounts

pytestmark = [pytest.mark.mount, needs_mounts]

FILES = 1200  # more than BRAKE_FILES of csrc/brake.h


def fill(directory: Path, count: int = FILES, prefix: str = "file") -> None:
    for number in range(count):
        place = directory / f"{prefix}s{number % 7}"
        place.mkdir(exist_ok=True)
        (place / f"{prefix}{number}").write_text(f"{prefix} {number}")


def removed(node: Node) -> list[str]:
    """What status says of it."""
    warnings = node.status()["warnings"]
    assert isinstance(warnings, list)
    return [warning["text"] for warning in warnings if warning["code"] == "MUCH_REMOVED"]


def kept(node: Node) -> list[Path]:
    """Every file that is set aside."""
    places = (directory / ".lockstep-kept" for directory in node.directories)
    return [Path(place, name) for top in places for place, _, files in os.walk(top) for name in files]


def pair(a: Node, b: Node) -> None:
    fill(a.directories[0])
    assert a.mount("primary").returncode == 0
    assert b.mount("secondary").returncode == 0
    a.until(link="paired")


def comes_back(a: Node, b: Node, *more: str) -> None:
    """The secondary, after its outage: a whole pair, and equal."""
    assert b.mount("secondary", *more).returncode == 0
    for node in (a, b):
        node.until(link="paired")
    b.until(snapshot=None)
    for here, there in zip(a.directories, b.directories, strict=True):
        assert differences(manifest(str(here)), manifest(str(there))) == []


def until_removed(node: Node, count: int) -> list[str]:
    """The purge comes after the pair is whole."""
    for _ in range(50):
        if len(found := removed(node)) == count:
            break
    return found


def test_all_removed_during_an_outage_is_set_aside(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    pair(a, b)
    b.kill()
    a.until(link="alone")
    for entry in list(a.directories[0].iterdir()):
        shutil.rmtree(entry)
    (a.directories[0] / "new").write_text("the only one")
    comes_back(a, b)
    (told,) = until_removed(b, 1)
    assert f"{FILES} of {FILES + 1} files of {b.directories[0]}" in told and "rfsmount discard" in told
    found = kept(b)
    assert sorted(path.name for path in found) == sorted(f"file{number}" for number in range(FILES))
    assert all(path.read_text() == f"file {path.name[4:]}" for path in found)
    assert {path.parent.name.rpartition(".")[2] for path in found} == {f"files{number}" for number in range(7)}, "a person knows them"
    assert a.status()["link"] == "paired" and removed(a) == []

    b.kill()  # it is remembered, also through another resync
    a.until(link="alone")
    (a.directories[0] / "new").write_text("written meanwhile")
    comes_back(a, b)
    assert until_removed(b, 1) == [told] and len(kept(b)) == FILES
    assert told in b.run("status").stdout

    assert b.run("discard").returncode == exit_codes.DONE
    assert removed(b) == [] and kept(b) == []
    again = b.run("discard")
    assert again.returncode == exit_codes.REFUSED and len(again.stderr.splitlines()) == 1
    assert (b.directories[0] / "new").read_text() == "written meanwhile"


def test_what_is_written_anew_is_no_loss(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    pair(a, b)
    b.kill()
    a.until(link="alone")
    for entry in list(a.directories[0].iterdir()):
        shutil.rmtree(entry)
    fill(a.directories[0], prefix="other")
    comes_back(a, b)
    assert until_removed(b, 0) == [] and kept(b) == []


def test_a_copy_that_was_asked_for_takes_what_it_takes(nodes: tuple[Node, Node]) -> None:
    """`--seeded`: the person has said that what lies there is to become the peer's."""
    a, b = nodes
    fill(b.directories[0], prefix="stray")
    (a.directories[0] / "data").write_text("the peer's")
    assert a.mount("primary").returncode == 0
    comes_back(a, b, "--seeded")
    assert until_removed(b, 0) == [] and kept(b) == []

"""`--exclude` and `--only` as a person uses them: real mounts, a takeover, and what differs between the nodes."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from rfs import exit_codes
from tests.posix.node import Node

pytestmark = pytest.mark.mount

PATTERNS = ("--exclude", "*.tmp", "--exclude", "cache/**")


@pytest.fixture
def paired(nodes: tuple[Node, Node]) -> tuple[Node, Node]:
    a, b = nodes
    (a.directories[0] / "cache").mkdir()
    (a.directories[0] / "cache" / "old").write_text("old")
    (a.directories[0] / "kept").write_text("kept")
    assert a.mount("primary", *PATTERNS).returncode == 0
    assert b.mount("secondary", *PATTERNS).returncode == 0
    a.until(link="paired")
    return a, b


def names(directory: Path) -> set[str]:
    return {
        str(entry.relative_to(directory))
        for entry in directory.rglob("*")
        if not entry.name.startswith(".lockstep") and ".lockstep-holding" not in entry.parts
    }


def test_what_is_excluded_stays_here(paired: tuple[Node, Node]) -> None:
    a, b = paired
    here, there = a.directories[0], b.directories[0]
    (here / "new.tmp").write_text("unsaved")
    (here / "cache" / "new").mkdir()
    (here / "cache" / "new" / "file").write_text("x" * 100_000)
    (here / "data").mkdir()
    (here / "data" / "file").write_text("y")
    assert names(there) == {"cache", "kept", "data", "data/file"}
    shutil.rmtree(here / "cache")
    assert names(there) == {"kept", "data", "data/file"}


def test_saving_by_rename_is_whole_on_the_peer(paired: tuple[Node, Node]) -> None:
    a, b = paired
    here, there = a.directories[0], b.directories[0]
    for generation in range(20):
        content = os.urandom(50_000 + generation)
        (here / "document.tmp").write_bytes(content)
        os.chmod(here / "document.tmp", 0o640)
        os.setxattr(here / "document.tmp", "user.generation", str(generation).encode())
        os.rename(here / "document.tmp", here / "document")
        assert (there / "document").read_bytes() == content
        assert (there / "document").stat().st_mode == (here / "document").stat().st_mode
        assert os.getxattr(there / "document", "user.generation") == str(generation).encode()
        assert (there / "document").stat().st_mtime_ns == (here / "document").stat().st_mtime_ns
    assert not any(name.startswith("arriving") for name in names(there))
    os.rename(here / "document", here / "away.tmp")
    assert names(there) == {"cache", "kept"}


def test_a_directory_does_not_cross_and_mv_copies_it(paired: tuple[Node, Node]) -> None:
    a, b = paired
    here, there = a.directories[0], b.directories[0]
    (here / "tree.tmp").mkdir()
    (here / "tree.tmp" / "file").write_text("z")
    with pytest.raises(OSError, match=os.strerror(errno.EXDEV)):
        os.rename(here / "tree.tmp", here / "tree")
    shutil.move(here / "tree.tmp", here / "tree")
    assert names(there) == {"cache", "kept", "tree", "tree/file"}


def test_each_node_has_its_own_after_a_swap(paired: tuple[Node, Node]) -> None:
    a, b = paired
    here, there = a.directories[0], b.directories[0]
    (here / "of-a.tmp").write_text("a")
    assert a.run("demote").returncode == 0
    assert b.run("promote").returncode == 0
    b.until(link="paired", role="primary")
    (there / "of-b.tmp").write_text("b")
    (there / "both").write_text("both")
    assert names(here) == {"cache", "cache/old", "kept", "of-a.tmp", "both"}
    assert names(there) == {"cache", "kept", "of-b.tmp", "both"}


def test_nodes_that_leave_out_different_names_do_not_pair(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    (a.directories[0] / "file").write_text("x")
    assert a.mount("primary", *PATTERNS).returncode == 0
    assert b.mount("secondary").returncode == exit_codes.REFUSED
    status = a.status()
    assert status["code"] == "PATTERNS_DIFFER" and "same --exclude and --only" in str(status["reason"])
    a.clean()
    refused = a.mount("primary", "--exclude", "a//b")
    assert refused.returncode == exit_codes.CONFIGURATION_INVALID and "is not a pattern" in refused.stderr


def test_only_what_is_named_is_mirrored(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    only = ("--only", "*.db", "--only", f"{a.directories[1]}/wal/**"), ("--only", "*.db", "--only", f"{b.directories[1]}/wal/**")
    assert a.mount("primary", *only[0]).returncode == 0
    assert b.mount("secondary", *only[1]).returncode == 0
    a.until(link="paired")
    for directory in a.directories:
        (directory / "sub").mkdir()
        (directory / "sub" / "x.db").write_text("db")
        (directory / "sub" / "x.log").write_text("log")
    (a.directories[1] / "wal").mkdir()
    (a.directories[1] / "wal" / "0001").write_text("wal")
    assert names(b.directories[0]) == {"sub", "sub/x.db"}
    assert names(b.directories[1]) == {"sub", "sub/x.db", "wal", "wal/0001"}

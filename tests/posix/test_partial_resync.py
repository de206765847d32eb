"""What a session compares: nothing, what is marked, or everything; and that the trees are equal after each."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from orchestrator.lab.trees import differences, manifest
from rfs import exit_codes
from tests.posix.node import Node, needs_mounts

pytestmark = [pytest.mark.mount, needs_mounts]

CHUNK_BYTES, GRAIN_BYTES, BLOCK_BYTES = 4 << 20, 64 << 10, 4 << 10


def equal(a: Node, b: Node) -> None:
    for here, there in zip(a.directories, b.directories, strict=True):
        assert differences(manifest(str(here)), manifest(str(there))) == []


def until_nothing_is_marked(node: Node) -> None:
    deadline = time.monotonic() + 20
    while node.counters()["marked_places"] or node.counters()["marked_everything"]:
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.05)


@pytest.fixture
def synced(nodes: tuple[Node, Node]) -> tuple[Node, Node]:
    """A pair with a large sparse file and a tree, all of it checkpointed."""
    a, b = nodes
    root = a.directories[0]
    (root / "tree" / "inner").mkdir(parents=True)
    for number in range(50):
        (root / "tree" / "inner" / f"file{number}").write_bytes(os.urandom(20_000))
    (root / "large").touch()
    os.truncate(root / "large", 1 << 30)
    assert a.mount("primary", "--checkpoint", "1").returncode == exit_codes.DONE
    assert b.mount("secondary", "--checkpoint", "1").returncode == exit_codes.DONE
    a.until(link="paired")
    assert a.status()["last_scope"] == "everything"
    until_nothing_is_marked(a)
    return a, b


def scatter(root: Path, count: int, seed: int = 1) -> int:
    """Random 4 KiB writes into the large file; returns how many chunks they touch."""
    chance = random.Random(seed)
    touched = set()
    descriptor = os.open(root / "large", os.O_WRONLY)
    for _ in range(count):
        offset = chance.randrange((1 << 30) // BLOCK_BYTES) * BLOCK_BYTES
        os.pwrite(descriptor, os.urandom(BLOCK_BYTES), offset)
        touched.add(offset // CHUNK_BYTES)
    os.close(descriptor)
    return len(touched)


def back(node: Node, other: Node) -> None:
    assert node.mount("secondary", "--checkpoint", "1").returncode == exit_codes.DONE
    other.until(link="paired")


def test_a_full_compare_leaves_no_mark_of_before(synced: tuple[Node, Node]) -> None:
    a, b = synced
    assert b.run("unmount").returncode == exit_codes.DONE  # from here on nobody guards its directories
    a.until(link="alone")
    scatter(a.directories[0], 10)
    back(b, a)
    assert a.status()["last_scope"] == "everything"
    until_nothing_is_marked(a)
    equal(a, b)


def test_only_what_was_written_is_read_and_sent(synced: tuple[Node, Node]) -> None:
    a, b = synced
    b.kill()
    a.until(link="alone")
    scatter(a.directories[0], 100)
    os.rename(a.directories[0] / "tree", a.directories[0] / "renamed")
    (a.directories[0] / "renamed" / "inner" / "file7").unlink()
    os.link(a.directories[0] / "large", a.directories[0] / "second name")
    os.setxattr(a.directories[0] / "large", "user.colour", b"blue")
    back(b, a)
    counters, status = a.counters(), a.status()
    assert status["last_scope"] == "marks"
    assert int(str(counters["resync_bytes_done"])) <= 100 * GRAIN_BYTES + 1
    assert int(str(counters["resync_sent_bytes"])) < 2 * 100 * BLOCK_BYTES + 64 * 100 * GRAIN_BYTES // BLOCK_BYTES + 40_000
    equal(a, b)


def test_after_a_crash_a_touched_place_is_compared_whole(synced: tuple[Node, Node]) -> None:
    a, b = synced
    b.kill()
    a.until(link="alone")
    touched = scatter(a.directories[0], 20)
    a.kill()
    assert a.mount("primary", "--checkpoint", "1").returncode == exit_codes.DONE
    a.until(link="alone")
    back(b, a)
    assert a.status()["last_scope"] == "marks"
    assert int(str(a.counters()["resync_bytes_done"])) <= touched * CHUNK_BYTES
    equal(a, b)


def test_the_old_primarys_marks_count_when_the_other_one_went_on(synced: tuple[Node, Node]) -> None:
    a, b = synced
    scatter(a.directories[0], 20)
    (a.directories[0] / "from a").write_text("a")
    a.kill()
    b.until(link="connecting")
    assert b.run("promote").returncode == exit_codes.DONE
    scatter(b.directories[0], 20, seed=2)
    os.rename(b.directories[0] / "tree" / "inner", b.directories[0] / "inner")
    (b.directories[0] / "inner" / "file3").write_bytes(b"b's")
    back(a, b)
    assert b.status()["last_scope"] == "marks"
    equal(a, b)


def test_nothing_changed_nothing_is_compared(synced: tuple[Node, Node]) -> None:
    a, b = synced
    assert b.run("demote").returncode == exit_codes.DONE  # already: nothing happens
    b.kill()
    a.until(link="alone")
    a.kill()
    assert b.mount("secondary").returncode in (exit_codes.TIMEOUT, exit_codes.DONE)
    assert a.mount("primary").returncode == exit_codes.DONE
    a.until(link="paired")
    assert a.status()["last_scope"] in ("marks", "nothing")
    assert int(str(a.counters()["resync_bytes_done"])) == 0
    equal(a, b)


def test_an_unguarded_interval_is_compared(synced: tuple[Node, Node]) -> None:
    a, b = synced
    assert b.run("unmount").returncode == exit_codes.DONE
    a.until(link="alone")
    victim = b.directories[0] / "tree" / "inner" / "file5"
    stat = victim.stat()
    victim.write_bytes(os.urandom(20_000))  # behind the mirror's back, and the traces removed
    os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    back(b, a)
    assert a.status()["last_scope"] == "everything"
    equal(a, b)


def test_a_damaged_log_widens(synced: tuple[Node, Node]) -> None:
    a, b = synced
    b.kill()
    a.until(link="alone")
    scatter(a.directories[0], 5)
    a.kill()
    for log in a.state.glob("intent-log.*"):
        with open(log, "r+b") as file:
            file.write(os.urandom(64))
    assert a.mount("primary", "--checkpoint", "1").returncode == exit_codes.DONE
    back(b, a)
    assert a.status()["last_scope"] == "everything"
    equal(a, b)

"""A new secondary whose directories are a copy of the primary's already: compared, not copied again."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from orchestrator.lab.trees import differences, manifest
from rfs import exit_codes
from tests.posix.node import Node, needs_mounts

pytestmark = [pytest.mark.mount, needs_mounts]

FILES, FILE_BYTES, LARGE_BYTES = 60, 100_000, 24 << 20


@pytest.fixture
def seeded(nodes: tuple[Node, Node]) -> tuple[Node, Node]:
    """A serving primary, and a copy of what it had an hour ago."""
    a, b = nodes
    data, wal = a.directories
    (data / "tree" / "inner").mkdir(parents=True)
    for number in range(FILES):
        (data / "tree" / "inner" / f"file{number}").write_bytes(os.urandom(FILE_BYTES))
    (data / "large").write_bytes(os.urandom(LARGE_BYTES))
    os.link(data / "large", data / "hard")
    (wal / "link").symlink_to("nowhere")
    os.setxattr(data / "large", "user.colour", b"blue")
    for here, there in zip(a.directories, b.directories, strict=True):
        subprocess.run(["cp", "-a", f"{here}/.", str(there)], check=True)
    assert a.mount("primary").returncode == exit_codes.DONE
    return a, b


def differ(a: Node, b: Node) -> None:
    """The primary has gone on since the backup, and the copy is not quite the one that it is said to be."""
    data, restored = a.directories[0], b.directories[0]
    with open(data / "large", "r+b") as large:
        large.seek(9 << 20)
        large.write(b"written since")
    (data / "new").write_bytes(os.urandom(FILE_BYTES))
    (data / "tree" / "inner" / "file3").unlink()
    (data / "tree" / "inner" / "file4").rename(data / "tree" / "moved")
    information = (restored / "tree" / "inner" / "file5").stat()
    (restored / "tree" / "inner" / "file5").write_bytes(os.urandom(FILE_BYTES))  # nothing but its content tells
    os.utime(restored / "tree" / "inner" / "file5", ns=(information.st_atime_ns, information.st_mtime_ns))
    (restored / "only here").write_text("of another time")
    (restored / "tree" / "inner" / "file6").chmod(0o600)
    (b.directories[1] / "link").unlink()


def test_only_what_differs_travels(seeded: tuple[Node, Node]) -> None:
    a, b = seeded
    differ(a, b)
    mounted = b.mount("secondary", "--seeded")
    assert mounted.returncode == exit_codes.DONE, mounted.stderr
    a.until(link="paired")
    assert a.status()["last_scope"] == b.status()["last_scope"] == "everything"
    assert int(str(a.counters()["resync_sent_bytes"])) < 8 * FILE_BYTES  # file4 has another path: it is sent like the new one
    for here, there in zip(a.directories, b.directories, strict=True):
        assert differences(manifest(str(here)), manifest(str(there))) == []
    assert not (b.state / "kept").exists()


def test_status_tells_what_it_does_and_an_interrupted_one_goes_on(seeded: tuple[Node, Node]) -> None:
    a, b = seeded
    assert a.run("unmount").returncode == exit_codes.DONE
    assert a.mount("primary", "--resync-bandwidth", "1000").returncode == exit_codes.DONE
    (a.directories[0] / "new").write_bytes(os.urandom(FILE_BYTES))
    assert b.mount("secondary", "--seeded", "--timeout", "0.1").returncode in (exit_codes.DONE, exit_codes.TIMEOUT)
    b.until(link="resyncing")
    for node in (a, b):
        resync = node.status()["resync"]
        assert isinstance(resync, dict) and resync["scope"] == "everything"
        assert resync["snapshot"] == (None if node is a else "none")
    assert "no copy of before is kept" in str(b.status()["reason"])
    assert "no copy of before is kept" not in str(a.status()["reason"])
    for node in (b, a):
        assert node.run("unmount").returncode == exit_codes.DONE
    assert a.mount("primary").returncode == exit_codes.DONE
    assert b.mount("secondary").returncode == exit_codes.DONE  # the word was given: what was begun goes on
    a.until(link="paired")
    assert int(str(a.counters()["resync_sent_bytes"])) < 4 * FILE_BYTES
    assert a.tree() == b.tree() and not (b.state / "kept").exists()


def test_the_word_is_needed_and_does_not_empty_a_copy(seeded: tuple[Node, Node]) -> None:
    a, b = seeded
    refused = b.mount("secondary")
    assert refused.returncode == exit_codes.REFUSED and "--seeded" in refused.stderr
    assert b.run("unmount").returncode == exit_codes.DONE
    before = b.tree()
    shutil.rmtree(a.directories[0] / "tree")
    (a.directories[1] / "link").unlink()  # as if the file system below were not mounted
    again = b.mount("secondary", "--seeded")
    assert again.returncode == exit_codes.REFUSED and "EMPTY_SOURCE" in again.stderr
    assert b.tree() == before


def test_the_word_does_not_go_with_the_others(nodes: tuple[Node, Node]) -> None:
    _, b = nodes
    assert b.mount("secondary", "--seeded", "--replace-data").returncode == exit_codes.USAGE
    assert b.mount("primary", "--seeded").returncode == exit_codes.CONFIGURATION_INVALID


def test_ids_of_a_mirror_that_nobody_remembers_are_none(seeded: tuple[Node, Node]) -> None:
    """The states are lost, the files are whole: a new mirror counts its ids from the beginning, and may give one twice."""
    a, b = seeded
    assert b.mount("secondary", "--seeded").returncode == exit_codes.DONE
    a.until(link="paired")
    assert b.run("unmount").returncode == exit_codes.DONE
    assert a.run("unmount").returncode == exit_codes.DONE
    for node in (a, b):
        for name in os.listdir(node.state):
            path = node.state / name
            if name != "keys":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    data, wal = a.directories
    for directory in (data / "first", data, data / "tree" / "later", data / "tree" / "inner" / "deep", wal / "other", data / "last"):
        directory.mkdir(exist_ok=True)
        for number in range(40):
            (directory / f"new{number}").write_bytes(b"has no id")
    assert a.mount("primary").returncode == exit_codes.DONE
    assert "ids of a former mirror are taken off" in (a.state / "rfsmount.log").read_text()
    (a.directories[0] / "made").write_text("by an application")
    assert b.mount("secondary", "--seeded").returncode == exit_codes.DONE
    a.until(link="paired")
    (a.directories[0] / "tree" / "inner" / "file7").write_text("written")
    a.until(link="paired", data="UPTODATE")
    for here, there in zip(a.directories, b.directories, strict=True):
        assert not differences(manifest(str(here)), manifest(str(there)))

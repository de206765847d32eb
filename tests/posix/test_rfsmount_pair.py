"""Two real rfsmount on this machine, as a person uses them: real mounts, the real engine, the commands and their exit codes."""

import os

import pytest

from rfs import exit_codes
from tests.posix.node import Node, needs_mounts

pytestmark = [pytest.mark.mount, needs_mounts]


def test_a_pair_is_made_swapped_killed_and_taken_apart(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    (a.directories[0] / "before").write_text("was here")
    assert a.mount("primary").returncode == exit_codes.DONE
    assert a.status()["link"] == "alone"
    mounted = b.mount("secondary")
    assert mounted.returncode == exit_codes.DONE, mounted.stderr
    a.until(link="paired", role="primary")

    data, wal = a.directories
    (data / "file").write_bytes(os.urandom(300_000))
    (data / "link").symlink_to("file")
    os.link(data / "file", data / "hard")
    os.mkfifo(wal / "fifo")
    (wal / "directory").mkdir()
    os.rename(wal / "directory", wal / "renamed")
    assert os.statvfs(data).f_blocks > 0
    assert a.tree() == b.tree()
    with pytest.raises(OSError, match="Read-only"):
        (b.directories[0] / "file").write_text("behind the mirror")

    assert a.run("demote").returncode == exit_codes.DONE
    assert b.run("promote").returncode == exit_codes.DONE
    b.until(link="paired", role="primary")
    (b.directories[0] / "from b").write_text("b")
    assert (a.directories[0] / "from b").read_text() == "b"

    b.kill()
    with pytest.raises(OSError, match="not connected|connection abort"):
        os.listdir(b.directories[0])
    assert a.run("promote").returncode == exit_codes.DONE
    (a.directories[0] / "from a").write_text("a")
    assert b.mount("secondary").returncode == exit_codes.DONE
    b.until(link="paired", role="secondary", data="UPTODATE")
    assert a.tree() == b.tree()

    assert b.run("unmount").returncode == exit_codes.DONE
    a.until(link="alone", code="PEER_LEFT")
    assert a.run("unmount").returncode == exit_codes.DONE
    assert a.tree() == b.tree()
    (a.directories[0] / "plain again").write_text("writable")


def test_two_primaries_and_the_way_out(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    (a.directories[0] / "file").write_text("a's")
    (b.directories[0] / "file").write_text("b's")
    assert a.mount("primary").returncode == exit_codes.DONE
    assert b.mount("primary").returncode == exit_codes.DONE
    b.until(link="diverged", mode="alone")
    assert b.run("unmount").returncode == exit_codes.DONE
    assert b.mount("secondary", "--replace-data").returncode == exit_codes.DONE
    b.until(link="paired", role="secondary")
    assert (b.directories[0] / "file").read_text() == "a's"
    assert (b.state / "kept" / "1" / "0" / "file").read_text() == "b's"


def test_files_of_a_new_secondary_are_safe(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    (a.directories[0] / "file").write_text("a's")
    (b.directories[1] / "file").write_text("b's")
    assert a.mount("primary").returncode == exit_codes.DONE
    refused = b.mount("secondary")
    assert refused.returncode == exit_codes.REFUSED
    assert "--replace-data" in refused.stderr
    again = b.mount("secondary")
    assert again.returncode == exit_codes.REFUSED and "is in use by rfsmount" in again.stderr
    assert (b.directories[1] / "file").read_text() == "b's"


def test_what_counts_as_mirrored_may_be_the_peers_disk(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    assert a.mount("primary", "--ack", "disk").returncode == exit_codes.DONE
    assert b.mount("secondary", "--ack", "disk").returncode == exit_codes.DONE
    a.until(link="paired", ack="disk")
    for number in range(20):
        (a.directories[0] / f"file{number}").write_bytes(os.urandom(10_000))
    assert a.tree() == b.tree()
    b.kill()
    assert a.run("promote").returncode == exit_codes.DONE
    (a.directories[0] / "alone").write_text("alone")
    assert b.mount("secondary", "--ack", "disk").returncode == exit_codes.DONE
    a.until(link="paired")
    assert a.tree() == b.tree()

"""A directory is added to a pair that runs: the application is not stopped, and what is in it is mirrored once the pair is whole again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from rfs import exit_codes
from tests.posix.node import Node, needs_mounts
from tests.posix.test_partial_resync import equal, until_nothing_is_marked

pytestmark = [pytest.mark.mount, needs_mounts]

Both = tuple[Node, Node]
CHECKPOINT = ("--checkpoint", "1")


@pytest.fixture
def paired(nodes: Both) -> Both:
    """a is the primary; nothing is marked; a directory `more` on both, with data on a alone."""
    a, b = nodes
    (a.directories[0] / "before").write_text("was here")
    for node in nodes:
        more(node).mkdir()
    (more(a) / "tree").mkdir()
    for number in range(20):
        (more(a) / "tree" / f"file{number}").write_bytes(os.urandom(20_000))
    os.link(more(a) / "tree" / "file0", more(a) / "hard")
    assert a.mount("primary", *CHECKPOINT).returncode == exit_codes.DONE
    assert b.mount("secondary", *CHECKPOINT).returncode == exit_codes.DONE
    a.until(link="paired")
    until_nothing_is_marked(a)
    return a, b


def more(node: Node) -> Path:
    return node.state.parent / "more"


def add(node: Node, *options: str) -> subprocess.CompletedProcess[str]:
    return node.run("add", str(more(node)), *options)


def take_in(node: Node) -> None:
    """The test knows of it too."""
    node.directories.append(more(node))


def recorded(node: Node) -> dict[str, object]:
    found: dict[str, object] = json.loads((node.state / "directories").read_text())
    return found


def until_settled(node: Node) -> None:
    node.until(
        directories=[
            {"path": str(path), "mounted": node.name == "a", "pending": False, "exclude": [], "only": []} for path in node.directories
        ]
    )
    assert recorded(node)["pending"] == 0


def test_the_application_goes_on_and_the_directory_is_mirrored(paired: Both) -> None:
    a, b = paired
    with open(a.directories[0] / "open all the time", "w") as application:
        assert add(b, "--check").returncode == exit_codes.DONE and add(a, "--check").returncode == exit_codes.DONE
        a.until(link="paired")  # a check changes nothing
        refused = add(a)
        assert refused.returncode == exit_codes.REFUSED and "on the secondary first" in refused.stderr

        added = add(b)
        assert added.returncode == exit_codes.DONE, added.stderr
        assert "3 directories" in added.stdout
        application.write("alone\n")
        application.flush()
        a.until(mode="alone")
        assert b.status()["data"] == "OUTDATED"
        promoted = b.run("promote")
        assert promoted.returncode != exit_codes.DONE  # it lacks what the primary does alone

        added = add(a)
        assert added.returncode == exit_codes.DONE, added.stderr
        (more(a) / "made at once").write_text("marked")
        take_in(a)
        take_in(b)
        a.until(link="paired")
        assert a.status()["last_scope"] == "marks"
        (more(a) / "made later").write_text("mirrored")
        assert (more(b) / "made later").read_text() == "mirrored"
        application.write("paired\n")
    equal(a, b)
    with pytest.raises(OSError, match="Read-only"):
        (more(b) / "behind the mirror").touch()
    assert add(a).returncode == exit_codes.DONE and add(b).returncode == exit_codes.DONE  # asked again: it is there
    until_settled(a)
    until_settled(b)

    b.kill()
    assert a.run("promote").returncode == exit_codes.DONE
    (more(a) / "alone again").write_text("marked")
    assert b.mount("secondary", *CHECKPOINT).returncode == exit_codes.DONE
    a.until(link="paired")
    equal(a, b)
    assert a.run("demote").returncode == exit_codes.DONE and b.run("promote").returncode == exit_codes.DONE
    b.until(link="paired", role="primary")
    (more(b) / "from b").write_text("b")
    assert (more(a) / "from b").read_text() == "b"


def test_the_primary_dies_before_the_pair_is_whole(paired: Both) -> None:
    a, b = paired
    assert add(b).returncode == exit_codes.DONE and add(a).returncode == exit_codes.DONE
    a.kill()
    take_in(a)
    take_in(b)
    refused = b.run("promote")
    assert refused.returncode in (exit_codes.REFUSED, exit_codes.DONE)
    if refused.returncode == exit_codes.DONE:  # it was whole again already: then it has the directory
        assert (more(b) / "tree" / "file0").exists()
    assert a.mount("primary", *CHECKPOINT).returncode == exit_codes.DONE
    for node in paired:
        node.until(link="paired")
    equal(a, b)
    assert (more(a) / "tree" / "file0").stat().st_size == 20_000


def test_what_the_secondary_holds_is_not_overwritten(paired: Both) -> None:
    a, b = paired
    (more(b) / "mine").write_text("b's")
    for options in (("--check",), ()):
        refused = add(b, *options)
        assert refused.returncode == exit_codes.REFUSED and f"{more(b)}: holds files" in refused.stderr
    a.until(link="paired")
    assert (more(b) / "mine").read_text() == "b's"
    take_in(b)
    assert b.run("unmount").returncode == exit_codes.DONE
    refused = b.mount("secondary", *CHECKPOINT)  # nor by a start
    assert refused.returncode == exit_codes.REFUSED and "holds files" in refused.stderr
    (more(b) / "mine").unlink()
    assert b.mount("secondary", *CHECKPOINT, "--timeout", "0.5").returncode in (exit_codes.DONE, exit_codes.TIMEOUT, exit_codes.REFUSED)
    b.until(code="DIRECTORIES_DIFFER")
    assert add(a).returncode == exit_codes.DONE
    take_in(a)
    a.until(link="paired")
    equal(a, b)


def test_bad_directories_leave_the_pair_as_it_is(paired: Both) -> None:
    a, b = paired
    for directory, why in (
        (more(b) / "none", "does not exist"),
        (b.directories[0] / "inner", "is nested in"),
        (b.state / "kept", "lies inside the state directory"),
        (Path("/usr"), "is a system tree"),
    ):
        refused = b.run("add", str(directory))
        assert refused.returncode == exit_codes.CONFIGURATION_INVALID and why in refused.stderr, refused.stderr
    with subprocess.Popen(["sleep", "60"], cwd=more(b)) as sleeper:
        try:
            refused = add(b)
            assert refused.returncode == exit_codes.REFUSED and "still in use by sleep" in refused.stderr
        finally:
            sleeper.kill()
    a.until(link="paired")
    assert recorded(b)["pending"] == 0


def test_one_that_was_added_on_one_node_alone_can_be_taken_back(paired: Both) -> None:
    a, b = paired
    assert add(b).returncode == exit_codes.DONE
    b.until(code="DIRECTORIES_DIFFER")
    a.until(mode="alone")
    (a.directories[0] / "alone").write_text("goes on")
    assert recorded(b)["pending"] == 1
    assert b.run("unmount").returncode == exit_codes.DONE
    assert b.mount("secondary", *CHECKPOINT).returncode == exit_codes.DONE  # with the directories of before
    a.until(link="paired")
    equal(a, b)
    (more(b) / "plain").write_text("nobody's")
    assert recorded(b) == {"count": 2, "paths": list(map(str, b.directories)), "pending": 0}


def test_ids_of_another_mirror_make_everything_be_compared(paired: Both) -> None:
    """Both modules began to count at the same number."""
    a, b = paired
    stale = os.getxattr(b.beneath() / "before", "trusted.lockstep.id")
    os.setxattr(more(a) / "tree" / "file7", "trusted.lockstep.id", stale)
    assert add(b).returncode == exit_codes.DONE and add(a).returncode == exit_codes.DONE
    (a.directories[0] / "before").write_text("changed alone")
    for node in paired:
        take_in(node)
        node.until(link="paired")
    assert a.status()["last_scope"] == "everything"
    equal(a, b)
    (a.directories[0] / "before").write_text("changed together")
    (more(a) / "tree" / "file7").write_text("changed too")
    equal(a, b)


def test_a_directory_whose_names_are_local(paired: Both) -> None:
    a, b = paired
    (more(a) / "scratch").mkdir()
    (more(a) / "scratch" / "x.tmp").write_text("a's own")
    assert add(b, "--exclude", f"{more(b)}/**/*.tmp").returncode == exit_codes.DONE
    assert add(a, "--exclude", f"{more(a)}/**/*.tmp").returncode == exit_codes.DONE
    a.until(link="paired")
    (a.directories[0] / "y.tmp").write_text("its patterns are its own")
    assert (b.directories[0] / "y.tmp").exists()
    assert (more(b) / "scratch").is_dir() and not (more(b) / "scratch" / "x.tmp").exists()

"""What comes along when a node joins: a whole, valid configuration that names this node, in its place; nothing else, nowhere else."""

from pathlib import Path

import pytest

from orchestrator.config_archive import digest, gather
from orchestrator.config_start import adopt
from orchestrator.generations import GenerationStore
from orchestrator.hactl import cluster_files
from orchestrator.hactl.cluster_commands import begin_anew
from orchestrator.paths import Paths
from rfs.errors import SaidNo
from rfs.pairing import Files

CLUSTER = b"""\
name = "plant7"
[[node]]
name = "node1"
addresses = { lan = "192.0.2.11", repl = "198.51.100.11" }
[[node]]
name = "node2"
addresses = { lan = "192.0.2.12", repl = "198.51.100.12" }
"""
MODULE = b"""\
mode = "mirror"
nodes = ["node1", "node2"]
replication_network = "repl"
[[replicated]]
directory = "/srv/data"
"""
FILES: Files = {
    "cluster.toml": (0o644, CLUSTER),
    "modules/pg.toml": (0o640, MODULE),
    "modules/pg/start_prim": (0o755, b"#!/bin/sh\nexit 0\n"),
    "modules/pg/password": (0o600, b"secret"),
}


def test_what_is_gathered_is_what_is_stored(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    cluster_files.store(FILES, here, "node1", replace=False)
    (here / "keys").mkdir()
    (here / "keys" / "identity.pem").write_text("secret")
    assert gather(here) == FILES, "no key"
    (here / "modules" / "link").symlink_to("../keys/identity.pem")
    with pytest.raises(SaidNo, match="link to a key"):
        gather(here)
    (here / "modules" / "link").unlink()
    cluster_files.store(gather(here), there, "node2", replace=False)
    assert gather(there) == FILES
    assert (there / "modules/pg/start_prim").stat().st_mode & 0o111 and (there / "modules/pg/password").stat().st_mode & 0o777 == 0o600
    assert not list(there.glob(".joining*"))


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "modules/../../evil", "keys/identity.pem", "modules", "modules//pg.toml", "a/b", "modules/a\nb", ""]
)
def test_no_other_place_is_written_to(tmp_path: Path, name: str) -> None:
    with pytest.raises(SaidNo, match="no part of a configuration"):
        cluster_files.store({**FILES, name: (0o644, b"x")}, tmp_path / "etc", "node2", replace=True)
    assert not (tmp_path / "evil").exists() and not (tmp_path / "etc" / "cluster.toml").exists()


def test_a_configuration_that_is_none_changes_nothing(tmp_path: Path) -> None:
    for files, node, words in (
        ({"cluster.toml": (0o644, b"name = 3")}, "node2", "not valid"),
        ({"modules/pg.toml": (0o644, MODULE)}, "node2", "not valid"),
        (FILES, "node9", "this node is called node9"),
    ):
        with pytest.raises(SaidNo, match=words):
            cluster_files.store(files, tmp_path, node, replace=True)
        assert list(tmp_path.iterdir()) == []


def test_a_different_configuration_is_kept(tmp_path: Path) -> None:
    cluster_files.store(FILES, tmp_path, "node2", replace=False)
    cluster_files.store(FILES, tmp_path, "node2", replace=False)
    other = {**FILES, "cluster.toml": (0o644, b'policy = "consistency"\n' + CLUSTER)}
    with pytest.raises(SaidNo, match="--yes"):
        cluster_files.store(other, tmp_path, "node2", replace=False)
    assert (tmp_path / "cluster.toml").read_bytes() == CLUSTER
    cluster_files.store(other, tmp_path, "node2", replace=True)
    assert (tmp_path / "cluster.toml").read_bytes() == other["cluster.toml"][1]
    assert (tmp_path / "cluster.toml.before-join").read_bytes() == CLUSTER
    assert gather(tmp_path) == other, "what was kept aside does not travel"


def test_what_was_applied_before_a_join_is_forgotten_unless_it_came_along_again(tmp_path: Path) -> None:
    etc, paths = tmp_path / "etc", Paths(tmp_path)
    cluster_files.store(FILES, etc, "node2", replace=False)
    begin_anew(etc, paths)  # nothing was applied here
    store = GenerationStore(paths.config)
    adopt(store, etc)
    begin_anew(etc, paths)
    store.read()
    assert store.past.applied is not None and store.past.applied.digest == digest(gather(etc))
    (etc / "cluster.toml").write_text((etc / "cluster.toml").read_text() + "# another\n")
    begin_anew(etc, paths)
    store.read()
    assert store.past.applied is None
    (paths.config / "history.json").write_text("{")
    begin_anew(etc, paths)
    store.read()

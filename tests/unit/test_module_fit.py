"""A module from elsewhere gets this cluster's nodes, network, port and addresses; everything else stays as it was written."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from orchestrator.config import load_cluster
from orchestrator.config_text import parse_config_text
from orchestrator.modules.edit import CannotEdit, edited
from orchestrator.modules.fit import fitted
from orchestrator.modules.template import Unfit
from tests.unit.test_templates import CLUSTER

FILE = Path("pg.toml")
TEXT = """\
# PostgreSQL of the old site
mode = "mirror"
nodes = [            # both
    "alpha",
    "beta",
]
replication_network = "backbone"   # the fast one
port = 5600 # fixed
max_restarts = "3 per 24h"

[[replicated]]
directory = "/srv/pg#1"            # with a # in its name

[[vip]]
address = "203.0.113.9/24"         # old
[[vip]]
address = "203.0.113.10/24"
"""


def fit(tmp_path: Path, text: str, *vips: str, nodes: tuple[str, ...] = ()) -> tuple[str, list[str]]:
    (tmp_path / "cluster.toml").write_text(CLUSTER)
    return fitted(parse_config_text(FILE, text), text, load_cluster(tmp_path), {}, vips, nodes)


def test_what_is_this_clusters_is_changed_and_said(tmp_path: Path) -> None:
    text, said = fit(tmp_path, TEXT, "192.0.2.100/24", "192.0.2.101/24", "192.0.2.102/24")
    assert text.splitlines()[:6] == [
        "# PostgreSQL of the old site",
        'mode = "mirror"',
        'nodes = ["node1", "node2"]',
        'replication_network = "repl"   # the fast one',
        "port = 5600 # fixed",
        'max_restarts = "3 per 24h"',
    ]
    assert 'directory = "/srv/pg#1"            # with a # in its name' in text and 'address = "192.0.2.100/24"         # old' in text
    assert [vip["address"] for vip in tomllib.loads(text)["vip"]] == ["192.0.2.100/24", "192.0.2.101/24", "192.0.2.102/24"]
    assert said[:2] == ['nodes = ["node1", "node2"] here', 'vip[1].address = "192.0.2.100/24" here']


def test_what_fits_is_left_alone(tmp_path: Path) -> None:
    text = TEXT.replace('"alpha"', '"node2"').replace('"beta"', '"node1"').replace("backbone", "lan")
    assert fit(tmp_path, text) == (text, [])


def test_a_module_without_a_port_gets_one(tmp_path: Path) -> None:
    text, said = fit(tmp_path, '# first\nreplication_network = "lan"\n[[replicated]]\ndirectory = "/srv/x"\n')
    assert text.startswith('# first\nnodes = ["node1", "node2"]\nport = 5600\nreplication_network = "lan"\n')
    assert len(said) == 2


def test_a_light_module_needs_neither(tmp_path: Path) -> None:
    text = 'mode = "light"\n[[service]]\nunit = "x"\n'
    assert fit(tmp_path, text) == (text, [])
    assert fit(tmp_path, text, nodes=("node2",))[0].startswith('nodes = ["node2"]\nmode')


def test_what_cannot_be_reached_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match=r"vip\[1\].address stands where it cannot be changed"):
        fit(tmp_path, 'port = 1\nvip = [{address = "203.0.113.9/24"}]\n', "192.0.2.100/24")


def test_a_value_over_several_rows_is_replaced_whole() -> None:
    text = 'a = """\nb = 1 # not a key\n"""\nb = [\n  1,\n  # inside\n]\nc = 3\n'
    lines = {("a",): 1, ("b",): 4, ("c",): 8}
    assert edited(text, lines, {("a",): "x", ("b",): 7}) == 'a = "x"\nb = 7\nc = 3\n'
    with pytest.raises(CannotEdit):
        edited("a = [\n", {("a",): 1}, {("a",): 1})

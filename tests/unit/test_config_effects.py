"""What a change does to what runs: every key of the models has an effect and a word, and differences are found by name, not by place."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from orchestrator.config_archive import gather
from orchestrator.config_documents import Documents, as_toml, read_documents
from orchestrator.config_effects import (
    EFFECTS,
    NAMED_BY,
    TABLES_OF_NAMES,
    Change,
    Effect,
    added_addresses,
    changes_between,
    effect_of,
    stopped_for,
)
from orchestrator.config_models import ClusterModel, ModuleModel
from orchestrator.config_schema import json_schema, keys_of, markdown
from orchestrator.config_words import WORDS
from tests.unit.test_config import CLUSTER, MODULE, write

ROOT = Path(__file__).resolve().parents[2]
KEYS = [key for kind in ("cluster", "module") for key in keys_of(kind)]


def test_every_key_has_an_effect_and_a_word() -> None:
    assert len(KEYS) > 40
    assert [key.place for key in KEYS if not key.words] == []
    for key in KEYS:
        if not key.table:
            assert isinstance(effect_of(key.place), Effect)


def test_every_repeated_table_is_known_by_a_name_and_may_come_and_go() -> None:
    repeated = {key.place for key in KEYS if key.repeated}
    assert {"cluster.node", "module.replicated", "module.vip", "module.service"} <= repeated <= set(NAMED_BY)
    for place in repeated | {"module"}:
        assert {effect_of(f"{place}+"), effect_of(f"{place}-")} <= set(Effect)
    keys = {key.place for key in KEYS}
    assert keys >= TABLES_OF_NAMES
    for place in repeated:
        assert all(f"{place}.{name}" in keys for name in NAMED_BY[place]), place


def test_a_key_that_is_not_in_the_table_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(KeyError):
        effect_of("module.colour")
    assert effect_of("module.checker.to") is effect_of("module.checker+") is Effect.LIVE
    assert effect_of("module.replicated+") is Effect.LIVE and effect_of("module.replicated-") is Effect.STOPPED


def documents(directory: Path, cluster: str = CLUSTER, **modules: str) -> Documents:
    directory.mkdir()
    return read_documents(write(directory, cluster, **modules))


def changes(tmp_path: Path, old: str, new: str, *, cluster: bool = False) -> list[Change]:
    """Between the usual configuration and one in which `old` is `new`."""
    text = CLUSTER if cluster else MODULE
    assert old in text
    changed = text.replace(old, new)
    changed = changed.replace("10.0.0.1", "10.0.0.2", 1)  # each node its own
    before = documents(tmp_path / "before", pg=MODULE)
    after = documents(tmp_path / "after", changed, pg=MODULE) if cluster else documents(tmp_path / "after", pg=changed)
    return changes_between(before, after, gather(tmp_path / "before"), gather(tmp_path / "after"))


L, N, S = Effect.LIVE, Effect.NEXT_START, Effect.STOPPED


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('default_primary = "alone"', "# it is the default", []),
        ('boot = "off"', 'boot = "on"', [("boot", L)]),
        ('max_restarts = "5 per 1h"', 'max_restarts = "6 per 1h"', [("max_restarts", L)]),
        ('stop_timeout = "1m"', 'stop_timeout = "2m"', [("service[postgres].stop_timeout", L)]),
        ('user = "postgres"', 'user = "pg"', [("service[postgres].user", N)]),
        ('name = "postgres"', 'name = "pg"', [("service[postgres]", S), ("service[pg]", S)]),
        ('[[vip]]\naddress = "192.0.2.100/24"', "", [("vip[192.0.2.100/24]", S)]),
        ('[[vip]]', '[[vip]]\naddress = "192.0.2.101/24"\n[[vip]]', [("vip[192.0.2.101/24]", L)]),
        ('"192.0.2.100/24"', '"192.0.2.100/24"\ntcp_reset = false', [("vip[192.0.2.100/24].tcp_reset", L)]),
        ('[[replicated]]\ndirectory = "/srv/pg_wal/"', "", [("replicated[/srv/pg_wal]", S)]),
        ('"/srv/pg_wal/"', '"/srv/pg_wal/"\nexclude = ["x"]', [("replicated[/srv/pg_wal].exclude", S)]),
        ('require = ["PG_VERSION"]', "", [("replicated[/var/lib/postgresql/15/main].require", N)]),
        ('replication_network = "repl"', 'replication_network = "lan"', [("replication_network", S)]),
        ('mode = "mirror"', 'mode = "mirror"\nack = "disk"', [("ack", S)]),
        ('mode = "mirror"', 'mode = "mirror"\nport = 5600', []),
        ('mode = "mirror"', 'mode = "mirror"\nport = 5700', [("port", S)]),
        ("[[replicated]]", '[scripts]\nstop_timeout = "9s"\n[[replicated]]', [("scripts", L)]),
    ],
)  # fmt: skip
def test_of_a_module(tmp_path: Path, old: str, new: str, expected: list[tuple[str, Effect]]) -> None:
    text = MODULE.replace(old, new, 1)
    before, after = documents(tmp_path / "before", pg=MODULE), documents(tmp_path / "after", pg=text)
    found = changes_between(before, after, {}, {})
    assert [(change.key, change.effect) for change in found] == expected
    assert all(change.module == "pg" and change.stops == (("pg",) if change.effect is S else ()) for change in found)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"consistency"', '"availability"', [("policy", L, ())]),
        ('timeout = "2s"', 'timeout = "4s"', [("heartbeat.timeout", L, ())]),
        ('name = "plant7"', 'name = "plant8"', [("name", S, ("pg",))]),
        ('"192.0.2.1"', '"192.0.2.2"', [("witness.ping", L, ())]),
        ("[witness]", '[witness]\netcd = ["http://192.0.2.9:2379"]', [("witness.etcd", S, ("pg",))]),
        ("[witness]", '[health]\nlisten = "0.0.0.0:9010"\n[witness]', [("health", L, ())]),
        ('lan = "192.0.2.12"', 'lan = "192.0.2.13"', [("node[node2].addresses.lan", S, ("pg",))]),
        ('repl = "198.51', 'x = "10.0.0.1", repl = "198.51', [("node[node1].addresses.x", L, ()), ("node[node2].addresses.x", L, ())]),
        ("[witness]", '[[node]]\nname = "node3"\naddresses = { lan = "192.0.2.13" }\n[witness]', [("node[node3]", L, ())]),
    ],
)  # fmt: skip
def test_of_the_cluster(tmp_path: Path, old: str, new: str, expected: list[tuple[str, Effect, tuple[str, ...]]]) -> None:
    found = changes(tmp_path, old, new, cluster=True)
    assert [(change.key, change.effect, change.stops) for change in found] == expected


@pytest.mark.parametrize(
    ("before", "after"),
    [([], ["http://192.0.2.9:2379"]), (["http://192.0.2.9:2379"], []), (["http://192.0.2.9:2379"], ["http://192.0.2.8:2379"])],
    ids=["added", "removed", "another"],
)
def test_no_mirror_runs_while_its_arbiter_changes(tmp_path: Path, before: list[str], after: list[str]) -> None:
    """Between hactld's new belief and rfsmount's old one there could be two primaries. A light module asks nobody."""
    light = 'mode = "light"\n[[service]]\nname = "x"\nstart = ["/bin/true"]\n'
    texts = [CLUSTER.replace("[witness]", f"[witness]\netcd = {etcd}") for etcd in (before, after)]
    old, new = (documents(tmp_path / name, text, pg=MODULE, web=light) for name, text in zip(("a", "b"), texts, strict=True))
    assert set(stopped_for(changes_between(old, new, {}, {}))) == {"pg"}


def test_modules_come_and_go_and_must_not_move_the_ports_of_others(tmp_path: Path) -> None:
    other = 'nodes = ["node1", "node2"]\nreplication_network = "repl"\n[[replicated]]\ndirectory = "/srv/a"\n'
    before, after = documents(tmp_path / "before", pg=MODULE), documents(tmp_path / "after", pg=MODULE, a=other)
    found = changes_between(before, after, {}, {})
    assert [(change.module, change.key, change.effect) for change in found] == [("a", "", L), ("pg", "port", S)], "pg was 5600, a takes it"
    assert set(stopped_for(found)) == {"pg"}
    gone = changes_between(after, before, {}, {})
    assert [(change.module, change.effect, change.stops) for change in gone][0] == ("a", S, ("a",))
    behind = documents(tmp_path / "behind", pg=MODULE, z=other)
    assert [(change.module, change.effect) for change in changes_between(before, behind, {}, {})] == [("z", L)]


def test_the_order_of_directories_and_services_means_something(tmp_path: Path) -> None:
    one, two = '[[replicated]]\ndirectory = "/srv/a"\n', '[[replicated]]\ndirectory = "/srv/b"\n'
    head = 'replication_network = "repl"\n'
    found = changes_between(documents(tmp_path / "1", m=head + one + two), documents(tmp_path / "2", m=head + two + one), {}, {})
    assert [(change.key, change.effect) for change in found] == [("replicated (order)", S)]


def test_a_directory_that_is_added_comes_last(tmp_path: Path) -> None:
    """The data side knows a directory by its place: one that comes before others would make them other directories."""
    one, two = '[[replicated]]\ndirectory = "/srv/a"\n', '[[replicated]]\ndirectory = "/srv/b"\n'
    head = 'replication_network = "repl"\n'
    last = changes_between(documents(tmp_path / "1", m=head + one), documents(tmp_path / "2", m=head + one + two), {}, {})
    first = changes_between(documents(tmp_path / "3", m=head + one), documents(tmp_path / "4", m=head + two + one), {}, {})
    assert [(change.key, change.effect) for change in last] == [("replicated[/srv/b]", L)]
    assert [(change.key, change.effect) for change in first] == [("replicated[/srv/b]", L), ("replicated (order)", S)]


def test_scripts(tmp_path: Path) -> None:
    same = documents(tmp_path / "before", pg=MODULE)
    old = {"modules/pg/a": (0o755, b"a"), "modules/pg/b": (0o755, b"b"), "modules/pg/c": (0o755, b"c"), "modules/pgx/a": (0o755, b"a")}
    new = {"modules/pg/a": (0o755, b"A"), "modules/pg/b": (0o644, b"b"), "modules/pg/d": (0o755, b"d")}
    found = changes_between(same, same, old, new)
    assert [(change.key, change.effect) for change in found] == [("pg/a", L), ("pg/b", L), ("pg/c", L), ("pg/d", L)]


def test_addresses_that_come_are_named_those_that_move_are_not(tmp_path: Path) -> None:
    head = 'nodes = ["node1", "node2"]\nreplication_network = "repl"\n[[replicated]]\ndirectory = "/srv/z"\n'
    other = head + '[[vip]]\naddress = "192.0.2.{}/24"\n'
    before = documents(tmp_path / "before", pg=MODULE, z=other.format(50))
    after = documents(tmp_path / "after", pg=MODULE + '[[vip]]\naddress = "192.0.2.50/24"\n', z=other.format(51))
    assert {name: [vip.address for vip in vips] for name, vips in added_addresses(before, after).items()} == {"z": ["192.0.2.51/24"]}


def test_a_configuration_that_is_shown_as_toml_means_the_same(tmp_path: Path) -> None:
    strange = MODULE.replace('PGTZ = "UTC"', 'PGTZ = "U\\"T\\\\C\\u0007 é", "A.B" = "1"')
    found = documents(tmp_path / "before", pg=strange)
    (tmp_path / "again").mkdir()
    write(tmp_path / "again", as_toml(found.cluster), pg=as_toml(found.modules["pg"]))
    again = read_documents(tmp_path / "again")
    assert again.cluster == found.cluster and again.modules == found.modules
    assert changes_between(found, again, {}, {}) == []


def test_the_schemas_are_schemas_and_take_what_the_models_take(tmp_path: Path) -> None:
    import tomllib

    for kind, text in (("cluster", CLUSTER), ("module", MODULE)):
        schema = json_schema(kind)
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(tomllib.loads(text), schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**tomllib.loads(text), "colour": "red"}, schema)
        assert schema["properties"] and all(entry["description"] for entry in schema["properties"].values())
    assert set(ClusterModel.model_fields) | set(ModuleModel.model_fields) <= {name.rpartition(".")[2] for name in WORDS}


def test_the_page_of_all_keys_is_up_to_date() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == markdown(), "hactl config schema --markdown > docs/configuration.md"
    assert all(f"`{key.place.rpartition('.')[2]}`" in page for key in KEYS if not key.table)


def test_the_table_is_about_the_two_files() -> None:
    assert {place.partition(".")[0].strip("+-") for place in EFFECTS} == {"cluster", "module", "module/script"}

"""Templates on machines made of files: what they find, what they write, what they refuse.

The texts that they write lie in tests/golden/modules; `python -m tests.unit.test_templates` writes them anew after a change on purpose.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config import load_cluster, load_modules
from orchestrator.modules import catalogue, place
from orchestrator.modules.machine import Machine
from orchestrator.modules.render import line_text, render
from orchestrator.modules.template import MODULE_SETTINGS, Line, Unfit, Wishes
from tests.unit.machines import (
    debian_mariadb,
    debian_nginx,
    debian_postgresql,
    machine,
    rhel_mysql,
    rhel_postgresql,
    two_units,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "modules"
CLUSTER = """\
name = "plant7"
[[node]]
name = "node1"
addresses = { lan = "192.0.2.11", repl = "198.51.100.11" }
[[node]]
name = "node2"
addresses = { lan = "192.0.2.12", repl = "198.51.100.12" }
"""
VIP = "192.0.2.100/24"
Make = Callable[[Path], Machine]

CASES: dict[str, tuple[str, Make, Wishes]] = {
    "postgresql-debian": ("postgresql", debian_postgresql, Wishes("pg", vips=(VIP,))),
    "postgresql-lab": (
        "postgresql",
        lambda root: debian_postgresql(root, systemd=False),
        Wishes("pg", ("/srv/pg/data", "/srv/pg/wal"), vips=(VIP,), settings={"version": "15"}),
    ),
    "postgresql-rhel": ("postgresql", rhel_postgresql, Wishes("pg", vips=(VIP,), settings={"default_primary": "node2", "port": "5700"})),
    "mariadb-debian": ("mariadb", debian_mariadb, Wishes("db", vips=(VIP,))),
    "mariadb-lab": ("mariadb", lambda root: debian_mariadb(root, systemd=False), Wishes("db", ("/srv/mysql",), settings={"ack": "disk"})),
    "mysql-rhel": ("mysql", rhel_mysql, Wishes("db", vips=(VIP,))),
    "nginx-debian": ("nginx", debian_nginx, Wishes("web", vips=(VIP,))),
    "nginx-own-settings": ("nginx", debian_nginx, Wishes("web", ("/srv/www",), settings={"conf": "/srv/www/nginx.conf", "listen": "81"})),
    "generic-units": ("generic", two_units, Wishes("erp", ("/srv/erp",), ("legacy", "erp", "/opt/agent --foreground 'a b'"), (VIP,))),
    "light": ("light", two_units, Wishes("agents", services=("erp", "/opt/agent", "/opt/agent -x"), settings={"boot": "on"})),
}


def text_of(case: str, root: Path, config: Path) -> str:
    """What `module add` would write."""
    name, make, wishes = CASES[case]
    template = catalogue.template(name)
    draft = template.draft(wishes, make(root))
    (config / "modules").mkdir(parents=True, exist_ok=True)
    (config / "cluster.toml").write_text(CLUSTER)
    cluster = load_cluster(config)
    head = place.head(cluster, {}, wishes, place.chosen_nodes(cluster, (), draft.mode), draft.mode)
    return render(draft, wishes, name, head)


@pytest.mark.parametrize("case", CASES)
def test_the_text_is_what_was_agreed_upon_and_a_valid_module(case: str, tmp_path: Path) -> None:
    text = text_of(case, tmp_path / "machine", tmp_path / "config")
    assert text == (GOLDEN / f"{case}.toml").read_text()
    module = place.check_together(tmp_path / "config", CASES[case][2].name, text)
    assert [vip.address for vip in module.vips] == list(CASES[case][2].vips)
    assert max(map(len, text.splitlines())) <= 140


def test_every_golden_text_has_its_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.toml")} == set(CASES)


# ---------------------------------------------------------------------------------------------- what is found


@pytest.mark.parametrize(
    ("name", "make", "found"),
    [
        ("postgresql", debian_postgresql, "15/main in /var/lib/postgresql/15/main"),
        ("postgresql", rhel_postgresql, "/var/lib/pgsql/16/data"),
        ("mariadb", debian_mariadb, "/usr/sbin/mariadbd, data in /var/lib/mysql"),
        ("mysql", debian_mariadb, ""),
        ("mysql", rhel_mysql, "/usr/sbin/mysqld, data in /data/mysql"),
        ("nginx", debian_nginx, "serves /var/www/html"),
        ("nginx", lambda root: machine(root, {"/usr/sbin/nginx": ""}), "installed"),
        *((name, lambda root: machine(root, {"/etc/hosts": ""}), "") for name in catalogue.NAMES),
    ],
)
def test_what_is_on_the_machine(name: str, make: Make, found: str, tmp_path: Path) -> None:
    assert catalogue.template(name).found(make(tmp_path)) == found


def test_where_a_log_and_a_tablespace_lie_is_mirrored_too(tmp_path: Path) -> None:
    draft = catalogue.template("postgresql").draft(Wishes("pg"), debian_postgresql(tmp_path))
    assert [directory.path for directory in draft.directories] == ["/var/lib/postgresql/15/main", "/srv/pg_wal", "/srv/space"]
    draft = catalogue.template("mariadb").draft(Wishes("db"), debian_mariadb(tmp_path))
    assert [directory.path for directory in draft.directories] == ["/var/lib/mysql", "/srv/redo", "/srv/binlog"]


@pytest.mark.parametrize(
    ("name", "make", "vips", "told"),
    [
        ("postgresql", debian_postgresql, (VIP,), "listens on localhost only"),
        ("postgresql", debian_postgresql, (), "'manual' into /etc/postgresql/15/main/start.conf"),
        ("postgresql", debian_postgresql, (), "/etc/postgresql/15/main are not mirrored"),
        ("mariadb", debian_mariadb, (VIP,), "listens on 127.0.0.1 only"),
        ("nginx", debian_nginx, (), "/etc/nginx/nginx.conf and what it includes, are not mirrored"),
    ],
)
def test_what_must_be_known_is_said(name: str, make: Make, vips: tuple[str, ...], told: str, tmp_path: Path) -> None:
    notes = catalogue.template(name).draft(Wishes("x", vips=vips), make(tmp_path)).notes
    assert any(told in note for note in notes), notes


def test_nothing_is_said_that_is_not_so(tmp_path: Path) -> None:
    notes = catalogue.template("postgresql").draft(Wishes("pg", vips=(VIP,)), rhel_postgresql(tmp_path)).notes
    assert len(notes) == 1 and "same PostgreSQL 16" in notes[0]


# ---------------------------------------------------------------------------------------------- what is refused


def two_clusters(root: Path) -> Machine:
    debian_postgresql(root)
    return machine(root, {"/etc/postgresql/13/old/postgresql.conf": "", "/usr/lib/postgresql/13/bin/postgres": ""})


@pytest.mark.parametrize(
    ("name", "make", "wishes", "sentence"),
    [
        ("postgresql", lambda root: machine(root, {}), Wishes("pg"), "no PostgreSQL database is found here"),
        ("postgresql", lambda root: machine(root, {}), Wishes("pg", ("/srv/pg",)), "PostgreSQL is not installed here"),
        ("postgresql", two_clusters, Wishes("pg"), "several clusters: say --set cluster=… with one of 13/old, 15/main"),
        ("postgresql", two_clusters, Wishes("pg", settings={"cluster": "9/main"}), "there is no cluster 9/main"),
        ("postgresql", two_clusters, Wishes("pg", ("/srv/pg",)), "several PostgreSQL are installed: say --set version="),
        ("postgresql", two_clusters, Wishes("pg", ("/srv/pg",), settings={"version": "14"}), "PostgreSQL 14 is not installed here"),
        ("mariadb", lambda root: machine(root, {}), Wishes("db"), "MariaDB is not installed here"),
        ("mysql", lambda root: machine(root, {}), Wishes("db"), "MySQL is not installed here"),
        ("mysql", debian_mariadb, Wishes("db"), "the mysqld of this machine is MariaDB's: use the template mariadb"),
        ("nginx", lambda root: machine(root, {}), Wishes("web"), "nginx is not installed here"),
        ("nginx", lambda root: machine(root, {"/usr/sbin/nginx": ""}), Wishes("web"), "nothing that /etc/nginx/nginx.conf serves"),
        ("generic", two_units, Wishes("erp"), "name what is to be mirrored with --dir"),
        ("generic", two_units, Wishes("erp", ("/srv",), ("erp", "odd", "none@1")), "there is no unit odd, none@1 on this node"),
        ("generic", two_units, Wishes("erp", ("/srv",), ("/opt/none",)), "there is no program /opt/none"),
        ("generic", two_units, Wishes("erp", ("/srv",), ("/opt/agent 'x",)), "No closing quotation"),
        ("generic", lambda root: machine(root, {}), Wishes("erp", ("/srv",), ("erp",)), "systemd does not run this machine"),
        ("light", two_units, Wishes("agents"), "name what runs with --service"),
        ("light", two_units, Wishes("agents", ("/srv",), ("erp",)), "a light module has no --dir"),
        ("light", two_units, Wishes("agents", (), ("erp",), (VIP,)), "a light module has no --vip"),
    ],
)
def test_what_cannot_be_made(name: str, make: Make, wishes: Wishes, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(Unfit) as refusal:
        catalogue.template(name).draft(wishes, make(tmp_path))
    assert sentence in str(refusal.value) and refusal.value.code == 2


def test_a_template_that_there_is_not() -> None:
    with pytest.raises(Unfit, match='Did you mean "mariadb"'):
        catalogue.template("mariaDB")


# ---------------------------------------------------------------------------------------------- the machine


def test_units(tmp_path: Path) -> None:
    found = debian_nginx(tmp_path)
    assert found.has_unit("nginx") and found.has_unit("nginx.service") and not found.has_unit("nginx.socket")
    assert found.starts_at_boot("nginx") and not found.starts_at_boot("erp")
    assert debian_postgresql(tmp_path).has_unit("postgresql@15-main")
    assert two_units(tmp_path).first_unit("none", "legacy", "erp") == "legacy"
    (tmp_path / "run/systemd/system").rmdir()
    assert found.first_unit("nginx") == "", "a unit is of use where systemd runs"


def test_a_masked_unit_is_one(tmp_path: Path) -> None:
    assert machine(tmp_path, {}, {"/etc/systemd/system/off.service": "/dev/null"}, systemd=True).has_unit("off")


# ---------------------------------------------------------------------------------------------- the text


def test_every_template_is_described() -> None:
    for name in catalogue.NAMES:
        template, about = catalogue.template(name), catalogue.about(name)
        assert template.name == name and f"hactl module add {name}" in about
        assert not set(template.settings) & set(MODULE_SETTINGS)


def test_values_are_toml_whatever_they_hold() -> None:
    odd = 'a "quoted" \\ path\twith \x7f and ü'
    rows = [*line_text(Line("text", odd, "why")), *line_text(Line("list", (odd,) * 12)), *line_text(Line("table", {"A B": odd}, "x"))]
    read = tomllib.loads("\n".join(rows))
    assert read == {"text": odd, "list": [odd] * 12, "table": {"A B": odd}}


@pytest.mark.parametrize(
    ("vips", "network"),
    [((), "repl"), ((VIP,), "repl"), (("198.51.100.9/24",), "lan"), ((VIP, "198.51.100.9/24"), "lan"), (("nonsense",), "repl")],
)
def test_the_data_go_where_clients_do_not(vips: tuple[str, ...], network: str, tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(CLUSTER)
    assert place.chosen_network(load_cluster(tmp_path), ("node1", "node2"), vips) == network


# ---------------------------------------------------------------------------------------------- among other modules


OTHER = 'mode = "mirror"\nreplication_network = "repl"\n{port}[[replicated]]\ndirectory = "/srv/{name}"\n'


def config_with(tmp_path: Path, **ports: int | None) -> Path:
    (tmp_path / "modules").mkdir()
    (tmp_path / "cluster.toml").write_text(CLUSTER)
    for name, port in ports.items():
        (tmp_path / "modules" / f"{name}.toml").write_text(OTHER.format(name=name, port=f"port = {port}\n" if port else ""))
    return tmp_path


def test_a_new_module_has_a_port_of_its_own(tmp_path: Path) -> None:
    config = config_with(tmp_path, a=5601, b=5600, c=5603)
    cluster = load_cluster(config)
    assert place.free_port(cluster, load_modules(config, cluster)) == 5602


def test_a_name_that_would_change_another_modules_port_is_refused(tmp_path: Path) -> None:
    config = config_with(tmp_path, m=None)
    text = OTHER.format(name="new", port="port = 5605\n")
    with pytest.raises(place.Taken, match=r"the port of module m is not written down and would change: add port = 5600 to .*/m.toml"):
        place.check_together(config, "a", text)
    assert place.check_together(config, "z", text).port == 5605


def test_nothing_is_written_over(tmp_path: Path) -> None:
    config = config_with(tmp_path, pg=5600)
    before = place.module_file(config, "pg").read_text()
    for attempt in (lambda: place.check_name(config, "pg"), lambda: place.write(config, "pg", "new", {})):
        with pytest.raises(place.Taken):
            attempt()
    assert place.module_file(config, "pg").read_text() == before
    (config / "modules" / "web").mkdir()
    (config / "modules" / "web" / "start_prim").write_text("mine")
    with pytest.raises(place.Taken):
        place.check_name(config, "web")
    with pytest.raises(place.Taken):
        place.write(config, "web", "new", {"start_prim": (True, b"other")})
    assert (config / "modules" / "web" / "start_prim").read_text() == "mine"
    assert sorted(path.name for path in (config / "modules").iterdir()) == ["pg.toml", "web"], "and nothing is left behind"


@pytest.mark.parametrize("name", ["", "Pg", "../x", "a/b", "a b", "-a", "x" * 40])
def test_names_that_no_module_has(name: str, tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="cannot be a module's name"):
        place.check_name(config_with(tmp_path), name)


if __name__ == "__main__":
    for case in CASES:
        with tempfile.TemporaryDirectory() as scratch:
            (GOLDEN / f"{case}.toml").write_text(text_of(case, Path(scratch, "machine"), Path(scratch, "config")))

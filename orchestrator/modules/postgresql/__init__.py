"""PostgreSQL: a cluster of Debian's (or Ubuntu's), of RHEL's, or a data directory that is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.modules.machine import Machine
from orchestrator.modules.template import Directory, Draft, Line, Service, Template, Unfit, Wishes, tcp_checker, unit_service

PORT = 5432
EXCLUDE = ("pg_stat_tmp/**", "pgsql_tmp", "postmaster.pid")
TABLESPACE = "a tablespace"
SETTINGS = {
    "cluster": "which of Debian's clusters, e.g. 15/main, where there are several",
    "version": "of the programs, e.g. 15, where several are installed",
    "listen": f"the port it listens on; by default the cluster's own, else {PORT}",
    "user": "whose the database is; by default postgres",
}
_SETTING = r"^\s*{}\s*=?\s*'?([^'#\n]*?)'?\s*(?:#.*)?$"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A database that was found, or one that is only named: then it has no settings of its own outside of its directory."""

    label: str
    version: str
    data: str
    settings: str = ""  # the file, where it lies outside
    port: str = str(PORT)
    unit: str = ""
    listens: str = ""
    start: str = ""  # Debian's start.conf


def clusters(machine: Machine) -> Iterator[Cluster]:
    """Everything of this machine that packages have made."""
    for path in machine.matching("/etc/postgresql/*/*/postgresql.conf"):
        version, name = path.split("/")[3:5]
        text, start = machine.text(path), machine.text(path.replace("postgresql.conf", "start.conf"))
        data = setting(text, "data_directory") or f"/var/lib/postgresql/{version}/{name}"
        mode = next((line.strip() for line in start.splitlines() if line.strip() and not line.startswith("#")), "auto")
        port, listens = setting(text, "port") or str(PORT), setting(text, "listen_addresses") or "localhost"
        yield Cluster(f"{version}/{name}", version, data, path, port, f"postgresql@{version}-{name}", listens, mode)
    for path in machine.matching("/var/lib/pgsql/data/PG_VERSION") + machine.matching("/var/lib/pgsql/*/data/PG_VERSION"):
        data = path.removesuffix("/PG_VERSION")
        version, text = machine.text(path).strip(), machine.text(f"{data}/postgresql.conf")
        unit = "postgresql" if data == "/var/lib/pgsql/data" else f"postgresql-{version}"
        listens = setting(text, "listen_addresses") or "localhost"
        yield Cluster(data, version, data, "", setting(text, "port") or str(PORT), unit, listens)


def setting(text: str, key: str) -> str:
    """The last value of a key in postgresql.conf."""
    found: list[str] = re.findall(_SETTING.format(re.escape(key)), text, re.MULTILINE)
    return found[-1].strip() if found else ""


def chosen(wishes: Wishes, machine: Machine) -> Cluster:
    """The cluster that is meant."""
    known = list(clusters(machine))
    if wishes.directories:
        data = wishes.directories[0]
        same = [cluster for cluster in known if cluster.data == data]
        version = wishes.setting("version") or machine.text(f"{data}/PG_VERSION").strip()
        return same[0] if same else Cluster(data, version, data)
    wanted = wishes.setting("cluster")
    fitting = [cluster for cluster in known if wanted in ("", cluster.label)]
    labels = ", ".join(cluster.label for cluster in known)
    if not known:
        raise Unfit("no PostgreSQL database is found here: name its data directory with --dir, or make one (pg_createcluster, initdb)")
    if not fitting:
        raise Unfit(f"there is no cluster {wanted}; there is {labels}")
    if len(fitting) > 1:
        raise Unfit(f"there are several clusters: say --set cluster=… with one of {labels}")
    return fitting[0]


def programs(machine: Machine, version: str) -> str:
    """The directory of `postgres` and `pg_isready`."""
    places = [path.removesuffix("/postgres") for path in machine.matching("/usr/lib/postgresql/*/bin/postgres")]
    places += [path.removesuffix("/postgres") for path in machine.matching("/usr/pgsql-*/bin/postgres")]
    fitting = [place for place in places if version in re.findall(r"\d+(?:\.\d+)?", place)] if version else places
    if not fitting and machine.exists("/usr/bin/postgres"):
        return "/usr/bin"
    if not fitting:
        what = f"PostgreSQL {version}" if version else "PostgreSQL"
        raise Unfit(f"{what} is not installed here (no /usr/lib/postgresql/*/bin/postgres): install it on both nodes first")
    if len(fitting) > 1:
        raise Unfit(f"several PostgreSQL are installed: say --set version=… ({', '.join(fitting)})")
    return fitting[0]


def outside(machine: Machine, data: str) -> list[tuple[str, str]]:
    """Directories outside of the data directory that belong to the database, and what they are: its log, its tablespaces."""
    links = [(f"{data}/pg_wal", "the write-ahead log")]
    links += [(path, TABLESPACE) for path in machine.matching(f"{data}/pg_tblspc/*")]
    return [(target, what) for path, what in links if (target := machine.link(path)).startswith("/")]


def draft(wishes: Wishes, machine: Machine) -> Draft:
    """The module."""
    cluster = chosen(wishes, machine)
    user = wishes.setting("user", "postgres")
    port = wishes.setting("listen", cluster.port)
    bin_directory = programs(machine, cluster.version)
    more = [(path, "") for path in wishes.directories[1:]]
    more += [(path, what) for path, what in outside(machine, cluster.data) if path not in wishes.directories]
    directories = [Directory(cluster.data, ("PG_VERSION",), EXCLUDE, owner=user, mode="700")]
    directories += [
        Directory(path, exclude=("pgsql_tmp",) if what == TABLESPACE else (), comment=what, owner=user, mode="700") for path, what in more
    ]
    ready = Line("ready", (f"{bin_directory}/pg_isready", "--quiet", "--host=127.0.0.1", f"--port={port}"))
    patience = (Line("stop_timeout", "60s"), Line("start_timeout", "120s", "after a failover the log is replayed"))
    notes = [f"Both nodes need the same PostgreSQL{f' {cluster.version}' if cluster.version else ''}, the same locales and ICU."]
    unit = machine.first_unit(cluster.unit) if cluster.unit else ""
    if unit:
        service = unit_service(unit, *patience, ready)
        if cluster.listens in ("localhost", "127.0.0.1") and wishes.vips:
            where = cluster.settings or f"{cluster.data}/postgresql.conf"
            notes.append(f"It listens on {cluster.listens} only: set listen_addresses = '*' in {where}, or clients do not reach it.")
    else:
        service = command(cluster, machine, user, port, bin_directory, (*patience, ready))
    if cluster.settings:
        notes.append(f"Its settings in {cluster.settings.rpartition('/')[0]} are not mirrored: keep them equal on both nodes.")
    if cluster.start == "auto":
        start = cluster.settings.replace("postgresql.conf", "start.conf")
        notes.append(f"Debian starts it at boot: write 'manual' into {start} on both nodes, the module starts it.")
    version = f" {cluster.version}" if cluster.version else ""
    name = "" if cluster.label == cluster.data else f", cluster {cluster.label.partition('/')[2]}"
    checkers = (tcp_checker(f"127.0.0.1:{port}", "nobody answers: it is started again"),)
    return Draft(f"PostgreSQL{version}{name}", tuple(directories), (service,), checkers, tuple(notes))


def command(cluster: Cluster, machine: Machine, user: str, port: str, bin_directory: str, more: tuple[Line, ...]) -> Service:
    """Where no unit of systemd runs this very directory."""
    sockets = "/run/postgresql" if machine.exists("/run/postgresql") else "/tmp"
    words = [f"{bin_directory}/postgres", "-D", cluster.data]
    words += [f"--config_file={cluster.settings}"] if cluster.settings else []
    words += ["--listen_addresses=*", f"--port={port}", f"--unix_socket_directories={sockets}"]
    lines = (
        Line("name", "postgres"),
        Line("user", user),
        Line("start", tuple(words), "the service address comes and goes: it listens on all"),
        Line("stop_signal", "INT", "fast shutdown: roll back, checkpoint, end"),
    )
    return Service((*lines, *more))


def found(machine: Machine) -> str:
    """In a few words."""
    labels = [cluster.data if cluster.label == cluster.data else f"{cluster.label} in {cluster.data}" for cluster in clusters(machine)]
    return "; ".join(labels)


TEMPLATE = Template("postgresql", "PostgreSQL: one cluster, its log and its tablespaces", draft, found, SETTINGS)

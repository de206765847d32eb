"""Machines made of files, for templates to look at."""

from __future__ import annotations

from pathlib import Path

from orchestrator.modules.machine import Machine

PG_CONF = """\
# listen_addresses = '*'    this is a comment
data_directory = '/var/lib/postgresql/15/main'   # use data in another directory
port = 5433                                      # (change requires restart)
"""


def machine(root: Path, files: dict[str, str], links: dict[str, str] | None = None, *, systemd: bool = False) -> Machine:
    """A machine with these files and links below `root`."""
    for path, text in files.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    for path, leads_to in (links or {}).items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(leads_to)
    if systemd:
        (root / "run/systemd/system").mkdir(parents=True, exist_ok=True)
    return Machine(root)


def debian_postgresql(root: Path, *, systemd: bool = True) -> Machine:
    """Debian 12 with one cluster, whose log and one tablespace lie elsewhere."""
    data = "/var/lib/postgresql/15/main"
    files = {
        "/etc/postgresql/15/main/postgresql.conf": PG_CONF,
        "/etc/postgresql/15/main/start.conf": "# auto, manual or disabled\nauto\n",
        f"{data}/PG_VERSION": "15\n",
        "/usr/lib/postgresql/15/bin/postgres": "",
        "/lib/systemd/system/postgresql@.service": "",
    }
    links = {f"{data}/pg_wal": "/srv/pg_wal", f"{data}/pg_tblspc/16400": "/srv/space"}
    return machine(root, files, links, systemd=systemd)


def rhel_postgresql(root: Path) -> Machine:
    """PostgreSQL 16 of PGDG."""
    files = {
        "/var/lib/pgsql/16/data/PG_VERSION": "16\n",
        "/var/lib/pgsql/16/data/postgresql.conf": "listen_addresses = '*'\n",
        "/usr/pgsql-16/bin/postgres": "",
        "/usr/lib/systemd/system/postgresql-16.service": "",
    }
    return machine(root, files, systemd=True)


def debian_mariadb(root: Path, *, systemd: bool = True) -> Machine:
    """Its settings as Debian ships them, with a log elsewhere."""
    settings = "[client]\ndatadir = /none\n[mysqld]\n#datadir = /wrong\nbind-address            = 127.0.0.1\nport=3307\n"
    files = {
        "/etc/mysql/mariadb.conf.d/50-server.cnf": settings,
        "/etc/mysql/mariadb.conf.d/99-own.cnf": "[mariadb]\ninnodb_log_group_home_dir = /srv/redo/\nlog-bin = /srv/binlog/server\n",
        "/usr/sbin/mariadbd": "",
        "/usr/bin/mariadb-admin": "",
        "/run/mysqld/placeholder": "",
        "/lib/systemd/system/mariadb.service": "",
    }
    return machine(root, files, {"/usr/sbin/mysqld": "mariadbd"}, systemd=systemd)


def rhel_mysql(root: Path) -> Machine:
    """MySQL 8 of Oracle's, as RHEL installs it."""
    files = {
        "/etc/my.cnf": "[mysqld]\ndatadir=/data/mysql\n",
        "/usr/sbin/mysqld": "",
        "/usr/bin/mysqladmin": "",
        "/usr/lib/systemd/system/mysqld.service": "",
    }
    return machine(root, files, systemd=True)


def debian_nginx(root: Path, *, systemd: bool = True) -> Machine:
    """With two sites, one of them in the other's directory, and one that belongs to a package."""
    files = {
        "/etc/nginx/nginx.conf": "http { include /etc/nginx/sites-enabled/*; }",
        "/etc/nginx/sites-enabled/default": "server {\n listen [::]:8080 default_server;\n # root /wrong;\n root /var/www/html;\n}\n",
        "/etc/nginx/sites-enabled/inner": "server { root /var/www/html/inner; location / { root /usr/share/nginx/html; } }",
        "/usr/sbin/nginx": "",
        "/lib/systemd/system/nginx.service": "",
    }
    return machine(
        root, files, {"/etc/systemd/system/multi-user.target.wants/nginx.service": "/lib/systemd/system/nginx.service"}, systemd=systemd
    )


def two_units(root: Path) -> Machine:
    """A unit with a file, and one that only an init script gives."""
    return machine(root, {"/etc/systemd/system/erp.service": "", "/etc/init.d/legacy": "", "/opt/agent": ""}, systemd=True)

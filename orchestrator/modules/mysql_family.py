"""What MariaDB and MySQL have in common: where their settings say that the data lie, and how the server is run without systemd."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from orchestrator.modules.machine import Machine
from orchestrator.modules.template import Directory, Draft, Line, Service, Unfit, Wishes, tcp_checker, unit_service

PORT = "3306"
USER = "mysql"
DATA = "/var/lib/mysql"
SETTINGS = {
    "listen": f"the port it listens on; by default what its settings say, else {PORT}",
    "user": f"whose the database is; by default {USER}",
}
LOCAL_ONLY = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two."""

    title: str
    programs: tuple[str, ...]
    admins: tuple[str, ...]
    units: tuple[str, ...]
    settings: tuple[str, ...]  # files, the later ones win
    sections: tuple[str, ...]
    exclude: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Server:
    """What the settings say."""

    data: str = DATA
    port: str = PORT
    listens: str = ""
    elsewhere: tuple[tuple[str, str], ...] = field(default=())  # directories outside of it that belong to it, and by which key

    @classmethod
    def read(cls, kind: Kind, machine: Machine) -> Server:
        """Of this machine."""
        values = dict(options(kind, machine))
        data = values.get("datadir", DATA).rstrip("/")
        keys = ("innodb_data_home_dir", "innodb_log_group_home_dir", "innodb_undo_directory", "aria_log_dir_path")
        paths = {key: values[key].rstrip("/") for key in keys if values.get(key, "").startswith("/")}
        log = values.get("log_bin", "")
        if log.startswith("/"):
            paths["log_bin"] = log.rpartition("/")[0]
        elsewhere = tuple((path, key) for key, path in paths.items() if path != data and not path.startswith(f"{data}/"))
        return cls(data, values.get("port", PORT), values.get("bind_address", ""), elsewhere)


def options(kind: Kind, machine: Machine) -> Iterator[tuple[str, str]]:
    """Every `key = value` of the server's sections, in the order in which it reads them. `-` and `_` are one to it."""
    for pattern in kind.settings:
        for path in machine.matching(pattern):
            section = ""
            for row in machine.text(path).splitlines():
                if header := re.match(r"\s*\[([^\]]+)\]", row):
                    section = header[1].strip()
                elif section in kind.sections and (pair := re.match(r"\s*([\w-]+)\s*=\s*([^#]*)", row)):
                    yield pair[1].replace("-", "_"), pair[2].strip().strip("'\"")


def draft(kind: Kind, wishes: Wishes, machine: Machine) -> Draft:
    """The module."""
    server, program = Server.read(kind, machine), machine.program(*kind.programs)
    if not program:
        raise Unfit(f"{kind.title} is not installed here (no {kind.programs[0]}): install it on both nodes first")
    data = wishes.directories[0] if wishes.directories else server.data
    own = data == server.data
    user, port = wishes.setting("user", USER), wishes.setting("listen", server.port)
    more = [(path, "") for path in wishes.directories[1:]]
    more += [(path, f"its {key}") for path, key in server.elsewhere if own and path not in wishes.directories]
    directories = [Directory(data, ("ibdata1",), kind.exclude, owner=user, mode="750")]
    directories += [Directory(path, comment=comment, owner=user, mode="750") for path, comment in dict(more).items()]
    unit = machine.first_unit(*kind.units) if own else ""
    patience = (
        Line("stop_timeout", "120s", "large buffers take their time"),
        Line("start_timeout", "300s", "after a failover the log is replayed"),
    )
    notes = [f"Both nodes need the same {kind.title}, and its settings below /etc equal: those are not mirrored."]
    if unit:
        service = unit_service(unit, *patience)
        if wishes.vips and server.listens in LOCAL_ONLY:
            notes.append(f"It listens on {server.listens} only: set bind-address = * in its settings, or clients do not reach it.")
    else:
        service = command(kind, machine, program, data, user, port, patience)
    notes.append("Tables of InnoDB survive a failover as they do a power cut; those of MyISAM may need a repair, as after a power cut.")
    checkers = (tcp_checker(f"127.0.0.1:{port}", "nobody answers: it is started again"),)
    return Draft(kind.title, tuple(directories), (service,), checkers, tuple(notes))


def command(kind: Kind, machine: Machine, program: str, data: str, user: str, port: str, more: tuple[Line, ...]) -> Service:
    """Where no unit of systemd runs this very directory."""
    socket = "/run/mysqld/mysqld.sock" if machine.exists("/run/mysqld") else "/tmp/mysqld.sock"
    words = (program, f"--datadir={data}", "--bind-address=*", f"--port={port}", f"--socket={socket}", f"--pid-file={data}/mysqld.pid")
    admin = machine.program(*kind.admins)
    ready = (Line("ready", (admin, "--no-defaults", f"--socket={socket}", "--connect-timeout=2", "--silent", "ping")),) if admin else ()
    lines = (
        Line("name", program.rpartition("/")[2]),
        Line("user", user),
        Line("start", words, "the service address comes and goes: it listens on all"),
        Line("stop_signal", "TERM"),
    )
    return Service((*lines, *more, *ready))


def found(kind: Kind, machine: Machine) -> str:
    """In a few words."""
    return f"{machine.program(*kind.programs)}, data in {Server.read(kind, machine).data}" if machine.program(*kind.programs) else ""

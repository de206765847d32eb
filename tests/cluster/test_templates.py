"""Each template with the real application: `module add` → the other node gets the file → the first start by one word → write through the
service address → pull the primary's power → the other one serves all of it → it comes back → both trees are equal → `module remove`.

The template `mysql` is not played: Debian has MariaDB's server alone, whose `mysqld` that template refuses. What the two share is played
with MariaDB, what is MySQL's own is in tests/unit/test_templates.py.
"""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import pytest

from orchestrator.lab.cluster import SERVERS, VIP, LabCluster
from orchestrator.lab.errors import LabError
from orchestrator.lab.lab import Lab, prefixed
from orchestrator.modules.machine import Machine

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]

POSTGRES = Machine().program(*Machine().matching("/usr/lib/postgresql/*/bin/postgres")).removesuffix("/postgres")
NGINX_HAS_PUT = (
    shutil.which("nginx") is not None and "http_dav_module" in subprocess.run(["nginx", "-V"], capture_output=True, text=True).stderr
)
CALL = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 3) as stream:
    stream.settimeout(5)
    stream.sendall(sys.argv[3].encode() + b"\\n")
    assert stream.makefile().readline() == f"ok {sys.argv[3]}\\n"
"""
HTTP = """
import sys, urllib.request
body = sys.argv[3].encode() if len(sys.argv) > 3 else None
request = urllib.request.Request(sys.argv[2], body, method="GET" if body is None else "PUT")
print(urllib.request.urlopen(request, timeout=5).read().decode())
"""
NGINX_SETTINGS = """
user root;
error_log stderr;
pid /srv/www/nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path /srv/www/incoming;
    server { listen 80; root /srv/www/files; autoindex on; location / { dav_methods PUT; } }
}
"""


class Stage(LabCluster):
    """Two paired nodes, and one module at a time that a template makes."""

    def add(self, *words: str) -> str:
        """`hactl module add` on node1, and what it says comes next; what it said."""
        said = self.lab.run("node1", ["hactl", "module", "add", *words, "--name", self.module])
        assert "hactl config apply" in said.stdout
        self.apply()
        return said.stdout + said.stderr

    def start_by_one_word(self) -> None:
        """The first start as a script does it."""
        self.lab.run("node1", ["hactl", "start", self.module, "--data-from", "node1", "--wait"], timeout_s=120)
        self.wait_redundant("node1")

    def start_on_a_terminal(self) -> None:
        """The first start as a person at a terminal sees it, who says that node1 has the data."""
        self.command("node2", "start")
        self.until(lambda: "FIRST_START" in self.warned("node2"), "nobody is told that something is to be said", 10)
        for words in (("hactl", "start", self.module), ("hactl", "start", self.module, "--yes")):
            refused = self.lab.run("node1", words, check=False)
            assert refused.returncode == 6 and f"'hactl start {self.module} --data-from node1'" in refused.stderr, refused.stderr
        wrong = self.lab.run("node1", ["hactl", "start", self.module, "--data-from", "client"], check=False)
        assert (wrong.returncode, "runs on node1 and node2" in wrong.stderr) == (2, True)
        shown = self.converse("node1", ["hactl", "start", self.module, "--wait"], ("Which node has the data?", "node1"), ("Go on?", "y"))
        assert "No node is known to have the data" in shown and "kept/ first" in shown
        assert [line.split()[:4] for line in shown.splitlines() if " node2 " in line and "B" in line][0] == ["node2", "7", "B", "1"]
        self.wait_redundant("node1")

    def warned(self, node: str) -> set[str]:
        """The codes of the warnings."""
        return {warning["code"] for warning in (self.status(node) or {"warnings": []})["warnings"]}

    def converse(self, node: str, command: Sequence[str], *answers: tuple[str, str]) -> str:
        """Run a command on a terminal of its own; each question is waited for and answered. What was shown, when it ended with 0."""
        ours, theirs = pty.openpty()
        words = self.lab.command(node, command)
        with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
            os.close(theirs)
            shown = b""
            waiting = list(answers)
            with suppress(OSError):  # the end of the other side
                while data := os.read(ours, 4096):
                    shown += data
                    if waiting and waiting[0][0].encode() in shown:
                        os.write(ours, f"{waiting.pop(0)[1]}\n".encode())
        os.close(ours)
        text = shown.decode().replace("\r\n", "\n")
        assert process.returncode == 0 and not waiting, text
        return text

    def survive(
        self,
        write: Callable[[str], object],
        read: Callable[[], set[str]],
        start: Callable[[], object] | None = None,
        at_last: Callable[[], object] | None = None,
    ) -> None:
        """From the first start to the end of the module."""
        (start or self.start_by_one_word)()
        told = [str(number) for number in range(1, 6)]
        self.until(lambda: done(write, told[0]), "nothing can be written through the service address", 20)
        for each in told[1:]:
            write(each)
        self.lab.kill("node1")
        self.wait_state("node2", "ALONE", timeout_s=60)
        self.until(lambda: read() == set(told), f"not all of {told} is there", 20)
        write("6")
        self.boot("node1")
        self.wait_redundant("node2")
        self.compare_trees()
        assert self.lab.run("node2", ["hactl", "module", "remove", self.module], check=False).returncode == 6, "it runs"
        if at_last is not None:
            at_last()
        self.remove()

    def remove(self) -> None:
        """Stop, and take it out of both nodes' configuration: the data stay, as plain directories."""
        self.lab.run("node1", ["hactl", "stop", self.module, "-H", "all"])
        for node in SERVERS:
            self.wait_state(node, "STOP", None)
        kept = self.lab.run("node1", ["hactl", "module", "remove", self.module], check=False)
        assert kept.returncode == 6 and "--forget" in kept.stderr
        for node in SERVERS:  # the second one has its TOML no more
            said = self.lab.run(node, ["hactl", "module", "remove", "--forget", self.module]).stdout
            assert all(f"stays:   {directory}" in said for directory in self.directories)
            self.lab.run(node, ["touch", f"{self.directories[0]}/plain-again"])
            if node == SERVERS[0]:
                self.apply()

    def restore(self) -> None:
        """Both nodes' data are lost: as the guide says, with node2 as the one that gets the backup."""
        self.lab.run("node1", ["hactl", "stop", self.module, "-H", "all"])
        for node in SERVERS:
            self.wait_state(node, "STOP", None)
        for node in SERVERS:
            self.lab.run(node, ["hactl", "module", "remove", self.module, "--forget-only"])
        for node in SERVERS:
            self.kill_daemon(node)
            self.start_daemon(node)
        self.lab.run("node2", ["touch", f"{self.directories[0]}/restored"])
        self.lab.run("node1", ["hactl", "start", self.module, "--data-from", "node2", "--wait"], timeout_s=40)
        self.wait_redundant("node2")
        self.compare_trees()


def done(write: Callable[[str], object], value: str) -> bool:
    """Was it written?"""
    try:
        write(value)
    except LabError:
        return False
    return True


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two nodes of one cluster without a module."""
    with Lab(prefixed("templates"), disk_size_bytes=1 << 30) as lab:
        cluster = LabCluster(lab, "", "", ["/srv"], name="templates")
        cluster.configure()
        for node in SERVERS:
            cluster.start_daemon(node)
        yield lab


@pytest.fixture
def stage(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """For the module that the test is about; whatever became of it, the next one finds none."""
    name, directories = request.param
    stage = Stage(lab, name, "", directories)
    for node in SERVERS:
        lab.run(node, ["mkdir", "-p", "/etc/lockstep/modules", *directories])
    yield stage
    for row in lab.status()["nodes"]:
        if row["power"] == "off":
            stage.boot(row["node"])
    for node in SERVERS:
        lab.run(node, ["sh", "-c", "rm -rf /etc/lockstep/modules/*"])


def module_of(name: str, *directories: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("stage", [(name, list(directories))], indirect=True, ids=[name])


@pytest.mark.skipif(not POSTGRES, reason="PostgreSQL is not installed (script/bootstrap --with-postgresql)")
@module_of("pg", "/srv/pg/data", "/srv/pg/wal")
def test_postgresql(stage: Stage) -> None:
    place = ["install", "-d", "-o", "postgres", "-g", "postgres", "-m", "700", *stage.directories]
    for node in SERVERS:
        stage.lab.run(node, place)
    initdb = f"{POSTGRES}/initdb -D /srv/pg/data --waldir=/srv/pg/wal --auth=trust --no-sync --no-locale -E UTF8"
    stage.lab.run("node1", ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *shlex.split(initdb)])
    stage.lab.run("node1", ["sh", "-c", "echo 'host all all 10.77.0.0/24 trust' >> /srv/pg/data/pg_hba.conf"])
    stage.add("postgresql", "--vip", f"{VIP}/24", "--dir", "/srv/pg/data")
    directories = stage.lab.run("node1", ["hactl", "module", "show", "pg"]).stdout
    assert "/srv/pg/wal" in directories, "where the write-ahead log lies is found out"

    def sql(statement: str) -> str:
        words = ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", statement, f"host={VIP} user=postgres dbname=postgres connect_timeout=2"]
        return stage.lab.run("client", words).stdout

    def write(value: str) -> None:
        sql(f"CREATE TABLE IF NOT EXISTS t (n text PRIMARY KEY); INSERT INTO t VALUES ('{value}') ON CONFLICT DO NOTHING")

    stage.survive(write, lambda: set(sql("SELECT n FROM t").split()))


@pytest.mark.skipif(shutil.which("mariadbd") is None, reason="MariaDB is not installed (mariadb-server)")
@module_of("db", "/srv/mysql")
def test_mariadb(stage: Stage) -> None:
    for node in SERVERS:
        stage.lab.run(node, ["install", "-d", "-o", "mysql", "-g", "mysql", "-m", "750", "/srv/mysql"])
        stage.lab.run(node, ["install", "-d", "-o", "mysql", "/run/mysqld"])
    make = "mariadb-install-db --no-defaults --user=mysql --datadir=/srv/mysql --auth-root-authentication-method=normal --skip-test-db"
    stage.lab.run("node1", shlex.split(make), timeout_s=90)
    stage.add("mariadb", "--vip", f"{VIP}/24", "--dir", "/srv/mysql")
    grant = "CREATE USER IF NOT EXISTS app@'%' IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO app@'%'; CREATE DATABASE IF NOT EXISTS shop"

    def sql(statement: str) -> str:
        words = [
            "mariadb",
            "--no-defaults",
            f"--host={VIP}",
            "--user=app",
            "--password=secret",
            "--connect-timeout=2",
            "-N",
            "-B",
            "-e",
            statement,
        ]
        return stage.lab.run("client", words).stdout

    def write(value: str) -> None:
        if value == "1":
            stage.lab.run("node1", ["mariadb", "--no-defaults", "--socket=/run/mysqld/mysqld.sock", "-e", grant])
        sql(f"CREATE TABLE IF NOT EXISTS shop.t (n VARCHAR(9) PRIMARY KEY); REPLACE INTO shop.t VALUES ('{value}')")

    stage.survive(write, lambda: set(sql("SELECT n FROM shop.t").split()))


@pytest.mark.skipif(not NGINX_HAS_PUT, reason="nginx with its DAV module is not installed (nginx)")
@module_of("web", "/srv/www")
def test_nginx(stage: Stage) -> None:
    stage.lab.run("node1", ["mkdir", "-p", "/srv/www/files", "/srv/www/incoming"])
    stage.put("node1", "/srv/www/nginx.conf", NGINX_SETTINGS)
    stage.add("nginx", "--vip", f"{VIP}/24", "--dir", "/srv/www", "--set", "conf=/srv/www/nginx.conf")

    def http(*words: str) -> str:
        return stage.lab.run("client", [sys.executable, "-c", HTTP, *words]).stdout.strip()

    def there(number: int) -> bool:
        try:
            return http("GET", f"http://{VIP}/{number}") == f"page {number}"
        except LabError:
            return False

    stage.survive(
        lambda value: http("PUT", f"http://{VIP}/{value}", f"page {value}"),
        lambda: {str(number) for number in range(1, 8) if there(number)},
    )


@module_of("taken", "/srv/taken")
def test_what_to_know_before_it_starts(stage: Stage) -> None:
    """An address that somebody has, one of this machine's own, and a directory that somebody works in."""

    def told(address: str) -> str:
        words = ["generic", "--name", "taken", "--vip", f"{address}/24", "--dir", "/srv/taken", "--dry-run"]
        return stage.lab.run("node1", ["hactl", "module", "add", *words], check=False).stderr

    assert "the service address is in use by another machine (10.77.0.20: " in told("10.77.0.20")
    assert "203.0.113.0/24 holds no address of both nodes" in told("203.0.113.9")
    free = told(VIP)
    assert "in use" not in free and "not written (--dry-run)" in free
    stage.lab.spawn("node1", ["sh", "-c", "cd /srv/taken && exec sleep 1000"])
    stage.until(lambda: "/srv/taken is in use by sleep (pid " in told(VIP), "nobody is told who works in it", 10)
    stage.lab.run("node1", ["pkill", "-x", "sleep"])
    listed = stage.lab.run("node1", ["ls", "/etc/lockstep/modules"]).stdout
    assert listed == "", "a dry run writes nothing"


@module_of("erp", "/srv/erp")
def test_a_list_of_two_services(stage: Stage) -> None:
    serve = f"{sys.executable} -m orchestrator.lab.ledger serve"
    said = stage.add(
        *("generic", "--vip", f"{VIP}/24", "--dir", "/srv/erp"),
        *("--service", f"{serve} /srv/erp/one 7001", "--service", f"{serve} /srv/erp/two 7002"),
    )
    assert "next:" in said and "hactl start erp" in said
    stage.lab.run("node1", ["touch", "/srv/erp/one"])
    stage.lab.run("node2", ["sh", "-c", "echo of old > /srv/erp/of-node2"])

    def write(value: str) -> None:
        for port in ("7001", "7002"):
            stage.lab.run("client", [sys.executable, "-c", CALL, VIP, port, value])

    def read() -> set[str]:
        one, two = (set(stage.lab.run("node2", ["cat", f"/srv/erp/{name}"]).stdout.split()) for name in ("one", "two"))
        return one & two

    stage.survive(write, read, stage.start_on_a_terminal, stage.restore)
    kept = stage.lab.run("node2", ["sh", "-c", "cat /var/lib/lockstep/removed/erp-*/kept/*/0/of-node2"]).stdout
    assert kept == "of old\n", "what was on the node that follows is moved, not removed"


@module_of("agents")
def test_light(stage: Stage) -> None:
    said = stage.add("light", "--service", "/usr/bin/sleep 100000", "--service", "/usr/bin/tail -f /dev/null")
    assert "hactl start agents -H all" in said
    stage.lab.run("node1", ["hactl", "start", "agents", "-H", "all"])
    for node in SERVERS:
        stage.wait_state(node, "UP")
    stage.lab.run("node1", ["pkill", "-9", "-x", "tail"])
    stage.until(lambda: stage.row("node1")["readiness"] != "Ready", "its death is not noticed", 10)
    stage.wait_state("node1", "UP")
    stage.lab.run("node1", ["hactl", "stop", "agents", "-H", "all"])
    for node in SERVERS:
        stage.wait_state(node, "STOP", None)
    removed = stage.lab.run("node1", ["hactl", "module", "remove", "agents"]).stdout
    assert removed.startswith("removed: /etc/lockstep/modules/agents.toml")

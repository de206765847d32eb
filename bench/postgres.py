"""PostgreSQL on a directory, measured by pgbench; and its own synchronous streaming replication, on native directories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.bed import REPLICATION, Bed
from bench.subject import NATIVE, Subject

BIN = Path("/usr/lib/postgresql/15/bin")
OPTIONS = "-c unix_socket_directories=/tmp -c shared_buffers=64MB"
SCALE = 10
COMMAND_TIMEOUT_S = 300.0
# A standby that starts reads these; they are what makes the primary's commits wait for its disk.
SYNCHRONOUS = f"{OPTIONS} -c listen_addresses=* -c synchronous_commit=on -c synchronous_standby_names=*"

SYNC = Subject("pg_sync", NATIVE.directory + "-sync")


@dataclass(frozen=True)
class Database:
    """One cluster of files below a subject's directory; running only while it is measured."""

    bed: Bed
    subject: Subject

    @property
    def data(self) -> str:
        """PGDATA, the same path on both nodes."""
        return f"{self.subject.directory}/pg"

    @property
    def replicated(self) -> bool:
        """Whether a standby follows it."""
        return self.subject == SYNC

    def run(self, *command: str, node: str = "node1") -> str:
        """As Debian's user."""
        words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
        return self.bed.lab.run(node, words, timeout_s=COMMAND_TIMEOUT_S).stdout

    def tool(self, program: str, *words: str, node: str = "node1") -> str:
        """One of PostgreSQL's."""
        return self.run(str(BIN / program), *words, node=node)

    def control(self, verb: str, *words: str, node: str = "node1") -> None:
        """pg_ctl."""
        self.tool("pg_ctl", "-D", self.data, "-w", "-t", str(int(COMMAND_TIMEOUT_S)), "-l", "/tmp/pg.log", *words, verb, node=node)

    def prepare(self) -> None:
        """pgbench's tables, made once; for a standby a copy of them."""
        if self.bed.exists(f"{self.data}/PG_VERSION"):
            return
        self._own("node1")
        self.tool("initdb", "-D", self.data, "--auth=trust", "--no-locale", "-E", "UTF8")
        if self.replicated:
            line = f"host replication all {REPLICATION['node2']}/32 trust"
            self.run("sh", "-c", f'echo "$1" >> {self.data}/pg_hba.conf', "sh", line)
        self.control("start", "-o", f"{OPTIONS} -c listen_addresses={REPLICATION['node1'] if self.replicated else ''}")
        try:
            self.tool("pgbench", "-h", "/tmp", "-i", "-q", "-s", str(SCALE), "postgres")
            if self.replicated:
                self._own("node2")
                self.tool("pg_basebackup", "-h", REPLICATION["node1"], "-D", self.data, "-R", "-c", "fast", node="node2")
        finally:
            self.control("stop", "-m", "fast")

    def _own(self, node: str) -> None:
        self.bed.lab.run(node, ["install", "-d", "-o", "postgres", "-m", "700", self.data])

    def start(self) -> None:
        """The standby after the primary, which it asks for its log."""
        self.control("start", "-o", SYNCHRONOUS if self.replicated else f"{OPTIONS} -c listen_addresses=")
        if self.replicated:
            self.control("start", "-o", f"{OPTIONS} -c listen_addresses=", node="node2")

    def stop(self) -> None:
        """The primary first: it sends its last log before it ends."""
        for node in ("node1", "node2") if self.replicated else ("node1",):
            self.control("stop", "-m", "fast", node=node)

    def tps(self, clients: int, duration_s: int) -> float:
        """pgbench's own script."""
        self.prepare()
        self.start()
        try:
            return self.pgbench(clients, duration_s)
        finally:
            self.stop()

    def pgbench(self, clients: int, duration_s: int) -> float:
        """The same of one that runs already."""
        said = self.tool("pgbench", "-h", "/tmp", "-n", "-c", str(clients), "-T", str(duration_s), "postgres")
        return float(next(line for line in said.splitlines() if line.startswith("tps")).split()[2])

"""Our mirror: pairs of rfsmount on the two nodes."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import Any

from bench.bed import NODES, REPLICATION, Bed
from bench.subject import Process, Subject

PAIR_TIMEOUT_S = 600.0
STATES = "/var/lib/lockstep"


@dataclass(frozen=True)
class Mirror:
    """One mirrored directory."""

    bed: Bed
    column: str
    port: int
    secure: bool

    @property
    def directory(self) -> str:
        """The same path on both nodes."""
        return f"/srv/{self.column}"

    @property
    def state(self) -> str:
        """Its state directory."""
        return f"{STATES}/bench-{self.column}"

    @property
    def subject(self) -> Subject:
        """As a column."""
        return Subject(self.column, self.directory, self.processes)

    def processes(self) -> list[Process]:
        """rfsmount on both nodes, the primary's first."""
        return [self.bed.pid_in(node, f"{self.state}/rfsmount.pid") for node in NODES]

    def pair(self) -> float:
        """Two fresh nodes, two commands: how long it took, in seconds."""
        began = time.monotonic()
        read_end, write_end = os.pipe()
        with open(read_end) as shown:
            with open(write_end, "wb") as said:
                command = ["rfsmount", "keys", "init", "--state", self.state, "--listen", REPLICATION["node1"]]
                waiting = self.bed.lab.spawn("node1", command, log=said)
            invitation = next(line.split()[3] for line in shown if "rfsmount keys join" in line)
            self.bed.lab.run("node2", ["rfsmount", "keys", "join", "-", "--state", self.state], input=invitation + "\n")
            if waiting.wait(10) != 0:
                raise SystemExit(f"bench: the nodes do not pair: {shown.read()}")
        return time.monotonic() - began

    def mount(self) -> None:
        """On both nodes, and in sync."""
        for node, peer, role in (("node1", "node2", "primary"), ("node2", "node1", "secondary")):
            self.bed.make_directory(node, self.directory)
            command = ["rfsmount", "mount", self.directory, "--state", self.state, "--role", role]
            command += ["--listen", f"{REPLICATION[node]}:{self.port}", "--peer", f"{REPLICATION[peer]}:{self.port}"]
            command += ["--module", "bench", "--cluster", "bench", "--timeout", "20"]
            self.bed.lab.run(node, command if self.secure else [*command, "--insecure"])
        deadline = time.monotonic() + PAIR_TIMEOUT_S
        while (status := self.status())["link"] != "paired":
            if time.monotonic() > deadline:
                raise SystemExit("bench: the mirror does not pair: " + status["reason"])
            time.sleep(0.1)

    def status(self) -> dict[str, Any]:
        """rfsmount.status/1 of the primary."""
        return dict(json.loads(self.bed.lab.run("node1", ["rfsmount", "status", "--state", self.state, "--json"]).stdout))

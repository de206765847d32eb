"""A mirror that loses its link, its processes and its machines, and what its return costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.bed import NODES, REPLICATION
from bench.mirror import Mirror
from orchestrator.lab.errors import LabError
from rfs.control.blocking import BlockingClient
from rfs.errors import SaidNo

LOOK_S, LOOK_SHARE = 0.005, 0.02  # how often it is looked: each look takes processor time from what is measured
LONG_S = 900.0


@dataclass(frozen=True)
class Spent:
    """What both rfsmounts have read from files, by node, and what has passed the cable of node1, in bytes."""

    read: tuple[int, int]
    wire: int

    def since(self, before: Spent) -> Spent:
        """The difference."""
        return Spent((self.read[0] - before.read[0], self.read[1] - before.read[1]), self.wire - before.wire)


@dataclass(frozen=True)
class Pair(Mirror):
    """One mirrored directory whose nodes come and go."""

    checkpoint_s: float = 1.0
    program: tuple[str, ...] = ("rfsmount",)

    def start(self, node: str, role: str) -> None:
        """rfsmount on one node; returns when it serves, follows, or waits for its peer."""
        other = NODES[1 - NODES.index(node)]
        self.bed.make_directory(node, self.directory)
        words = [*self.program, "mount", self.directory, "--state", self.state, "--role", role, "--timeout", "600"]
        words += ["--listen", f"{REPLICATION[node]}:{self.port}", "--peer", f"{REPLICATION[other]}:{self.port}", "--node", node]
        words += ["--module", self.column, "--cluster", "bench", "--link-timeout", "0.5", "--checkpoint", f"{self.checkpoint_s:g}"]
        self.bed.lab.run(node, words if self.secure else [*words, "--insecure"], timeout_s=LONG_S)

    def mount(self) -> None:
        """On both nodes, in sync, and nothing marked."""
        self.start("node1", "primary")
        self.start("node2", "secondary")
        self.settle()

    def stop(self, node: str) -> None:
        """In order; when it has ended, the guards are gone with it."""
        process = self.bed.pid_in(node, f"{self.state}/rfsmount.pid")
        self.bed.lab.run(node, ["rfsmount", "unmount", "--state", self.state], timeout_s=LONG_S)
        self._await_end(*process)

    def kill(self, node: str) -> None:
        """kill -9 of rfsmount."""
        process = self.bed.pid_in(node, f"{self.state}/rfsmount.pid")
        self.bed.lab.run(node, ["kill", "-9", str(process[1])])
        self._await_end(*process)

    def _await_end(self, node: str, pid: int) -> None:
        self.bed.lab.run(node, ["sh", "-c", 'while kill -0 "$0" 2>/dev/null; do sleep 0.01; done', str(pid)])

    def cut(self) -> None:
        """The cable, silently; node1 goes on alone."""
        self.bed.lab.cut("node2", "repl")
        self.until(lambda: self.ask("node1", "status")["mode"] in ("alone", "unused") and self.ask("node2", "status")["link"] != "paired")

    def heal(self) -> None:
        """The cable is whole."""
        self.bed.lab.heal("node2")

    # ---- asking ---------------------------------------------------------------------------------------------------------------

    def ask(self, node: str, method: str) -> dict[str, Any]:
        """Over the control socket, without a process for each question."""
        with BlockingClient(str(self.bed.lab.path(node, self.state))) as client:
            return client.call(method)

    def until(self, test: Callable[[], bool], timeout_s: float = LONG_S) -> float:
        """The moment at which it was so, to a fiftieth of the time that it took."""
        began = time.monotonic()
        while True:
            last = "it answers, and it is not so"
            try:
                if test():
                    return time.monotonic()
            except (SaidNo, LabError, OSError) as failure:
                last = str(failure)
            passed_s = time.monotonic() - began
            if passed_s > timeout_s:
                raise LabError(f"{self.column} does not come so far: {last}")
            time.sleep(max(LOOK_S, LOOK_SHARE * passed_s))

    def until_paired(self, primary: str = "node1") -> float:
        """Both are in sync."""
        return self.until(lambda: all(self.ask(node, "status")["link"] == "paired" for node in (primary, *NODES)))

    def settle(self, primary: str = "node1") -> None:
        """In sync, a checkpoint is made, nothing is marked, and what was copied is not being written to the disks any more."""
        self.until_paired(primary)
        self.until(lambda: all(self._is_unmarked(node) for node in NODES))
        for node in NODES:
            self.bed.lab.run(node, ["sync", "-f", "/srv"], timeout_s=LONG_S)

    def _is_unmarked(self, node: str) -> bool:
        found = self.ask(node, "stats")
        return bool(not found["marked_places"] and not found["marked_everything"])

    def spent(self) -> Spent:
        """Up to now, by processes that run now."""
        read = [self._read_bytes(*process) for process in self.processes()]
        return Spent((read[0], read[1]), self.wire_bytes())

    def _read_bytes(self, node: str, pid: int) -> int:
        text = self.bed.lab.path(node, f"/proc/{pid}/io").read_text()
        return int(text.partition("rchar:")[2].split()[0])

    def wire_bytes(self) -> int:
        """What has passed the cable of node1, all of it."""
        lines = self.bed.lab.path("node1", "/proc/1/net/dev").read_text().splitlines()
        fields = next(line.partition(":")[2].split() for line in lines if line.strip().startswith("repl:"))
        return int(fields[0]) + int(fields[8])

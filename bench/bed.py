"""The test bed: the lab, with the bench's own programs on it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from bench.scale import Scale
from bench.subject import NATIVE, Process
from orchestrator.lab.lab import Lab

HERE = Path(__file__).resolve().parent
NODES = ("node1", "node2")
REPLICATION = {"node1": "10.77.1.11", "node2": "10.77.1.12"}
DISK_SIZE_BYTES = 32 << 30  # sparse; ext4 makes an inode for every 16 KiB, and a million are wanted on top of the rest
WORKLOAD_TIMEOUT_S = 900.0
PROGRAMS = ("floor", "workload")


class Bed:
    """Runs things on nodes and asks /proc about them."""

    def __init__(self, lab: Lab, scale: Scale) -> None:
        self.lab, self.scale = lab, scale

    def set_up(self) -> None:
        """Programs, nodes, the native directory."""
        for program in PROGRAMS:
            subprocess.run(["gcc", "-O2", "-D_GNU_SOURCE", "-o", HERE / program, HERE / f"{program}.c"], check=True)
        self.lab.up()
        for node in NODES:
            self.make_directory(node, NATIVE.directory)

    def make_directory(self, node: str, *paths: str) -> None:
        """With its parents."""
        self.lab.run(node, ["mkdir", "-p", *paths])

    def workload(self, name: str, directory: str, *words: int | str, node: str = "node1") -> list[float]:
        """One repetition of one of workload.c's."""
        said = self.lab.run(node, self._words(name, directory, words), timeout_s=WORKLOAD_TIMEOUT_S).stdout
        return [float(word) for word in said.split()]

    def start_workload(self, name: str, directory: str, *words: int | str, node: str) -> subprocess.Popen[bytes]:
        """The same beside another one; ends by itself, or with `kill_group`."""
        return self.lab.spawn(node, self._words(name, directory, words))

    @staticmethod
    def _words(name: str, directory: str, words: Iterable[int | str]) -> list[str]:
        return [str(HERE / "workload"), name, directory, *map(str, words)]

    def archive(self, files: int) -> str:
        """A tar of so many small files, in node1's memory."""
        path = f"/tmp/bench-{files}.tar"
        if not self.exists(path):
            self.lab.run("node1", [sys.executable, str(HERE / "archive.py"), path, str(files)], timeout_s=WORKLOAD_TIMEOUT_S)
        return path

    def exists(self, path: str, node: str = "node1") -> bool:
        """Whether the node has it."""
        return self.lab.run(node, ["test", "-e", path], check=False).returncode == 0

    def remove(self, path: str) -> None:
        """A tree on node1; not measured."""
        self.lab.run("node1", ["rm", "-rf", path], timeout_s=WORKLOAD_TIMEOUT_S)

    # ---- what /proc knows -----------------------------------------------------------------------------------------------------

    def pid_in(self, node: str, path: str) -> Process:
        """The process whose id is in a file."""
        return node, int(self.lab.path(node, path).read_text())

    def named(self, prefix: str) -> list[Process]:
        """Every process of both nodes whose program is called so."""
        found = []
        for node in NODES:
            for entry in self.lab.path(node, "/proc").iterdir():
                if entry.name.isdigit() and self._program(entry).startswith(prefix):
                    found.append((node, int(entry.name)))
        return found

    @staticmethod
    def _program(entry: Path) -> str:
        try:
            return os.path.basename((entry / "cmdline").read_bytes().partition(b"\0")[0]).decode()
        except OSError:  # it ended meanwhile
            return ""

    def cpu_s(self, processes: Iterable[Process]) -> float:
        """Seconds of processor time that they have had, in user mode and in the kernel."""
        ticks = 0
        for node, pid in processes:
            fields = self.lab.path(node, f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self, process: Process) -> int:
        """Its memory."""
        node, pid = process
        text = self.lab.path(node, f"/proc/{pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) * 1024

    def descriptors(self, process: Process) -> tuple[int, int]:
        """How many it has open, and how many it may have."""
        node, pid = process
        limits = self.lab.path(node, f"/proc/{pid}/limits").read_text()
        return len(os.listdir(self.lab.path(node, f"/proc/{pid}/fd"))), int(limits.partition("Max open files")[2].split()[0])

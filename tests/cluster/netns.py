"""Cases that need a machine of their own: a function of `vip_cases.py` or `checker_cases.py`, run in a network namespace with another one
beside it.

The namespaces have no names, so that several checkouts can be tested on one machine; they go with their processes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
CASE_TIMEOUT_S = 60


def run_case(name: str, module: str = "tests.cluster.vip_cases") -> None:
    """In a namespace of its own; fails with what the case said."""
    command = ["unshare", "--net", sys.executable, "-m", module, name]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CASE_TIMEOUT_S, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def ip(*words: str) -> str:
    """ip(8), here."""
    return subprocess.run(["ip", *" ".join(words).split()], check=True, capture_output=True, text=True).stdout


class Outside:
    """Another machine on the wire: its own namespace, `right` in it and `left` here, both with addresses of both families."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.enter = ["nsenter", f"--target={pid}", "--net"]

    def ip(self, *words: str) -> str:
        """ip(8), there."""
        command = [*self.enter, "ip", *" ".join(words).split()]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def cable(self, here: str, there: str, subnet4: str, subnet6: str) -> None:
        """A cable between the two, with .1 and ::1 here, .2 and ::2 there."""
        ip(f"link add {here} type veth peer name {there} netns {self.pid}")
        for run, name, number in ((ip, here, 1), (self.ip, there, 2)):
            run(f"addr add {subnet4}.{number}/24 dev {name}")
            run(f"link set {name} up")
            run(f"-6 addr add {subnet6}::{number}/64 dev {name} nodad")

    @contextmanager
    def python(self, script: str) -> Iterator[subprocess.Popen[str]]:
        """A script there, until the end of the block; its output can be read."""
        words = [*self.enter, sys.executable, "-u", "-c", script]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()


@contextmanager
def outside() -> Iterator[Outside]:
    """The other machine, with one cable."""
    ip("link set lo up")
    waits = ["unshare", "--net", "sh", "-c", "ip link set lo up; echo ready; exec sleep 600"]
    with subprocess.Popen(waits, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            other = Outside(process.pid)
            other.cable("left", "right", "10.9.0", "fd77")
            yield other
        finally:
            process.kill()


def mac_of(interface_listing: str) -> bytes:
    """From `ip link show`."""
    return bytes.fromhex(interface_listing.partition("link/ether ")[2].split()[0].replace(":", ""))

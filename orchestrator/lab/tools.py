"""Running the system's own tools, and looking at processes through /proc."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from orchestrator.lab.errors import LabError

TOOL_TIMEOUT_S = 30.0
POLL_INTERVAL_S = 0.01


def tool(*command: str, check: bool = True) -> str:
    """Run a tool to its end; its complaint becomes ours."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise LabError(f"{command[0]} is missing on this machine; script/bootstrap installs what the lab needs.") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(command)} did not end within {TOOL_TIMEOUT_S:.0f} s.") from None
    if check and done.returncode != 0:
        complaint = done.stderr.strip().splitlines()
        raise LabError(f"{' '.join(command)} failed: {complaint[-1] if complaint else f'exit code {done.returncode}'}.")
    return done.stdout


def wait_until(ready: Callable[[], bool], timeout_s: float) -> bool:
    """Poll what the kernel offers no event for; False when it did not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_INTERVAL_S)
    return True


def process_ids() -> Iterator[int]:
    """Every process of the machine."""
    return (int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit())


def command_line(pid: int) -> Sequence[str]:
    """The words a process was started with; empty when it is gone."""
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
    except OSError:
        return ()


def _status_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name (which may hold spaces)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def parent_of(pid: int) -> int | None:
    """The parent's id."""
    fields = _status_fields(pid)
    return int(fields[1]) if fields else None


def start_ticks(pid: int) -> int | None:
    """When the process started: with the id, its identity for good. None for no process and for a zombie."""
    fields = _status_fields(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def namespaces(pid: int) -> frozenset[str]:
    """The mount, network and PID namespaces a process is in."""
    found = set()
    for kind in ("mnt", "net", "pid"):
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
        except OSError:
            continue
    return frozenset(found)


def processes_inside(wanted: frozenset[str]) -> list[int]:
    """Live processes that are in any of these namespaces: members, and visitors such as a waiting nsenter."""
    return [pid for pid in process_ids() if pid != os.getpid() and wanted & namespaces(pid) and start_ticks(pid) is not None]

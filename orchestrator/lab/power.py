"""A node's power switch: on is a new init in new namespaces, off is its death and that of everything in them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from orchestrator.lab.cgroups import NodeCgroup
from orchestrator.lab.disk import wait_released
from orchestrator.lab.errors import LabError
from orchestrator.lab.state import NodeState
from orchestrator.lab.tools import command_line, namespaces, parent_of, process_ids, processes_inside, start_ticks, wait_until

INIT = Path(__file__).with_name("init.py")
PROJECT = INIT.parents[2]
BOOT_TIMEOUT_S = 20.0
DEATH_TIMEOUT_S = 20.0
FUSE_PATIENCE_S = 3.0
UNSHARE = ("unshare", "--mount", "--propagation", "private", "--uts", "--ipc", "--net", "--pid", "--fork")


def find_inits(lab: str, node: str | None = None) -> list[int]:
    """The processes that are inits of this lab's nodes, known by their command line: also those no state file knows of."""
    wanted = {str(INIT), f"--lab={lab}"} | ({f"--node={node}"} if node is not None else set())
    return [pid for pid in process_ids() if wanted <= set(command_line(pid)) and parent_is_unshare(pid)]


def parent_is_unshare(pid: int) -> bool:
    """The init proper, not the unshare(1) before it whose command line holds the same words."""
    words = command_line(pid)
    return bool(words) and "unshare" not in words[0] and words[0] != "sh"


def power_on(lab: str, node: str, image: Path, log: Path) -> NodeState:
    """Start the node's init and wait until its mounts are made; its network cards are plugged in by the caller."""
    wait_released(image)
    cgroup = NodeCgroup(lab, node)
    cgroup.create()
    command = [*UNSHARE, sys.executable, "-I", "-S", str(INIT), f"--lab={lab}", f"--node={node}", f"--image={image}"]
    command += [f"--keep={path}" for path in dict.fromkeys((str(PROJECT), sys.prefix))]
    with log.open("a") as errors:
        process = subprocess.Popen(
            cgroup.joining(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True, cwd="/"
        )
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], BOOT_TIMEOUT_S)
    word, _, rest = process.stdout.readline().decode().strip().partition(" ") if readable else ("error", "", "it did not answer")
    process.stdout.close()
    if word != "ready":
        process.kill()
        process.wait()
        cgroup.kill()
        said = log.read_text(errors="replace").strip().splitlines() or ["its init ended without a word"]
        raise LabError(f"{node} did not boot: {rest or said[-1]}.")
    init_pid = next(pid for pid in process_ids() if parent_of(pid) == process.pid)
    _UNREAPED.append(process)
    return NodeState(init_pid=init_pid, init_ticks=start_ticks(init_pid), boot_id=rest)


# unshare(1) waits for the init; kept here so that its end is collected by us and nobody warns about it.
_UNREAPED: list[subprocess.Popen[bytes]] = []


def power_off(lab: str, node: str, init_pid: int) -> None:
    """Kill the init, and with it, by the kernel's own rule, every process of the node; then wait until all are gone."""
    inside = namespaces(init_pid)
    with held_open(init_pid):
        _power_off(lab, node, init_pid, inside)


@contextlib.contextmanager
def held_open(pid: int) -> Iterator[None]:
    """The namespaces of a process stay as long as we look for who is in them: the number of one that is gone is given to the next that is
    made, and every `ip -n` of another lab makes one. It was shot for a dead node's process."""
    descriptors = []
    for kind in ("mnt", "net", "pid"):
        with contextlib.suppress(OSError):
            descriptors.append(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY))
    try:
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _power_off(lab: str, node: str, init_pid: int, inside: frozenset[str]) -> None:
    connections = fuse_connections(init_pid)
    cgroup = NodeCgroup(lab, node)
    _kill(init_pid)
    cgroup.kill()

    def gone() -> bool:
        for pid in processes_inside(inside):
            _kill(pid)  # visitors too: an nsenter that waits for its command holds the node's mounts
        return not processes_inside(inside) and start_ticks(init_pid) is None

    # A process that waits for an answer of a dead FUSE daemon cannot die; normally the last close of /dev/fuse frees it.
    if inside and not wait_until(gone, FUSE_PATIENCE_S):
        abort_fuse(connections)
        if not wait_until(gone, DEATH_TIMEOUT_S):
            raise LabError(f"{node} does not die: process {processes_inside(inside)[:1]} is stuck in the kernel.")
    for process in _UNREAPED:
        process.poll()
    _UNREAPED[:] = [process for process in _UNREAPED if process.returncode is None]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def fuse_connections(pid: int) -> list[int]:
    """The FUSE connections mounted where this process is, by the minor device number that names them in fusectl."""
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    except OSError:
        return []
    found = []
    for words in (line.split() for line in lines):
        kind, (major, _, minor) = words[words.index("-") + 1], words[2].partition(":")
        if kind.startswith("fuse") and major == "0":
            found.append(int(minor))
    return found


def abort_fuse(connections: list[int]) -> None:
    """Abort them, through a fusectl mounted for the purpose where none can be seen."""
    control = "/sys/fs/fuse/connections"
    for number in connections:
        script = f"mountpoint -q {control} || mount -t fusectl fusectl {control}; echo 1 > {control}/{number}/abort"
        subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, timeout=5.0, check=False)

"""The node's cgroup, where this machine offers one: everything in it can be frozen, or killed, in one stroke.

Only the unified hierarchy's own files are used (`cgroup.freeze`, `cgroup.kill`); they need no controller. Where it is
missing or read-only, as in most containers, signals to each process do instead: not in one stroke, but nearly.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator.lab.tools import wait_until

FREEZE_TIMEOUT_S = 1.0


def unified_root() -> Path | None:
    """Where the unified hierarchy is mounted and can be written."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(target)
    return None


class NodeCgroup:
    """One node's cgroup, or the lack of one."""

    def __init__(self, lab: str, node: str) -> None:
        root = unified_root()
        self.path = root / f"lockstep-lab-{lab}" / node if root is not None else None

    def create(self) -> None:
        """Make it, or make it fit for use again; a machine that does not let us have one is served with signals instead."""
        if self.path is None:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "cgroup.freeze").write_text("0")  # a node killed while frozen would be frozen at its next boot
        except OSError:
            self.path = None

    def usable(self) -> bool:
        """Whether processes can be put into it."""
        return self.path is not None and (self.path / "cgroup.freeze").exists()

    def joining(self, command: list[str]) -> list[str]:
        """The command, started inside the cgroup: joined before the first fork, nothing can slip out."""
        if not self.usable():
            return command
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', f"{self.path}/cgroup.procs", *command]

    def freeze(self, members: Iterable[int]) -> None:
        """Stop every process; a process deep in a kernel wait is as good as stopped and is not waited for long."""
        if not self.usable():
            _signal_all(members, signal.SIGSTOP)
            return
        assert self.path is not None
        (self.path / "cgroup.freeze").write_text("1")
        events = self.path / "cgroup.events"
        wait_until(lambda: "frozen 1" in events.read_text(), FREEZE_TIMEOUT_S)

    def thaw(self, members: Iterable[int]) -> None:
        """Let them go on."""
        if not self.usable():
            _signal_all(members, signal.SIGCONT)
            return
        assert self.path is not None
        (self.path / "cgroup.freeze").write_text("0")

    def kill(self) -> None:
        """SIGKILL to all that is in it, frozen or not."""
        if self.path is not None and (self.path / "cgroup.kill").exists():
            (self.path / "cgroup.kill").write_text("1")

    def remove(self) -> None:
        """Remove the empty cgroup with those that the node made in it, and the lab's when this was the last."""
        if self.path is None:
            return
        for directory, _, _ in os.walk(self.path, topdown=False):
            if Path(directory) != self.path:
                wait_until(_removes(Path(directory)), FREEZE_TIMEOUT_S)
        for path in (self.path, self.path.parent):
            if path.exists():
                wait_until(_removes(path), FREEZE_TIMEOUT_S)


def _removes(path: Path) -> Callable[[], bool]:
    def attempt() -> bool:
        try:
            path.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return any(child.is_dir() for child in path.iterdir())  # another node's is still in it: not ours to wait for
        return True

    return attempt


def _signal_all(members: Iterable[int], number: signal.Signals) -> None:
    for pid in members:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue

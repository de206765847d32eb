"""A cgroup for each service: whatever descends from it, in whatever session, is frozen and killed in one stroke.

Only the unified hierarchy's own files are used (`cgroup.freeze`, `cgroup.kill`, `cgroup.procs`); they need no controller. The groups
lie below hactld's own, which systemd delegates to it (`Delegate=yes`): nobody else's part of the tree is touched. They outlive hactld,
and where they are is noted beside the service's pid, because a hactld that is started anew may be in another place. Each start has
a group of a new name. Where the hierarchy is missing or read-only, as in most containers, there is none, and `processes.py` has the
other ways.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from rfs.mount_table import lines_of, read_mountinfo, unescape

FREEZE_PATIENCE_S = 1.0  # a process deep in a kernel wait is as good as frozen
LOOK_EVERY_S = 0.01
PARENT = "lockstep"


def own_groups(mountinfo: str, own: str) -> list[Path]:
    """The directories that our own group may have, from the texts of /proc/self/mountinfo and /proc/self/cgroup. Of several, some may
    be hidden under mounts that came later."""
    inside = next((line[3:] for line in lines_of(own) if line.startswith("0::")), None)
    if inside is None or inside.startswith("/.."):
        return []
    found = []
    for line in lines_of(mountinfo):
        fields = line.split(" ")
        kind = fields[fields.index("-") + 1]
        root = unescape(fields[3])
        if kind != "cgroup2" or "rw" not in fields[5].split(",") or not (inside + "/").startswith(root.rstrip("/") + "/"):
            continue
        found.append(Path(unescape(fields[4])) / inside.removeprefix(root.rstrip("/")).lstrip("/"))
    return found


def find_place() -> Path | None:
    """Where groups of ours may be made: below the group in which this process really is."""
    try:
        mountinfo, own = read_mountinfo(), Path("/proc/self/cgroup").read_text(errors="surrogateescape")
    except OSError:
        return None
    for group in own_groups(mountinfo, own):
        if os.getpid() in Cgroup(group).direct_members():
            return group / PARENT
    return None


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One group, by its directory."""

    path: Path

    def create(self) -> bool:
        """False when this machine does not let us."""
        for _ in range(3):
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except FileNotFoundError:  # another one's last group went, and the parent with it
                continue
            except OSError:
                return False
            return (self.path / "cgroup.procs").exists()
        return False

    def members(self) -> list[int]:
        """The pids of all that is in it and below."""
        return [pid for directory, _, _ in os.walk(self.path) for pid in Cgroup(Path(directory)).direct_members()]

    def direct_members(self) -> list[int]:
        """Not of those below. A group that goes while we look has nobody in it."""
        try:
            pids = [int(line) for line in (self.path / "cgroup.procs").read_text().split()]
        except OSError:
            return []
        return [pid for pid in pids if pid != 0]  # 0: a process of another PID namespace

    async def freeze(self) -> None:
        """Nothing in it runs any more when this returns, but for what the kernel does not let go."""
        with suppress(OSError):
            (self.path / "cgroup.freeze").write_text("1")
            with trio.move_on_after(FREEZE_PATIENCE_S):
                while "frozen 1" not in (self.path / "cgroup.events").read_text():
                    await trio.sleep(LOOK_EVERY_S)

    def thaw(self) -> None:
        """Let it run."""
        with suppress(OSError):
            (self.path / "cgroup.freeze").write_text("0")

    def kill(self) -> bool:
        """SIGKILL for all, frozen or not; False where the kernel has no such stroke (before 5.14)."""
        try:
            (self.path / "cgroup.kill").write_text("1")
        except OSError:
            return False
        return True

    def remove(self) -> None:
        """With what is below it, if nothing is in it."""
        for directory, _, _ in os.walk(self.path, topdown=False):
            with suppress(OSError):
                os.rmdir(directory)
        with suppress(OSError):
            self.path.parent.rmdir()  # when this was the last

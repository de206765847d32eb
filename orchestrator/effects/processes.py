"""Processes that must survive us and be found again: a pid alone is reused, a pid with its start time is not."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio


@dataclass(frozen=True, slots=True)
class Process:
    """One process, once and for all."""

    pid: int
    start_ticks: int  # field 22 of /proc/PID/stat

    def alive(self) -> bool:
        """Does anything of it still run?"""
        stat = read_stat(self.pid)
        return stat is not None and stat.start_ticks == self.start_ticks and not stat.ended


@dataclass(frozen=True, slots=True)
class Stat:
    """The few fields of /proc/PID/stat that matter here."""

    pid: int
    state: str
    parent: int
    session: int
    threads: int
    start_ticks: int

    @property
    def ended(self) -> bool:
        """A zombie has, unless one of its threads goes on: one that waits in the kernel outlives the first thread, and SIGKILL."""
        return self.state in "ZX" and self.threads <= 1


def read_stat(pid: int) -> Stat | None:
    """None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")  # a process may call itself anything
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return Stat(pid, fields[0], parent=int(fields[1]), session=int(fields[3]), threads=int(fields[17]), start_ticks=int(fields[19]))


def find(pid: int) -> Process | None:
    """The process that has this pid now."""
    stat = read_stat(pid)
    return Process(pid, stat.start_ticks) if stat and not stat.ended else None


def write_pid_file(path: Path, process: Process) -> None:
    """Complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(f"{process.pid} {process.start_ticks}\n")
    new.rename(path)


def read_pid_file(path: Path) -> Process | None:
    """The process of the file, if it still runs."""
    try:
        pid, start_ticks = path.read_text().split()
        process = Process(int(pid), int(start_ticks))
    except (FileNotFoundError, ValueError):
        return None
    return process if process.alive() else None


def open_pidfd(pid: int) -> int | None:
    """None when there is no such process. Kernels say that in three ways: ESRCH; EINVAL (6.1) where the pid still names a session or group
    of living ones; ENOENT where it is a thread's."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENOENT):
            return None
        raise


async def wait_dead(process: Process) -> None:
    """Until it has ended, however it is related to us."""
    if (descriptor := open_pidfd(process.pid)) is None:
        return
    try:
        if process.alive():
            await trio.lowlevel.wait_readable(descriptor)
    finally:
        trio.lowlevel.notify_closing(descriptor)
        os.close(descriptor)


def send_signal(process: Process, number: int) -> None:
    """To this process and to no other that got its pid since."""
    with suppress(ProcessLookupError):
        if (descriptor := open_pidfd(process.pid)) is None:
            return
        try:
            if process.alive():
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def everybody() -> list[Stat]:
    """All processes of this machine (of this PID namespace)."""
    stats = (read_stat(int(entry.name)) for entry in os.scandir("/proc") if entry.name.isdigit())
    return [stat for stat in stats if stat is not None]


def family(process: Process) -> list[Process]:
    """The process, its descendants and all sessions they lead: what must not outlive it. (PostgreSQL's backends have sessions of
    their own, so neither the process group nor the session alone is enough.)"""
    stats = everybody()
    members = {process.pid}
    while True:
        more = {stat.pid for stat in stats if stat.parent in members or stat.session in members} - members
        if not more:
            break
        members |= more
    return [Process(stat.pid, stat.start_ticks) for stat in stats if stat.pid in members and stat.pid != os.getpid()]


def working_in(directories: Iterable[str], user_id: int) -> list[Process]:
    """Processes of this user that stand in one of the directories: orphans whose parent died first."""
    found = []
    roots = tuple(directories)
    for stat in everybody():
        try:
            if Path(f"/proc/{stat.pid}").stat().st_uid != user_id:
                continue
            place = os.readlink(f"/proc/{stat.pid}/cwd")
        except OSError:
            continue
        if any(place == root or place.startswith(root + "/") for root in roots):
            found.append(Process(stat.pid, stat.start_ticks))
    return found


def marked(mark: str, found: list[Process]) -> None:
    """Append to `found` who was started with this mark in its environment, or descends from such a process: also orphans in sessions
    of their own, where there is no cgroup. To be called in a thread: reading a process that hangs may hang."""
    wanted = mark.encode()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (process := find(int(entry.name))) is not None:
            with suppress(OSError):
                if wanted in Path(f"/proc/{entry.name}/environ").read_bytes().split(b"\0") and process.alive():
                    found.append(process)


def describe(process: Process) -> str:
    """Who it is and what it waits for, for people who have to do something about it."""
    stat = read_stat(process.pid)
    if stat is None or stat.start_ticks != process.start_ticks:
        return f"{process.pid} (gone)"
    threads = {path: _text(path / "status").partition("State:\t")[2][:1] for path in Path(f"/proc/{process.pid}/task").glob("*")}
    stuck = next((path for path, state in threads.items() if state == "D"), Path(f"/proc/{process.pid}"))
    return f"{process.pid} ({name_of(process)}) in state {threads.get(stuck, stat.state)}, waiting in {_waits_in(stuck)}"


def _waits_in(thread: Path) -> str:
    """The kernel's functions, the innermost first; the stack says more than one name, where root may read it."""
    calls = [line.partition("] ")[2].partition("+")[0] for line in _text(thread / "stack").splitlines()]
    if calls := [call for call in calls if call and not call.startswith("0x")]:
        return " < ".join(calls[:4])
    call = _text(thread / "wchan").strip()
    return call if call not in ("", "0") else "the kernel (it does not say where)"


def name_of(process: Process) -> str:
    """The short name that the kernel keeps of what it runs."""
    return _text(Path(f"/proc/{process.pid}/comm")).strip() or "?"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


async def kill_all(victims: Iterable[Process], patience_s: float) -> bool:
    """SIGKILL for each, until all are dead or patience is over."""
    waiting = list(victims)
    for victim in waiting:
        send_signal(victim, signal.SIGKILL)
    return await all_dead(waiting, patience_s)


async def all_dead(waiting: Iterable[Process], patience_s: float) -> bool:
    """Wait until all have ended or patience is over."""
    waiting = list(waiting)
    with trio.move_on_after(patience_s):
        for victim in waiting:
            await wait_dead(victim)
    return not any(victim.alive() for victim in waiting)

"""Running a command of the administrator's: as a user, in a session of its own, with its output in the module's log.

What it gets is the same whoever started hactld and how: an environment of a few variables, `/` as its directory, the usual umask, all
signals at their defaults and none blocked, no descriptor but the three, no niceness, and no share in what spares hactld when memory
runs out. Three small programs of the system see to what Popen cannot do, each replaced by the next: a shell (which joins the cgroup
before anything can be forked), env, setpriv.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import trio

from orchestrator import ownership
from orchestrator.effects import EffectFailed, processes

SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UMASK = 0o022
KILL_PATIENCE_S = 5.0
# $1: the cgroup's cgroup.procs, or nothing; $2: the new oom_score_adj, or nothing. What is refused is in the log, and no reason not to run.
PRELUDE = '[ -z "$1" ] || echo 0 >"$1"; [ -z "$2" ] || echo "$2" >/proc/self/oom_score_adj; shift 2; exec "$@"'


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom a command runs."""

    user_id: int
    switch: Sequence[str]  # the words that make a process somebody else; none for our own user
    environment: Mapping[str, str]


def identity_of(user: str | None) -> Identity:
    """The user with all his groups; hactld's own user when none is named."""
    if user is None:
        try:
            own = pwd.getpwuid(os.getuid())
        except KeyError:
            return Identity(os.getuid(), (), {})
        return Identity(own.pw_uid, (), {"USER": own.pw_name, "LOGNAME": own.pw_name, "HOME": own.pw_dir})
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise EffectFailed(f"there is no user {user} on this node", refused=True) from None
    environment = {"USER": user, "LOGNAME": user, "HOME": entry.pw_dir}
    if os.getuid() == entry.pw_uid:
        return Identity(entry.pw_uid, (), environment)
    groups = ",".join(str(group) for group in os.getgrouplist(user, entry.pw_gid))
    switch = ("/usr/bin/setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", f"--groups={groups}", "--")
    return Identity(entry.pw_uid, switch, environment)


def wrapped(command: Sequence[str], identity: Identity, cgroup: Path | None, oom_score_adj: int, niceness: int, policy: int) -> list[str]:
    """The command behind the programs that make its surroundings clean; the three numbers are our own, which it must not inherit."""
    words = ["/bin/sh", "-c", PRELUDE, "sh", str(cgroup / "cgroup.procs") if cgroup else "", "0" if oom_score_adj < 0 else ""]
    words += ["/usr/bin/nice", "-n", str(-niceness)] if niceness < 0 else []
    words += ["/usr/bin/chrt", "--other", "0"] if policy != os.SCHED_OTHER else []
    return [*words, "/usr/bin/env", "--default-signal", *identity.switch, *command]


def spawn(
    command: Sequence[str], identity: Identity, environment: Mapping[str, str], log: Path, cgroup: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start it (blocking for the moment of fork and exec, so in a thread). It survives us: own session, no pipe to us."""
    variables = {"PATH": SAFE_PATH, "LANG": os.environ.get("LANG", "C.UTF-8"), **identity.environment, **environment}
    program = shutil.which(command[0], path=variables["PATH"])
    if program is None:
        missing = not Path(command[0]).exists() if "/" in command[0] else True
        raise EffectFailed(f"{command[0]} cannot be started: {'there is no such program' if missing else 'not executable'}", refused=True)
    if (complaint := ownership.complaint_of_program(Path(program), identity.user_id)) is not None:
        raise EffectFailed(f"{command[0]} is not started: {complaint}", refused=True)
    words = wrapped(
        [program, *command[1:]], identity, cgroup, _oom_score_adj(), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)
    )  # fmt: skip
    output = open_log(log)
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, [])  # this thread's mask is what the child gets
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=variables,
            cwd="/",
            umask=UMASK,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:  # ValueError: a variable that no environment can hold
        reason = error.strerror if isinstance(error, OSError) else error
        raise EffectFailed(f"{command[0]} cannot be started: {reason}", refused=True) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if not isinstance(output, int):
            output.close()


def open_log(log: Path) -> IO[bytes] | int:
    """For appending. A log disk that refuses keeps nothing from running: then what is said is lost."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError:
        return subprocess.DEVNULL


def _oom_score_adj() -> int:
    try:
        return int(Path("/proc/self/oom_score_adj").read_text())
    except (OSError, ValueError):
        return 0


async def run(
    command: Sequence[str],
    identity: Identity,
    environment: Mapping[str, str],
    log: Path,
    deadline_s: float,
    killed: list[processes.Process] | None = None,
) -> int:
    """Run to its end and return its exit code; whatever of it is left at the deadline (or at a cancellation) is killed. What SIGKILL does
    not end (it waits in a mount that hangs) is waited for a few seconds: to stop the services goes on, and ends the mount if need be.
    Who was killed is added to `killed`."""
    child = await trio.to_thread.run_sync(spawn, command, identity, environment, log)
    process = processes.find(child.pid)
    if process is None:
        return child.wait()
    try:
        with trio.move_on_after(deadline_s):
            await processes.wait_dead(process)
            return child.wait()
        raise EffectFailed(f"{command[0]} was not finished after {deadline_s:.0f} s")
    finally:
        if child.poll() is None:
            members = processes.family(process)
            if killed is not None:
                killed += members
            for member in members:
                processes.send_signal(member, signal.SIGKILL)
            with trio.CancelScope(shield=True), trio.move_on_after(KILL_PATIENCE_S):
                await processes.wait_dead(process)
            child.poll()

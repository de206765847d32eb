"""Running a command of the administrator's: as a user, in a session of its own, with its output in the module's log."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from orchestrator.effects import EffectFailed, processes

SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom a command runs."""

    user_id: int
    options: Mapping[str, Any]
    environment: Mapping[str, str]


def identity_of(user: str | None) -> Identity:
    """The user with all his groups; hactld's own user when none is named."""
    if user is None:
        return Identity(os.getuid(), {}, {})
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise EffectFailed(f"there is no user {user} on this node", refused=True) from None
    groups = os.getgrouplist(user, entry.pw_gid)
    environment = {"USER": user, "LOGNAME": user, "HOME": entry.pw_dir}
    if os.getuid() != 0 and os.getuid() == entry.pw_uid:
        return Identity(entry.pw_uid, {}, environment)
    return Identity(entry.pw_uid, {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}, environment)


def spawn(command: Sequence[str], identity: Identity, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start it (blocking for the moment of fork and exec). It survives us: own session, no pipe to us."""
    variables = {"PATH": SAFE_PATH, "LANG": os.environ.get("LANG", "C.UTF-8"), **identity.environment, **environment}
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=variables,
                cwd="/",
                start_new_session=True,
                **identity.options,
            )
    except OSError as error:
        raise EffectFailed(f"{command[0]} cannot be started: {error.strerror}", refused=True) from error


async def run(command: Sequence[str], identity: Identity, environment: Mapping[str, str], log: Path, deadline_s: float) -> int:
    """Run to its end and return its exit code; whatever of it is left at the deadline (or at a cancellation) is killed."""
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
            for member in processes.family(process):
                processes.send_signal(member, signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await processes.wait_dead(process)
            child.wait()

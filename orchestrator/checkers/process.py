"""Are the processes there that should be? All are looked through by name, arguments and user; of those that matter the kernel tells at
once when one dies.

With `at_least = 3` the three oldest are watched: a server's first processes live as long as it does, and the end of one of its many short
ones says nothing.
"""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import dataclass

import psutil
import trio

from orchestrator.checkers.checker import Finding
from orchestrator.checkers.one_thread import OneThread
from orchestrator.effects import processes
from orchestrator.effects.processes import Process

WATCHED_MAX = 64
ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which processes; what is None is not asked for."""

    process: str | None = None
    name_regex: str | None = None
    argument_regex: str | None = None
    user: str | None = None

    def __str__(self) -> str:
        words = [f'"{self.process}"'] if self.process is not None else []
        words += [f"named like {self.name_regex}"] if self.name_regex is not None else []
        words += [f"with arguments like {self.argument_regex}"] if self.argument_regex is not None else []
        words += [f"of user {self.user}"] if self.user is not None else []
        return " ".join(words)


class ProcessChecker:
    """Up while there are `at_least` of them, and at most `at_most`."""

    def __init__(
        self,
        process: str | None = None,
        name_regex: str | None = None,
        argument_regex: str | None = None,
        user: str | None = None,
        at_least: int = 1,
        at_most: int | None = None,
    ) -> None:
        self.wanted = Wanted(process, name_regex, argument_regex, user)
        self.at_least, self.at_most = at_least, at_most
        self._thread = OneThread()
        self._found: list[Process] = []

    async def look(self) -> Finding:
        """All processes, in a thread: to read of one that hangs may hang."""
        self._found = await self._thread.run(find, self.wanted)
        count, limits = len(self._found), []
        if count < self.at_least:
            limits.append(f"at least {self.at_least}")
        if self.at_most is not None and count > self.at_most:
            limits.append(f"at most {self.at_most}")
        what = f"process{'' if count == 1 else 'es'} {self.wanted}"
        if not limits:
            return Finding(True, f"{count} {what}")
        return Finding(False, f"{count or 'no'} {what}, of {limits[0]}" if count or self.at_least > 1 else f"no process {self.wanted} runs")

    async def changed(self) -> None:
        """When one of those that matter has died."""
        watched = self._found[: min(self.at_least, WATCHED_MAX)]
        if not watched:
            await trio.sleep_forever()
        async with trio.open_nursery() as nursery:
            for process in watched:
                nursery.start_soon(_until_dead, process, nursery.cancel_scope)


async def _until_dead(process: Process, scope: trio.CancelScope) -> None:
    try:
        await processes.wait_dead(process)
    except OSError:  # no descriptor is left to watch it with: the interval has to do
        await trio.sleep_forever()
    scope.cancel()


def find(wanted: Wanted) -> list[Process]:
    """Those that run now, the oldest first (blocking)."""
    user_id = _user_id(wanted.user)
    name = re.compile(wanted.name_regex) if wanted.name_regex is not None else None
    arguments = re.compile(wanted.argument_regex) if wanted.argument_regex is not None else None
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or (user_id is not None and process.uids().effective != user_id):
                continue
            if wanted.process is not None and process.name() != wanted.process:
                continue
            if name is not None and not name.search(process.name()):
                continue
            if arguments is not None and not arguments.search(" ".join(process.cmdline()[1:])):
                continue
            if process.status() not in ENDED and (same := processes.find(process.pid)) is not None:
                found.append(same)
        except psutil.Error:  # it ended while it was looked at
            continue
    return sorted(found, key=lambda process: (process.start_ticks, process.pid))


def _user_id(user: str | None) -> int | None:
    if user is None:
        return None
    try:
        return int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
    except KeyError:
        raise OSError(f"there is no user {user} on this node") from None

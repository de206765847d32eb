"""A program of the administrator's says whether all is well: exit code 0 is up, and the last line of what it prints is the reason.

It runs in a session of its own, with the environment of the module's scripts; at its deadline it is killed with all that it started. While
something of it hangs beyond SIGKILL it is not started again: one that hangs says down, and does not become many. What it prints goes to a
file of its own, of which the beginning is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import trio

from orchestrator.checkers.checker import Finding
from orchestrator.checkers.one_thread import OneThread
from orchestrator.effects import EffectFailed, commands, processes, scripts

TEXT_CHARACTERS_MAX = 200
TAIL_BYTES = 4096
DIES_WITHIN_S = 0.3  # who was killed just now
_killed: dict[Path, list[processes.Process]] = {}  # by log, of which each checker has its own: a new window has a new checker


class ScriptChecker:
    """Up while the program ends with 0."""

    def __init__(
        self, program: Path, environment: Mapping[str, str], log: Path, arguments: tuple[str, ...] = (), user: str | None = None
    ) -> None:
        self.command, self.environment, self.log, self.user = [str(program), *arguments], environment, log, user
        self._thread = OneThread()

    async def look(self) -> Finding:
        """Run it to its end; whoever gives up waiting kills it."""
        left = [process for process in _killed.get(self.log, ()) if process.alive()]
        if not await processes.all_dead(left, DIES_WITHIN_S):
            hangs = next((process for process in left if process.alive()), left[0])
            return Finding(False, f"{self.command[0]} still hangs: {await self._thread.run(processes.describe, hangs)}")
        await self._thread.run(_begin_log, self.log)
        killed = _killed[self.log] = []  # filled before anybody waits for their end
        outcome: int | str = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scripts.keep_short, self.log)
            try:
                identity = await self._thread.run(commands.identity_of, self.user)
                outcome = await commands.run(self.command, identity, self.environment, self.log, float("inf"), killed)
            except EffectFailed as failure:
                outcome = str(failure)
            except OSError as error:
                outcome = f"{self.command[0]} cannot be run: {error.strerror or error}"
            nursery.cancel_scope.cancel()
        if isinstance(outcome, str):
            return Finding(False, outcome)
        said = await self._thread.run(last_line, self.log)
        await self._thread.run(scripts.cut, self.log)
        return Finding(outcome == 0, said or f"{self.command[0]} ended with exit code {outcome}")

    async def changed(self) -> None:
        """Nobody tells; a program that knows by itself says so to hactld."""
        await trio.sleep_forever()


def last_line(log: Path) -> str:
    """Of what it printed; what cannot be shown is left out (blocking)."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
        shown = ("".join(each for each in line if each.isprintable()).strip() for line in reversed(lines))
        return next((line for line in shown if line), "")[:TEXT_CHARACTERS_MAX]
    return ""


def _begin_log(log: Path) -> None:
    """An empty one. A disk that refuses keeps no program from running (blocking)."""
    with suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")

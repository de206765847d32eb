"""The administrator's scripts: when they are due is core/points.py's word, here they are run.

A script gets three arguments, as SafeKit's do: the state now, the next state, and why (start, stop, stopstart, stopwait, swap, restart). A
stop script is called twice: first as it is, to stop in order, then with `force` before the arguments, to end what is left. Each run has its
own log, of which the newest are kept; what prints without end is cut off, because a full disk would be worse than a lost line.

A script fails that ends with an exit code, cannot be executed, or does not end within its time: then it is killed, with all that it left in
its session. What was entered stands in a file below /run: a hactld that is restarted calls again only what it was in the middle of; a boot
forgets it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio

from orchestrator.config import ModuleConfig
from orchestrator.core.actions import RunScript
from orchestrator.core.points import ANNOUNCEMENT
from orchestrator.core.states import Move, Point, State
from orchestrator.effects import EffectFailed, commands
from orchestrator.paths import Paths

RUNS_KEPT = 50
LOG_BYTES_MAX = 2 << 20
LOOK_EVERY_S = 0.2
STOPPING = frozenset(point.stop_script for point in Point)
PREPARING = frozenset({Point.MODULE.start_script, Point.BOTH.start_script})


class Scripts:
    """The scripts of one module."""

    def __init__(self, config: ModuleConfig, node: str, paths: Paths, note: Callable[[str, str], None]) -> None:
        self.config, self.paths, self.note = config, paths, note
        self.environment = environment_of(config, node, paths)

    # ---- what was entered -----------------------------------------------------------------------------------------------

    @property
    def _entered_file(self) -> Path:
        return self.paths.run / "services" / f"{self.config.name}.points"

    def found(self) -> tuple[frozenset[Point], State]:
        """What a former hactld of this boot had entered, and the last state that it announced."""
        try:
            names, announced = self._entered_file.read_text().splitlines()
            return frozenset(Point(name) for name in names.split()), State(announced)
        except (OSError, ValueError):
            return frozenset(), State.STOP

    def _remember(self, entered: frozenset[Point], announced: State) -> None:
        new = self._entered_file.with_suffix(".new")
        new.write_text(" ".join(sorted(point.value for point in entered)) + f"\n{announced.value}\n")
        new.rename(self._entered_file)

    # ---- running ----------------------------------------------------------------------------------------------------------

    async def run(self, action: RunScript) -> None:
        """Run it, if there is one; EffectFailed when it says no. What is entered is written down when it has run: one that was cut short,
        by a newer order or because hactld ends, is called again, or left by its stop script."""
        before, announced = self.found()
        try:
            if action.script in STOPPING:
                await self._stop(action)
            else:
                await self._once(action.script, action.move, (), self.config.script_start_timeout_s)
        except EffectFailed:
            prepares = action.script in PREPARING  # what they prepare must not come up on a failure that a restart has forgotten
            self._remember(before if prepares else action.entered, announced)
            raise
        self._remember(action.entered, State(action.move.next) if action.script == ANNOUNCEMENT else announced)

    async def _stop(self, action: RunScript) -> None:
        if not action.force:
            try:
                await self._once(action.script, action.move, (), self.config.script_stop_timeout_s)
            except EffectFailed as failure:  # the forced call is for exactly that
                self.note("script", str(failure))
        await self._once(action.script, action.move, ("force",), self.config.script_force_timeout_s)

    async def _once(self, name: str, move: Move, before: tuple[str, ...], deadline_s: float) -> None:
        script = self.config.scripts_dir / name
        if not script.exists():
            return
        if not os.access(script, os.X_OK):
            raise EffectFailed(f"{script} is not executable; 'chmod +x' it", refused=True)
        arguments = [*before, move.current, move.next, move.action]
        log = await self._new_log(name)
        began, called = trio.current_time(), " ".join([name, *arguments])
        self.note("script", f"{called}: runs")
        variables = {**self.environment, "LOCKSTEP_STATE": move.next if name not in STOPPING else move.current}
        failed: EffectFailed | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_short, log)
            try:
                code = await commands.run([str(script), *arguments], commands.identity_of(None), variables, log, deadline_s)
            except EffectFailed as failure:
                failed = failure
            except OSError as error:
                failed = EffectFailed(f"{name} cannot be run: {error.strerror}")
            nursery.cancel_scope.cancel()
        if failed is not None:
            self.note("script", f"{called}: {failed}; its output is in {log}")
            raise failed
        self.note("script", f"{called}: ended with exit code {code} after {trio.current_time() - began:.1f} s; its output is in {log}")
        if code != 0:
            raise EffectFailed(f"{name} ended with exit code {code}; see 'hactl logs {self.config.name}'")

    async def _new_log(self, name: str) -> Path:
        """Where its output goes. A log disk that refuses must not stop a failover: then nowhere."""
        try:
            return await trio.to_thread.run_sync(self._make_log, name)
        except OSError as error:
            self.note("script", f"{name}: its output is lost, {error.filename}: {error.strerror}")
            return Path(os.devnull)

    def _make_log(self, name: str) -> Path:
        """An empty log for one run, and the directory that scripts may use; the oldest logs make way (blocking)."""
        directory = self.paths.script_logs(self.config.name)
        for made in (directory, self.paths.script_state(self.config.name)):
            made.mkdir(parents=True, exist_ok=True)
        for old in sorted(directory.glob("*.log"))[: -(RUNS_KEPT - 1)]:
            old.unlink(missing_ok=True)
        now = time.time()
        path = directory / f"{time.strftime('%Y%m%dT%H%M%S', time.localtime(now))}.{int(now * 1000) % 1000:03d}_{name}.log"
        path.touch()
        return path


async def keep_short(log: Path) -> None:
    """What it prints beyond the limit is cut off while it runs, the beginning stays: that is where the reason stands."""
    while True:
        await trio.sleep(LOOK_EVERY_S)
        await trio.to_thread.run_sync(cut, log)


def cut(log: Path) -> None:
    """If it is too long, to half of what is allowed; whoever appends goes on at the new end (blocking)."""
    with suppress(OSError):  # somebody removed it, or the disk refuses
        if log.stat().st_size > LOG_BYTES_MAX:
            os.truncate(log, LOG_BYTES_MAX // 2)
            with log.open("a") as file:
                file.write("\n[hactld: too much output, the rest is cut off]\n")


def environment_of(config: ModuleConfig, node: str, paths: Paths) -> dict[str, str]:
    """Ours, and the names that scripts written for SafeKit know (docs/interfaces.md)."""
    return {
        "LOCKSTEP_MODULE": config.name,
        "LOCKSTEP_NODE": node,
        "SAFE": str(paths.shim),
        "SAFEBIN": str(paths.shim),
        "SAFEMODULE": config.name,
        "SAFEUSERBIN": str(config.scripts_dir),
        "SAFEUSERCONF": str(config.scripts_dir),
        "SAFEVAR": str(paths.state),
        "SAFEUSERVAR": str(paths.script_state(config.name)),
    }

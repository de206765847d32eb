"""`hactl module open` and `close`: the directories of a stopped module lie open for maintenance, and nothing starts until they are closed.

A stopped module leaves its read-only guards, so that nobody changes a copy that has a state. To open takes them off: from then on anybody
may have changed anything, and the next session of the two copies compares them (rfs/mount.py calls that an unguarded interval). That they
are open is a file beside the module's state: it outlives hactld and the machine's boots, and no boot guards what is open.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import trio

from orchestrator.config import ModuleConfig
from orchestrator.core.states import State
from orchestrator.paths import Paths
from orchestrator.runner import Answer, Runner
from rfs import exit_codes
from rfs.durably import sync_directory, write_durably

VERBS: Final = frozenset({"open", "close"})
DEADLINE_S: Final = 30.0


class Maintenance:
    """Of this node's modules."""

    def __init__(self, configs: Mapping[str, ModuleConfig], paths: Paths, runner_of: Callable[[str], Runner]) -> None:
        self.configs, self.paths, self.runner_of = configs, paths, runner_of
        self._changing = trio.Lock()

    def is_open(self, module: str) -> bool:
        """By somebody's word, whatever happened since."""
        return self.paths.is_open(module)

    def held(self, module: str) -> str:
        """Why a module may not start now; empty: it may."""
        if not self.is_open(module):
            return ""
        return f"{module} is open for maintenance here: hactl module close {module}"

    def warnings(self) -> list[dict[str, str]]:
        """For `status`."""
        return [
            {
                "code": "MODULE_OPEN",
                "text": f"{name}: its directories are open for maintenance here; nothing starts, nothing protects this copy",
                "fix": f"hactl module close {name}",
            }
            for name in self.configs
            if self.is_open(name)
        ]

    async def carry_out(self, module: str, verb: str) -> Answer:
        """Open or close. Said twice is said once."""
        config = self.configs[module]
        if not config.replicated:
            return Answer(exit_codes.REFUSED, f"{module} mirrors no directory: there is nothing to {verb}")
        async with self._changing:
            return await (self._open(module, config) if verb == "open" else self._close(module, config))

    async def _open(self, module: str, config: ModuleConfig) -> Answer:
        found = self.runner_of(module).node.modules[module]
        if found.shown[0] is not State.STOP or found.holds or found.wanted:
            shown = found.shown[0].value
            return Answer(exit_codes.REFUSED, f"{module} is {shown} here: hactl stop {module}, then open it")
        await trio.to_thread.run_sync(mark, self.paths.open_marker(module))
        if reason := await self._rfsmount("unguard", module, config):
            return Answer(exit_codes.FAILED, f"{reason}; it stays open as far as it is: hactl module close {module}")
        listed = ", ".join(replicated.directory for replicated in config.replicated)
        return Answer(exit_codes.DONE, f"{module} is open: {listed} may be changed; everything is compared when it starts again")

    async def _close(self, module: str, config: ModuleConfig) -> Answer:
        if not self.is_open(module):
            return Answer(exit_codes.DONE, f"{module} is not open")
        if self._has_record(module) and (reason := await self._rfsmount("guard", module, config)):
            return Answer(exit_codes.REFUSED, f"{reason}; {module} stays open")
        await trio.to_thread.run_sync(unmark, self.paths.open_marker(module))
        return Answer(exit_codes.DONE, f"{module} is closed; 'hactl start {module}' runs it")

    def _has_record(self, module: str) -> bool:
        """A module that never ran here has had no guards, and needs none."""
        return (self.paths.module_state(module) / "guards").exists()

    async def _rfsmount(self, verb: str, module: str, config: ModuleConfig) -> str:
        """`rfsmount guard` or `unguard`; why it could not, or nothing."""
        if verb == "unguard" and not self._has_record(module):
            return ""
        program = Path(sys.executable).with_name("rfsmount")
        found = str(program) if program.exists() else shutil.which("rfsmount")
        line = [found] if found else [sys.executable, "-P", "-m", "rfs.cli"]
        line += [verb, *(replicated.directory for replicated in config.replicated), "--state", str(self.paths.module_state(module))]
        line += ["--refuse-holders"] if verb == "guard" else []
        try:
            with trio.fail_after(DEADLINE_S):
                done = await trio.run_process(line, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
        except (OSError, trio.TooSlowError) as error:
            return f"rfsmount {verb} of {module}: {error or 'no end'}"
        if done.returncode == exit_codes.DONE:
            return ""
        said = done.stdout.decode(errors="replace").strip().splitlines()
        return said[-1].removeprefix("rfsmount: ") if said else f"rfsmount {verb} ended with {done.returncode}"


def mark(marker: Path) -> None:
    """Durable when it returns (blocking)."""
    marker.parent.mkdir(parents=True, exist_ok=True)
    write_durably(marker, b"")
    sync_directory(marker.parent.parent)


def unmark(marker: Path) -> None:
    """The same of the end of it."""
    marker.unlink(missing_ok=True)
    sync_directory(marker.parent)

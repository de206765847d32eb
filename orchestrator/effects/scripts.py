"""`start_prim` and `stop_prim`: the administrator's own steps when the role comes and goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import trio

from orchestrator.effects import EffectFailed, commands

DEADLINE_S = 60.0


async def run(directory: Path, name: str, environment: Mapping[str, str], log: Path, note: Callable[[str, str], None]) -> None:
    """Run the script if there is one; EffectFailed when it says no, hangs, or cannot be run. That it ran goes into the history."""
    script = directory / name
    if not script.exists():
        return
    if not os.access(script, os.X_OK):
        raise EffectFailed(f"{script} is not executable; 'chmod +x' it", refused=True)
    began = trio.current_time()
    note("script", f"{name} runs")
    code = await commands.run([str(script)], commands.identity_of(None), environment, log, DEADLINE_S)
    note("script", f"{name} ended with exit code {code} after {trio.current_time() - began:.1f} s")
    if code != 0:
        raise EffectFailed(f"{script} ended with exit code {code}; see 'hactl logs'")

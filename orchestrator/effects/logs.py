"""The logs of services, scripts and rfsmount stay bounded, whoever writes them.

They are written by processes that outlive hactld, which therefore cannot count what they write: from time to time each file is looked at,
and one that is too long is copied to NAME.1 and emptied in place. Who writes has opened it for appending, and goes on at the beginning.
What is written between the copy and the emptying is lost: a few lines of a log that has filled megabytes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import trio

from orchestrator.paths import Paths

LOOK_EVERY_S = 20.0
BYTES_MAX = 32 << 20


def bound(path: Path, bytes_max: int = BYTES_MAX) -> bool:
    """Rotate the file if it is too long; was it? (blocking)"""
    try:
        if path.stat().st_size <= bytes_max:
            return False
        if path.parent.parent.name != "scripts":  # of a run of a script the beginning has been kept
            shutil.copyfile(path, path.with_name(path.name + ".1"))
        os.truncate(path, 0)
    except FileNotFoundError:
        return False
    return True


async def keep_bounded(paths: Paths, modules: Iterable[str], note: Callable[[str, str], None]) -> None:
    """Look at every log of these modules, for ever."""
    names = list(modules)
    failed = ""
    while True:
        await trio.sleep(LOOK_EVERY_S)
        try:
            for module in names:
                for path in (paths.module_log(module), paths.rfs_log(module), *paths.script_logs(module).glob("*.log")):
                    await trio.to_thread.run_sync(bound, path)
            failed = ""
        except OSError as error:  # a full disk: once in the history, not at every look
            if str(error) != failed:
                failed = str(error)
                note("logs", f"the logs cannot be kept short: {failed}")

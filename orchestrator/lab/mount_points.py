"""The directories of this machine that labs mount over and had to make: made once, removed by the last lab.

Removing a directory takes the mounts on it away in every other mount namespace as well: a lab that goes down must not pull /etc/lockstep
from beneath the nodes of another one. So what was made stands in one list for all labs, and only a lab that leaves no other one behind
removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestrator.lab.state import STATE_ROOT

LIST = "made_directories"


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Across all labs, by the directory that all share; it is gone with the last lab, so whoever waited for it looks again."""
    while True:
        STATE_ROOT.mkdir(parents=True, exist_ok=True)
        try:
            directory = os.open(STATE_ROOT, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            if STATE_ROOT.exists() and os.stat(STATE_ROOT).st_ino == os.fstat(directory).st_ino:
                yield
                return
        finally:
            os.close(directory)


def make(targets: Iterable[str]) -> None:
    """The directories that nodes mount over."""
    with _locked():
        known = _listed()
        for target in targets:
            missing = [path for path in (Path(target), *Path(target).parents) if not path.exists()]
            known += [str(path) for path in reversed(missing)]
            # First the word, then the deed: a crash leaves nothing unknown.
            (STATE_ROOT / LIST).write_text("".join(f"{path}\n" for path in known))
            Path(target).mkdir(parents=True, exist_ok=True)


def release(lab: str) -> None:
    """This lab is gone; when no other is there, so are the directories that are empty."""
    with _locked():
        if any(path.parent.name != lab for path in STATE_ROOT.glob("*/state.json")):
            return
        for made in reversed(_listed()):
            if Path(made).is_dir() and not any(Path(made).iterdir()):
                Path(made).rmdir()
        (STATE_ROOT / LIST).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the lock file of a lab that is being built
            STATE_ROOT.rmdir()


def _listed() -> list[str]:
    path = STATE_ROOT / LIST
    return path.read_text().splitlines() if path.exists() else []

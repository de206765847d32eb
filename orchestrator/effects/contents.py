"""What lies in a directory, for a person who has to say which of two copies is the right one.

A walk of bounded length: a directory may hold millions of files, and its disk may hang. So it counts up to a number of entries and up to a
moment, and says whether it came to the end. It blocks, and on a dead file system for ever: call it in a thread that is not waited for.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ENTRIES_MAX = 200_000
WALK_S = 3.0
MARKER_BYTES_MAX = 80


@dataclass(frozen=True, slots=True)
class Contents:
    """Of one directory. `whole`: the walk came to its end; else there is at least this much. Times are the clock's, for people only."""

    path: str
    exists: bool = True
    files: int = 0
    bytes: int = 0
    newest: str = ""  # below the directory
    newest_age_s: float | None = None
    whole: bool = True
    markers: Mapping[str, str] = field(default_factory=dict)  # required files that are there: their line if it is short text, else a word
    lacking: tuple[str, ...] = ()  # required files that are not
    problem: str = ""


def survey(path: str, required: Sequence[str], *, entries_max: int = ENTRIES_MAX, walk_s: float = WALK_S) -> Contents:
    """Look at one directory; links are not followed, other file systems beneath it not entered."""
    try:
        root = os.stat(path)
        if not stat.S_ISDIR(root.st_mode):
            return Contents(path, problem="it is no directory")
    except FileNotFoundError:
        return Contents(path, exists=False, lacking=tuple(required))
    except OSError as error:
        return Contents(path, problem=error.strerror or str(error))
    files = size = entries = 0
    newest, newest_at = "", float("-inf")
    deadline, waiting, problem = time.monotonic() + walk_s, [path], ""
    while waiting:
        try:
            for entry in os.scandir(waiting.pop()):
                entries += 1
                if entries > entries_max or time.monotonic() > deadline:
                    return _answer(path, required, (files, size, newest, newest_at), whole=False, problem=problem)
                found = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    if found.st_dev == root.st_dev and not entry.name.startswith(".lockstep-") and entry.name != "lost+found":
                        waiting.append(entry.path)
                    continue
                files += 1
                if stat.S_ISREG(found.st_mode):
                    size += found.st_size
                    if found.st_mtime > newest_at:
                        newest, newest_at = os.path.relpath(entry.path, path), found.st_mtime
        except FileNotFoundError:
            continue  # gone meanwhile
        except OSError as error:
            problem = f"{error.filename}: {error.strerror}"
    return _answer(path, required, (files, size, newest, newest_at), whole=True, problem=problem)


def _answer(path: str, required: Sequence[str], counted: tuple[int, int, str, float], *, whole: bool, problem: str) -> Contents:
    files, size, newest, newest_at = counted
    age_s = max(0.0, time.time() - newest_at) if newest else None
    markers = {name: _first_line(Path(path, name)) for name in required if os.path.lexists(Path(path, name))}
    lacking = tuple(name for name in required if name not in markers)
    return Contents(path, True, files, size, newest, age_s, whole, markers, lacking, problem)


def _first_line(path: Path) -> str:
    """`15` of a PG_VERSION; of anything that is no short line of text, that it is there."""
    try:
        with path.open("rb") as file:
            text = file.read(MARKER_BYTES_MAX + 1).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return "there"
    line = text.strip()
    return line if line and line.isprintable() and len(text) <= MARKER_BYTES_MAX else "there"

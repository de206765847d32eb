"""What lies in a directory, for a person who has to say which of two copies is the right one.

A walk of bounded length: a directory may hold millions of files, and its disk may hang. So it counts up to a number of entries and up to a
moment, and says whether it came to the end. It blocks, and on a dead file system for ever: call it in a thread that is not waited for.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from rfs.directory_checks import is_empty

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
    empty: bool = False  # as rfsmount sees it: subdirectories are something, too, and make a copy a replacement
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
                        newest, newest_at = readable(os.path.relpath(entry.path, path)), found.st_mtime
        except FileNotFoundError:
            continue  # gone meanwhile
        except OSError as error:
            problem = f"{readable(str(error.filename))}: {error.strerror}"
    return _answer(path, required, (files, size, newest, newest_at), whole=True, problem=problem)


def _answer(path: str, required: Sequence[str], counted: tuple[int, int, str, float], *, whole: bool, problem: str) -> Contents:
    files, size, newest, newest_at = counted
    age_s = max(0.0, time.time() - newest_at) if newest else None
    markers = {name: _first_line(path, name) for name in required if os.path.lexists(Path(path, name))}
    lacking = tuple(name for name in required if name not in markers)
    try:
        empty = is_empty(path)
    except OSError as error:
        empty, problem = False, problem or error.strerror or str(error)
    return Contents(path, True, files, size, newest, age_s, whole, empty, markers, lacking, problem)


def readable(path: str) -> str:
    """Of a name that is not UTF-8 what can be told to others: a half of a character can be sent to nobody."""
    return os.fsencode(path).decode(errors="replace")


def _first_line(root: str, name: str) -> str:
    """`15` of a PG_VERSION; of anything that is no short line of text, that it is there.

    The directory is the application's, and root reads for whoever may ask: no link is followed beneath it, and only a file is read."""
    try:
        file = _open_beneath(root, name)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return "there"
            text = os.read(file, MARKER_BYTES_MAX + 1).decode("ascii")
        finally:
            os.close(file)
    except (OSError, UnicodeDecodeError):
        return "there"
    line = text.strip()
    return line if line and line.isprintable() and len(text) <= MARKER_BYTES_MAX else "there"


def _open_beneath(root: str, name: str) -> int:
    """For reading, one component after the other; OSError for a link anywhere in `name`, or a way up. Nothing is waited for (a FIFO)."""
    *inner, last = PurePath(name).parts
    if ".." in (*inner, last) or PurePath(name).is_absolute():
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    place = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in inner:
            further = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
            os.close(place)
            place = further
        return os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
    finally:
        os.close(place)

"""Is what runs as root root's alone to change?

The configuration names programs, and hactld runs them and the scripts as root, or as a service's user. Whoever can write one of these
files, or rename one of the directories above them, is that user too. So each file and every directory above it must belong to root (what
runs as a user may also belong to that user), and be writable by its owner alone. A sticky directory is no exception: where everybody may
make names, the name that we look for may be somebody else's tomorrow. An access list that lets more people write shows in the mode's group
bits.

Looked at when a configuration is taken up, and before each run, name by name from `/` downwards, through every symbolic link. There is no
gap between looking and running: in a directory that was found to be root's alone, nobody else can change what its names mean afterwards.

What cannot be seen from here: what a program itself reads (the file that is an interpreter's argument, libraries, other configuration).
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

LINKS_MAX: Final = 40
FIRST_LINE_BYTES_MAX: Final = 256
OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
TOP = Path("/")  # what lies above is not looked at. Only tests, whose directories are in /tmp, set another


def complaint(path: Path, user_id: int = 0) -> str | None:
    """Why others than root (and this user) could change what `path` is, with the next step; None: they cannot, or there is nothing
    (blocking)."""
    allowed = {0, os.geteuid(), user_id}
    place, ahead, links = Path("/"), deque(path.absolute().parts[1:]), 0
    while True:
        try:
            found = place.lstat()
            target = os.readlink(place) if stat.S_ISLNK(found.st_mode) else None
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"{path}: cannot be looked at ({place}: {error.strerror})"
        if target is not None:
            links += 1
            if links > LINKS_MAX:
                return f"{path}: too many symbolic links; name the file itself"
            steps = Path(target).parts
            ahead.extendleft(reversed(steps[1:] if Path(target).is_absolute() else steps))
            place = Path("/") if Path(target).is_absolute() else place.parent
        elif not TOP.is_relative_to(place) and (said := _weakness(place, found, allowed)):
            return said if place == path else f"{path}: {said}"
        if not ahead:
            return None
        step = ahead.popleft()
        place = place.parent if step == ".." else place / step


def _weakness(place: Path, found: os.stat_result, allowed: set[int]) -> str | None:
    shown = shlex.quote(str(place))
    if found.st_uid not in allowed:
        return f"{place} belongs to user {found.st_uid}, who could change what runs here as another; 'chown root {shown}'"
    if found.st_mode & OTHERS:
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        return f"{place} can be changed by others than its owner (mode {mode}), and what it holds runs as root; 'chmod go-w {shown}'"
    return None


def complaint_of_all(paths: Iterable[Path]) -> str | None:
    """The first one (blocking)."""
    return next((said for path in paths if (said := complaint(path)) is not None), None)


def complaint_of_program(program: Path, user_id: int) -> str | None:
    """The same of a program that is about to run as this user, and of the interpreter that a script names (blocking)."""
    looked_at = [program, *_interpreter_of(program)]
    return next((said for each in looked_at if not _is_our_own(each) and (said := complaint(each, user_id)) is not None), None)


def _is_our_own(program: Path) -> bool:
    """In the virtual environment that hactld itself runs from: who could change that has changed hactld."""
    return sys.prefix != sys.base_prefix and program.is_relative_to(sys.prefix)


def _interpreter_of(program: Path) -> list[Path]:
    try:
        with program.open("rb") as file:
            first = file.readline(FIRST_LINE_BYTES_MAX)
    except OSError:
        return []
    words = first[2:].split() if first.startswith(b"#!") else []
    return [Path(os.fsdecode(word)) for word in words[:1] if word.startswith(b"/")]

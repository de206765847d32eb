"""Files that are left alone until a checkpoint has dropped their marks: each next write to one waits for the intent log.

The application's own files are new or hot nearly always. What was acknowledged here is remembered as it does: see application.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

FILES = 100
PACE_S = 0.01


def _text(number: int) -> bytes:
    return f"{number:08}".encode()


class ColdFiles:
    """A row of them in a directory, of which `place` is the path on the node that serves."""

    def __init__(self) -> None:
        self._written: dict[int, int] = {}
        self._doubtful = -1, -1  # which file, and what

    def touch_while(self, place: Path, go_on: Callable[[], bool]) -> OSError | None:
        """Makes them, then a small write to one after the other; the error that ended it."""
        number = 0
        try:
            place.mkdir()
            while go_on():
                file = number % FILES
                self._doubtful = file, number
                with open(place / str(file), "wb" if number < FILES else "r+b", buffering=0) as cold:
                    cold.write(_text(number))
                self._written[file] = number
                number += 1
                if number >= FILES:
                    time.sleep(PACE_S)
        except OSError as failure:
            return failure
        return None

    def wrong(self, place: Path) -> list[str]:
        """What was acknowledged and is not there."""
        lost = []
        for file, number in self._written.items():
            found = (place / str(file)).read_bytes()
            may_be = {_text(number)} | ({_text(self._doubtful[1])} if self._doubtful[0] == file else set())
            if found not in may_be:
                lost.append(f"cold file {file}: should be {number}, is {found.decode(errors='replace')[:20]}")
        return lost

"""Our own mistakes. One of them ends what it was made in (a request, a stream, a work, a peer's call), never the daemon, which holds the
cluster's modules. Whoever asked gets a sentence; what and where it was stands in the history, once a minute for each place.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

AGAIN_S: Final = 60.0
CHARACTERS_MAX: Final = 500  # of a message: it may hold what somebody sent


class Bugs:
    """`note`: a line for the history."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note
        self._told: dict[str, float] = {}  # by type and place, which are few

    def told(self, where: str, error: BaseException) -> str:
        """The sentence for whoever asked."""
        first = first_of(error)
        kind, place = type(first).__name__, place_of(first)
        now, key = time.monotonic(), f"{kind} {place}"
        if now - self._told.get(key, now - AGAIN_S) >= AGAIN_S:
            self._told[key] = now
            self.note(f"{where}: {kind}: {str(first)[:CHARACTERS_MAX]} ({place})")
        return f"hactld has made a mistake ({kind}): 'hactl history --kind bug' on that node says where; please report it"


def first_of(error: BaseException) -> BaseException:
    """Of a group, the first that is none."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def place_of(error: BaseException) -> str:
    """File, line and function where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}" if frames else "nowhere"


def unheard() -> Bugs:
    """Nobody listens."""
    return Bugs(lambda text: None)

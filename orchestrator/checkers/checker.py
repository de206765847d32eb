"""What a checker is: one look, and a hint when it is worth looking again before its interval is over.

When it looks, how long a look may take, how many looks make a verdict (`rise`, `fall`) and in which states of the module it looks at all is
the same for every kind and not its business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look saw; `text` completes "tcp.db is down: …" in words a person can act on (`127.0.0.1:5432 refuses connections`)."""

    up: bool
    text: str = ""


class Checker(Protocol):
    """One kind of checker with what it looks at."""

    async def look(self) -> Finding:
        """Look once. It may be cancelled at its deadline, which counts as down; an OSError counts as down with its text."""
        ...

    async def changed(self) -> None:
        """Return when something changed that makes a look worthwhile at once (a process died, a link went down); else never."""
        ...

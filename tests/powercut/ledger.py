"""What the application was told, and thus what a copy may show after a cut.

A *cell* is one thing that can be looked at: the version of a block, whether a name is there, a mode. Its values follow one another, each
started at an instant (log.py's clock) and, if it was, acknowledged at a later one. A *pin* is an acknowledged fsync that covers the value
that the cell had then. A copy cut at an instant may show the newest value that had to be there, or any that was started since and before
the cut: nothing older, nothing from the future, nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

Key = tuple[str, ...]


class Needs(Enum):
    """What must be there: what was synced (any copy after a cut), or all that was acknowledged (on the one that ran through)."""

    SYNCED = "synced"
    ACKNOWLEDGED = "acknowledged"


@dataclass(slots=True)
class Cell:
    """`values[i]` is (started, acknowledged or never, value); `pins` are (acknowledged, i)."""

    values: list[tuple[int, int | None, Any]] = field(default_factory=list)
    pins: list[tuple[int, int]] = field(default_factory=list)

    def allowed(self, cut: int, needs: Needs) -> tuple[list[Any], bool]:
        """The values that may be seen, and whether any had to be there at all."""
        if needs is Needs.SYNCED:
            first = max((index for at, index in self.pins if at <= cut), default=-1)
        else:
            first = max((index for index, (_, at, _) in enumerate(self.values) if at is not None and at <= cut), default=-1)
        seen = [value for index, (started, _, value) in enumerate(self.values) if index >= max(first, 0) and started <= cut]
        return seen, first >= 0


class Ledger:
    """All cells of one run of a workload."""

    def __init__(self) -> None:
        self.cells: dict[Key, Cell] = {}
        self.operations = 0
        self.syncs = 0
        self.errors: list[str] = []

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """What workload.py wrote; a last line that is torn (it was killed) was not acknowledged."""
        ledger = cls()
        for line in path.read_text().splitlines():
            try:
                note = json.loads(line)
            except ValueError:
                continue
            ledger.note(note)
        return ledger

    def note(self, note: list[Any]) -> None:
        """["start", at, key, value], ["done", at, key…], ["pin", at, [key, index]…], ["error", at, number, text]"""
        kind, at = note[0], note[1]
        if kind == "start":
            self.cells.setdefault(tuple(note[2]), Cell()).values.append((at, None, note[3]))
        elif kind == "done":
            self.operations += 1
            for key in note[2:]:
                cell = self.cells[tuple(key)]
                started, _, value = cell.values[-1]
                cell.values[-1] = (started, at, value)
        elif kind == "error":
            self.errors.append(f"at {at}: {note[3]}")
        else:
            self.syncs += 1
            for key, index in note[2:]:
                self.cells[tuple(key)].pins.append((at, index))

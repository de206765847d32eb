"""Complaints about configuration files: gathered while reading, raised all at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, order=True)
class Complaint:
    """One thing wrong in one file: where, and a sentence that says what to write instead."""

    file: Path
    line: int | None
    key: str
    sentence: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else str(self.file)
        return f"{place}: {self.key}: {self.sentence}" if self.key else f"{place}: {self.sentence}"


class ConfigError(Exception):
    """The configuration cannot be used; `complaints` lists everything that is wrong, never only the first."""

    def __init__(self, complaints: Iterable[Complaint]) -> None:
        self.complaints: tuple[Complaint, ...] = tuple(sorted(complaints, key=lambda c: (str(c.file), c.line or 0, c.key)))
        assert self.complaints, "a ConfigError without a complaint"
        super().__init__("\n".join(str(complaint) for complaint in self.complaints))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean "x"?` when something known is close to `word`, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{close[0]}"?' if close else ""

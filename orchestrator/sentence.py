"""The one exception that the commands show to a person."""

from __future__ import annotations

from rfs import exit_codes


class Sentence(Exception):
    """One sentence (what is wrong, and the next step) and the exit code that goes with it; never a traceback."""

    def __init__(self, message: str, code: int = exit_codes.FAILED) -> None:
        super().__init__(message)
        self.code = code

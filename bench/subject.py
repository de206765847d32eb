"""What is measured: a directory on node1, and the processes that stand behind it on both nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Process = tuple[str, int]  # node, and the id inside of it


def nobody() -> list[Process]:
    """The kernel alone."""
    return []


@dataclass(frozen=True)
class Subject:
    """One column of the table."""

    column: str
    directory: str
    processes: Callable[[], list[Process]] = nobody
    slow: bool = False  # gets a tenth of the files


NATIVE = Subject("native", "/srv/native")

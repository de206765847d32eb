"""The history of this node: a ring in memory for `hactl events`, and the same lines in hactld.log.

Wall time is here for people only; nothing reads it back to decide anything.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

EVENTS_MAX = 2000
LOG_BYTES_MAX = 8 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened."""

    number: int
    wall_s: float
    monotonic_s: float
    module: str
    kind: str
    text: str

    def as_json(self, node: str) -> dict[str, object]:
        """As the API shows it."""
        return {
            "number": self.number,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(self.wall_s)) + f".{int(self.wall_s * 1000) % 1000:03d}",
            "wall_s": self.wall_s,
            "monotonic_s": self.monotonic_s,
            "node": node,
            "module": self.module,
            "kind": self.kind,
            "text": self.text,
        }


class History:
    """Appends lines; keeps the newest."""

    def __init__(self, log_file: Path | None, *, echo: bool = False) -> None:
        self.lines: deque[Line] = deque(maxlen=EVENTS_MAX)
        self.log_file, self.echo = log_file, echo
        self._number = 0

    def add(self, module: str, kind: str, text: str) -> None:
        """One line, in memory and in the file. A full disk must not stop a failover, so a failed write is shown on stderr only."""
        self._number += 1
        line = Line(self._number, time.time(), time.monotonic(), module, kind, text)
        self.lines.append(line)
        written = f"{line.as_json('')['time']} {module or '-'} {kind} {text}\n"
        if self.echo:
            sys.stderr.write(written)
        if self.log_file is None:
            return
        try:
            if self.log_file.exists() and self.log_file.stat().st_size > LOG_BYTES_MAX:
                self.log_file.rename(self.log_file.with_suffix(".log.1"))
            with self.log_file.open("a") as file:
                file.write(written)
        except OSError as error:
            sys.stderr.write(f"hactld: {self.log_file}: {error.strerror}\n")

    def after(self, number: int) -> list[Line]:
        """Everything newer than `number`."""
        return [line for line in self.lines if line.number > number]

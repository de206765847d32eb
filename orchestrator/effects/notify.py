"""The history of this node: what happened, who asked for it, and what each decision rested on.

Three places get every line. `history.jsonl` is the one that is read back: bounded (two files), and the newest lines of it are in
memory from the start, so numbers go on over restarts. `hactld.log` is for eyes and grep. The journal gets it where there is one. A full
or slow disk must not stop a failover: a thread writes (appender.py), and what cannot be written is shown on stderr.

Wall time is here for people only; nothing reads it back to decide anything.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from orchestrator.effects.appender import Appender
from orchestrator.effects.journal import Journal
from rfs.foreign import from_json, moment, whole
from rfs.show import printable

EVENTS_MAX = 2000
LOG_BYTES_MAX = 8 << 20
TEXT_CHARACTERS_MAX = 4000  # of a line: what scripts and peers say has no end by itself


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened."""

    number: int
    wall_s: float
    monotonic_s: float
    module: str
    kind: str
    text: str
    more: Mapping[str, Any] = field(default_factory=dict)  # who and role: of a command; inputs: of a decision

    def as_json(self, node: str) -> dict[str, object]:
        """As the API shows it, and the file keeps it."""
        return {
            "number": self.number,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(self.wall_s)) + f".{int(self.wall_s * 1000) % 1000:03d}",
            "wall_s": self.wall_s,
            "monotonic_s": self.monotonic_s,
            "node": node,
            "module": self.module,
            "kind": self.kind,
            "text": self.text,
            **self.more,
        }


def line_from(text: str) -> Line | None:
    """One line of the file; None for what a crash has torn."""
    try:
        entry = from_json(text)
        more = {name: entry[name] for name in ("who", "role", "inputs") if name in entry}
        numbers = whole(entry["number"]), moment(entry["wall_s"]), moment(entry["monotonic_s"])
        return Line(*numbers, str(entry["module"]), str(entry["kind"]), str(entry["text"]), more)
    except (ValueError, KeyError, TypeError):
        return None


class History:
    """Appends lines; keeps the newest."""

    def __init__(self, log_file: Path | None, *, echo: bool = False, journal: Journal | None = None) -> None:
        self.lines: deque[Line] = deque(maxlen=EVENTS_MAX)
        self.log_file, self.echo, self.journal = log_file, echo, journal
        self._files = Appender(LOG_BYTES_MAX, self._old)
        self.kept_file = log_file.with_name("history.jsonl") if log_file is not None else None
        self._news = trio.Event()
        self._loop: trio.lowlevel.TrioToken | None = None  # of whoever waits for news
        self._read()
        self._number = self.lines[-1].number if self.lines else 0

    def _read(self) -> None:
        """The newest of what was kept. No more is parsed: whoever waits for hactld to start waits for this too."""
        texts: list[str] = []
        for path in (self.kept_file, self._old(self.kept_file)) if self.kept_file is not None else ():
            if len(texts) >= EVENTS_MAX:
                break
            texts = self._texts(path) + texts
        self.lines.extend(line for text in texts[-EVENTS_MAX:] if (line := line_from(text)) is not None)

    def _texts(self, path: Path) -> list[str]:
        try:
            text = path.read_text(errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            sys.stderr.write(f"hactld: {path}: {error.strerror}\n")
            return []
        if text and not text.endswith("\n"):  # a crash has torn it: what comes next is not to be torn as well
            self._files.append(path, "\n")
        return text.splitlines()

    @staticmethod
    def _old(path: Path) -> Path:
        return path.with_suffix(path.suffix + ".1")

    def add(self, module: str, kind: str, text: str, *, who: str = "", role: str = "", inputs: Mapping[str, Any] | None = None) -> None:
        """One line, everywhere. Whoever said it: what is not printable is escaped, a line feed as well (rfs/show.py says why)."""
        text, who = printable(text[:TEXT_CHARACTERS_MAX]), printable(who[:TEXT_CHARACTERS_MAX])
        self._number += 1
        more = {**({"who": who} if who else {}), **({"role": role} if role else {}), **({"inputs": inputs} if inputs is not None else {})}
        line = Line(self._number, time.time(), time.monotonic(), module, kind, text, more)
        self.lines.append(line)
        if self._loop is not None:  # some lines come from threads
            with suppress(trio.RunFinishedError):
                self._loop.run_sync_soon(self._wake, idempotent=True)
        by = f" (by {who})" if who else ""
        shown = line.as_json("")
        written = f"{shown['time']} {module or '-'} {kind} {text}{by}\n"
        if self.echo:
            sys.stderr.write(written)
        if self.journal is not None:
            self.journal.send(f"{module or '-'} {kind} {text}{by}", module, kind)
        if self.log_file is not None and self.kept_file is not None:
            self._files.append(self.log_file, written)
            self._files.append(self.kept_file, json.dumps(shown) + "\n")

    def flush(self) -> None:
        """Until all of it is in the files."""
        self._files.flush()

    def after(self, number: int) -> list[Line]:
        """Everything newer than `number`."""
        return [line for line in list(self.lines) if line.number > number]  # a copy: threads add lines

    async def news(self) -> None:
        """Until the next line."""
        self._loop = trio.lowlevel.current_trio_token()
        await self._news.wait()

    def _wake(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    @property
    def first(self) -> int:
        """The oldest number that is still in memory."""
        return self.lines[0].number if self.lines else self._number + 1

    @property
    def last(self) -> int:
        """The newest number."""
        return self._number

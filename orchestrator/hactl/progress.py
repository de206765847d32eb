"""How far long work is: a bar on a terminal, a line each minute in a log, JSON lines for programs.

The JSON lines have restic's field names (`message_type` is status, and at last summary; `percent_done`, `seconds_remaining`, `bytes_done`,
`total_bytes`, `files_done`, `total_files`), because scripts that read such lines exist already.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from orchestrator.hactl.output import print_json, say
from orchestrator.hactl.session import Session
from orchestrator.units import show_bytes, show_duration

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

LINE_EVERY_S = 60.0
JSON_EVERY_S = 1.0
FIELDS = ("percent_done", "seconds_remaining", "bytes_done", "total_bytes", "files_done", "total_files", "bytes_per_s")


class Progress:
    """Of one piece of work. Use as a context manager."""

    def __init__(self, session: Session, module: str, action: str) -> None:
        self.module, self.action = module, action
        self.as_json = session.format in ("json", "jsonl")
        self.quiet = session.format == "plain"
        self._bar: Bar | None = None
        self._live = not self.as_json and sys.stderr.isatty() and not session.no_color
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Progress:
        if self._live:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"))
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task(f"{self.action} {self.module}", total=100.0, words="")
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, progress: Mapping[str, Any]) -> None:
        """How far it is now."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=progress.get("percent_done") or 0.0, words=words_of(progress))
        elif self.as_json:
            if now - self._told >= JSON_EVERY_S:
                self._told = now
                told = {name: progress[name] for name in FIELDS if name in progress}
                print_json(self._document("hactl.progress/1", "status") | told, one_line=True)
        elif now - self._told >= LINE_EVERY_S and not self.quiet:
            self._told = now
            say(f"{self.action} {self.module}: {words_of(progress)}", err=True)

    def finish(self, code: int, message: str, result: Mapping[str, Any] | None = None) -> None:
        """The last word."""
        if self.as_json:
            end = {"code": code, "message": message, **({"result": dict(result)} if result else {})}
            print_json(self._document("hactl.summary/1", "summary") | end, one_line=True)

    def _document(self, schema: str, kind: str) -> dict[str, Any]:
        elapsed_s = round(time.monotonic() - self._began, 1)
        return {
            "schema": schema, "message_type": kind, "module": self.module, "action": self.action, "seconds_elapsed": elapsed_s,
        }  # fmt: skip


def words_of(progress: Mapping[str, Any]) -> str:
    """`43 %, 1.2 GiB of 2.8 GiB, 120 of 300 files, 120 MiB/s, 12s left`."""
    words = [f"{progress['percent_done']:.0f} %"] if progress.get("percent_done") is not None else []
    if progress.get("total_bytes"):
        words.append(f"{show_bytes(progress.get('bytes_done', 0))} of {show_bytes(progress['total_bytes'])}")
    if progress.get("total_files"):
        words.append(f"{progress.get('files_done', 0)} of {progress['total_files']} files")
    if progress.get("bytes_per_s"):
        words.append(f"{show_bytes(progress['bytes_per_s'])}/s")
    if progress.get("seconds_remaining") is not None:
        words.append(f"{show_duration(progress['seconds_remaining'])} left")
    return ", ".join(words) or "begins"

"""Lines for files, written by a thread of its own: whoever adds one never waits for a disk.

A disk that is busy with other people's fsyncs keeps even a small append for seconds (it waits for the file system's journal), and
hactld's loop must not stand still for that: its peer would take it for dead. One that hangs for good fills a bounded queue; what comes
then is dropped, and counted. What cannot be written is shown on stderr and changes nothing.
"""

from __future__ import annotations

import atexit
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

WAITING_MAX: Final = 20_000
FLUSH_PATIENCE_S: Final = 5.0


class Appender:
    """A queue and its thread, which begins with the first line."""

    def __init__(self, file_bytes_max: int, old: Callable[[Path], Path]) -> None:
        self.file_bytes_max, self.old = file_bytes_max, old
        self.dropped = 0
        self._queue: queue.Queue[tuple[Path, str] | threading.Event] = queue.Queue(WAITING_MAX)
        self._thread: threading.Thread | None = None

    def append(self, path: Path, text: str) -> None:
        """Some time soon, and in this order."""
        try:
            self._queue.put_nowait((path, text))
        except queue.Full:
            self.dropped += 1
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="appender", daemon=True)
            self._thread.start()
            atexit.register(self.flush)

    def flush(self) -> None:
        """Until everything is written that was added before, or patience is over."""
        if self._thread is None:
            return
        done = threading.Event()
        try:
            self._queue.put(done, timeout=FLUSH_PATIENCE_S)
        except queue.Full:
            return
        done.wait(FLUSH_PATIENCE_S)

    def _work(self) -> None:
        while True:
            waiting = [self._queue.get()]
            while not self._queue.empty():
                waiting.append(self._queue.get())
            texts: dict[Path, str] = {}
            for entry in waiting:
                if isinstance(entry, threading.Event):
                    self._write_all(texts)
                    entry.set()
                else:
                    path, text = entry
                    if len(texts.get(path, "")) + len(text) > self.file_bytes_max // 8:  # else a file would grow much too long at once
                        self._write_all(texts)
                    texts[path] = texts.get(path, "") + text
            self._write_all(texts)

    def _write_all(self, texts: dict[Path, str]) -> None:
        for path, text in texts.items():
            try:
                if path.exists() and path.stat().st_size > self.file_bytes_max:
                    path.rename(self.old(path))
                with path.open("a") as file:
                    file.write(text)
            except OSError as error:
                sys.stderr.write(f"hactld: {path}: {error.strerror}\n")
        texts.clear()

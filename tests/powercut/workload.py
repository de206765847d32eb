"""An application that notes, for each operation, when it began and when it was told that it is done (ledger.py reads the notes).

    python -m tests.powercut.workload PLACE ROUND SEED LOG NOTES STOP [REMOVE…]

Eight threads, each in a directory of its own, until the file STOP is there or the mount is dead. PLACE holds the mirrored directories;
all of this run lies in their ROUND/, and the trees named by REMOVE (of rounds before) are deleted meanwhile.
"""

from __future__ import annotations

import errno
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.powercut.log import Clock
from tests.powercut.workers import Appender, Book, Namer, Overwriter, Saver, Setter, SparseOverwriter, Sweeper, Worker

PAUSE_S = 0.006  # at most, between two steps of a thread: what is written between two syncs counts, not how much
DEAD = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV}  # of a node that was cut or fenced


class Crew:
    """The threads, and how they end."""

    def __init__(self, book: Book, stop: Path) -> None:
        self._book = book
        self._stop = stop
        self.failed = False

    def run(self, make: Callable[[], Worker]) -> None:
        """One thread: until told to stop, or until the mount is dead."""
        try:
            worker = make()
            while not self._stop.exists():
                worker.step()
                time.sleep(worker.chance.random() * PAUSE_S)
        except OSError as failure:
            self._book.note("error", failure.errno, str(failure))
            self.failed = self.failed or failure.errno not in DEAD
        except BaseException as failure:
            self._book.note("error", None, repr(failure))
            self.failed = True
            raise


def main(arguments: list[str]) -> int:
    """Work."""
    place, name, seed, log, notes, stop, *remove = arguments
    root, book = Path(place), Book(Path(notes), Clock(Path(log)))
    crew = Crew(book, Path(stop))
    kinds: list[tuple[str, type[Worker]]] = [
        ("wal", Appender), ("data", Overwriter), ("wal", SparseOverwriter), ("data", Saver), ("wal", Namer), ("data", Namer),
        ("data", Setter),
    ]  # fmt: skip
    try:
        for directory in ("data", "wal"):
            os.mkdir(root / directory / name)
            for path in (root / directory, root / directory / name):
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                os.fsync(fd)
                os.close(fd)
    except OSError as failure:
        book.note("error", failure.errno, str(failure))
        return failure.errno not in DEAD
    makers: list[Callable[[], Worker]] = []
    for number, (directory, kind) in enumerate(kinds):
        home = f"{directory}/{name}/{number}-{kind.__name__.lower()}"
        chance = random.Random(f"{seed} {number}")
        makers.append(partial(kind, book, root, home, chance))
    makers.append(lambda: Sweeper(book, root, f"wal/{name}/sweeper", random.Random(seed), remove))
    threads = [threading.Thread(target=crew.run, args=(maker,)) for maker in makers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return int(crew.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

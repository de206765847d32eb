"""What the threads of the application do (workload.py), each in a directory of its own, and what they note about it (ledger.py)."""

from __future__ import annotations

import errno
import json
import mmap
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.powercut import content
from tests.powercut.ledger import Key
from tests.powercut.log import Clock

SYNC_CHANCE = 0.25

Change = tuple[Key, Any]


class Book:
    """The notes: one line each, at once."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._clock = clock

    def note(self, kind: str, *rest: Any) -> None:
        os.write(self._fd, (json.dumps([kind, self._clock.now(), *rest]) + "\n").encode())


class Worker:
    """One thread's work. Each cell is changed by one thread only."""

    def __init__(self, book: Book, place: Path, home: str, chance: random.Random) -> None:
        self._book = book
        self._place = place
        self._values: Counter[Key] = Counter()
        self.home = home  # below the place, like all paths in cells
        self.chance = chance
        os.mkdir(self.at(home))

    def at(self, path: str) -> Path:
        return self._place / path

    def do(self, action: Callable[[], object], *changes: Change) -> None:
        """One operation and what it changes."""
        for key, value in changes:
            self._book.note("start", key, value)
            self._values[key] += 1
        action()
        self._book.note("done", *(key for key, _ in changes))

    def sync(self, action: Callable[[], object], *keys: Key) -> None:
        """One fsync and what it covers."""
        covered = [(key, self._values[key] - 1) for key in keys if self._values[key]]
        action()
        self._book.note("pin", *covered)

    def sync_file(self, path: str, *keys: Key) -> None:
        with self.at(path).open("rb") as file:
            self.sync(lambda: os.fsync(file.fileno()), *keys)

    def sync_directory(self, path: str, *names: str) -> None:
        """Makes the names in it durable."""
        fd = os.open(self.at(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.sync(lambda: os.fsync(fd), *(("name", name) for name in names))
        finally:
            os.close(fd)

    def sometimes(self, share: float = SYNC_CHANCE) -> bool:
        return self.chance.random() < share

    def step(self) -> None:
        raise NotImplementedError


def write_whole(fd: int, data: bytes, at: int | None = None) -> None:
    """All of it, or an error. A write across a page is two requests to a FUSE mount: one that dies in between says so by a short count."""
    written = os.write(fd, data) if at is None else os.pwrite(fd, data, at)
    if written != len(data):
        raise OSError(errno.EIO, f"short write: {written} of {len(data)} bytes")


class Appender(Worker):
    """Logs: appended to, synced now and then, through a descriptor that syncs each write at times; a new one when it is long."""

    LONG = 60_000

    def __init__(self, book: Book, place: Path, home: str, chance: random.Random) -> None:
        super().__init__(book, place, home, chance)
        self._number = 0
        self._begin()

    def _begin(self) -> None:
        self._path = f"{self.home}/log{self._number}"
        self._number += 1
        self._size = 0
        self._pieces: list[Key] = []
        self._is_synced = self.sometimes(0.2)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | (os.O_DSYNC if self._is_synced else 0)
        made: list[int] = []
        self.do(lambda: made.append(os.open(self.at(self._path), flags, 0o640)), (("name", self._path), "file"))
        self._fd = made[0]
        self.sync_directory(self.home, self._path)

    def step(self) -> None:
        if self._size > self.LONG:
            os.close(self._fd)
            self._begin()
        length = self.chance.choice((80, 700, 4096, 9000))
        key = ("piece", self._path, str(self._size), str(length))
        data = content.piece(self._path, self._size, length)
        self.do(lambda: write_whole(self._fd, data), (key, True))
        self._size += length
        self._pieces.append(key)
        if self._is_synced:
            self.sync(lambda: None, key)
        elif self.sometimes():
            self.sync(lambda: os.fdatasync(self._fd) if self.sometimes(0.5) else os.fsync(self._fd), *self._pieces)


class Overwriter(Worker):
    """A database: blocks overwritten in place, some through a mapping."""

    BLOCKS = 48
    STRIDE = 1

    def __init__(self, book: Book, place: Path, home: str, chance: random.Random) -> None:
        super().__init__(book, place, home, chance)
        self._path = f"{home}/table"
        self._versions = [0] * self.BLOCKS
        self._keys: list[Key] = [("block", self._path, str(number * self.STRIDE)) for number in range(self.BLOCKS)]
        made: list[int] = []
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        self.do(lambda: made.append(os.open(self.at(self._path), flags, 0o640)), (("name", self._path), "file"))
        self._fd = made[0]
        for number, key in enumerate(self._keys):
            block = number * self.STRIDE
            data = content.block_of(self._path, block, 0)
            self.do(partial(write_whole, self._fd, data, block * content.BLOCK), (key, 0))
        self.sync(lambda: os.fsync(self._fd), *self._keys)
        self.sync_directory(home, self._path)
        self._mapping = mmap.mmap(self._fd, os.fstat(self._fd).st_size)

    def step(self) -> None:
        number = self.chance.randrange(self.BLOCKS)
        self._versions[number] += 1
        change = self._keys[number], self._versions[number]
        block = number * self.STRIDE
        data, at = content.block_of(self._path, block, self._versions[number]), block * content.BLOCK
        if self.sometimes(0.1):
            self.do(lambda: self._store(at, data), change)
            self.sync(lambda: None, change[0])
            return
        self.do(lambda: write_whole(self._fd, data, at), change)
        if self.sometimes():
            self.sync(lambda: os.fdatasync(self._fd) if self.sometimes(0.5) else os.fsync(self._fd), *self._keys)

    def _store(self, at: int, data: bytes) -> None:
        self._mapping[at : at + len(data)] = data
        self._mapping.flush(at, len(data))


class SparseOverwriter(Overwriter):
    """The same in a file with holes, longer than one place of the marks (4 MiB)."""

    STRIDE = 128


class Saver(Worker):
    """Editors: the new version into a file beside the old one, synced, renamed over it, the directory synced most times."""

    FILES = 6

    def __init__(self, book: Book, place: Path, home: str, chance: random.Random) -> None:
        super().__init__(book, place, home, chance)
        self._versions = [0] * self.FILES

    def step(self) -> None:
        number = self.chance.randrange(self.FILES)
        path, fresh = f"{self.home}/text{number}", f"{self.home}/text{number}.new"
        self._versions[number] += 1
        with self.at(fresh).open("wb") as file:
            file.write(content.whole(path, self._versions[number]))
            file.flush()
            os.fsync(file.fileno())
        key: Key = ("whole", path)
        self.do(lambda: os.rename(self.at(fresh), self.at(path)), (key, self._versions[number]))
        if self.sometimes(0.7):
            directory = os.open(self.at(self.home), os.O_RDONLY | os.O_DIRECTORY)
            self.sync(lambda: os.fsync(directory), *(("whole", f"{self.home}/text{each}") for each in range(self.FILES)))
            os.close(directory)


class Namer(Worker):
    """Names of every kind come, move between two directories, and go."""

    NAMES = 8

    def __init__(self, book: Book, place: Path, home: str, chance: random.Random) -> None:
        super().__init__(book, place, home, chance)
        self._directories = [f"{home}/left", f"{home}/right"]
        self._kinds: dict[str, str] = {}
        self._count = 0
        for directory in self._directories:
            self.do(partial(os.mkdir, self.at(directory)), (("name", directory), "dir"))
        self.sync_directory(home, *self._directories)

    def step(self) -> None:
        directory = self.chance.choice(self._directories)
        path = f"{directory}/name{self.chance.randrange(self.NAMES)}"
        kind = self._kinds.get(path)
        if kind is None:
            self._make(path)
        elif self.sometimes(0.5):
            self._move(path, kind)
        else:
            self.do(lambda: os.rmdir(self.at(path)) if kind == "dir" else os.unlink(self.at(path)), (("name", path), None))
            del self._kinds[path]
        if self.sometimes():
            self.sync_directory(directory, *(f"{directory}/name{number}" for number in range(self.NAMES)))

    def _make(self, path: str) -> None:
        self._count += 1
        existing = next((other for other, kind in self._kinds.items() if kind == "file"), None)
        how = self.chance.choice(("file", "dir", "symlink", "hard link", "fifo"))
        if how == "dir":
            self._note(path, "dir", lambda: os.mkdir(self.at(path), 0o711))
        elif how == "symlink":
            target = f"somewhere {self._count}"
            self._note(path, f"link:{target}", lambda: os.symlink(target, self.at(path)))
        elif how == "hard link" and existing is not None:
            self._note(path, "file", lambda: os.link(self.at(existing), self.at(path)))
        elif how == "fifo":
            self._note(path, "fifo", lambda: os.mkfifo(self.at(path)))
        else:
            self._note(path, "file", lambda: self.at(path).write_bytes(b"some words\n" * self.chance.randrange(900)))

    def _note(self, path: str, kind: str, action: Callable[[], object]) -> None:
        self.do(action, (("name", path), kind))
        self._kinds[path] = kind

    def _move(self, path: str, kind: str) -> None:
        other = self.chance.choice(self._directories)
        target = f"{other}/name{self.chance.randrange(self.NAMES)}"
        if self._kinds.get(target) is not None and (kind == "dir" or self._kinds[target] != kind or kind == "file"):
            return  # directories need an empty place, and a rename to another name of the same file does nothing
        if target == path:
            return
        self.do(lambda: os.rename(self.at(path), self.at(target)), (("name", path), None), (("name", target), kind))
        del self._kinds[path]
        self._kinds[target] = kind


class Setter(Worker):
    """Modes, owners, times, extended attributes and sizes."""

    FILES = 4

    def __init__(self, book: Book, place: Path, home: str, chance: random.Random) -> None:
        super().__init__(book, place, home, chance)
        for number in range(self.FILES):
            path = f"{home}/file{number}"
            self.do(partial(self.at(path).write_bytes, b"x" * 20_000), (("name", path), "file"))
            self.sync_file(path)
        self.sync_directory(home, *(f"{home}/file{number}" for number in range(self.FILES)))

    def step(self) -> None:
        number = self.chance.randrange(self.FILES)
        path = f"{self.home}/file{number}"
        at = self.at(path)
        if number == 0:  # a truncation changes the time as well: sizes have a file of their own
            size = self.chance.randrange(2, 200_000)
            if self.sometimes(0.3):
                self._allocate(path, at, size)
            else:
                self.do(lambda: os.truncate(at, size), (("size", path), size))
        else:
            self._set(path, at)
        if self.sometimes():
            self.sync_file(path, *((kind, path) for kind in ("size", "mode", "owner", "mtime", "xattr")))

    def _allocate(self, path: str, at: Path, size: int) -> None:
        with at.open("r+b") as file:
            grown = max(size, os.fstat(file.fileno()).st_size)
            self.do(lambda: os.posix_fallocate(file.fileno(), size // 2, size - size // 2), (("size", path), grown))

    def _set(self, path: str, at: Path) -> None:
        what = self.chance.choice(("mode", "owner", "mtime", "xattr"))
        value = self.chance.randrange(1 << 30)
        if what == "mode":
            mode = value % 0o1000
            self.do(lambda: os.chmod(at, mode), (("mode", path), mode))
        elif what == "owner":
            self.do(lambda: os.chown(at, value % 60_000, -1), (("owner", path), value % 60_000))
        elif what == "mtime":
            self.do(lambda: os.utime(at, ns=(value, value * 1_000_003)), (("mtime", path), value * 1_000_003))
        else:
            text = str(value) * (1 + value % 30)
            self.do(lambda: os.setxattr(at, "user.powercut", text.encode()), (("xattr", path), text))


class Sweeper(Worker):
    """Deletes what rounds before have left, then makes and deletes trees of its own. Nothing of it is in a cell: that the two copies
    are equal is asked of it like of everything."""

    def __init__(self, book: Book, place: Path, home: str, chance: random.Random, remove: list[str]) -> None:
        super().__init__(book, place, home, chance)
        self._remove = remove
        self._count = 0

    def step(self) -> None:
        if self._remove:
            shutil.rmtree(self.at(self._remove.pop()))
            return
        tree = self.at(f"{self.home}/tree{self._count % 3}")
        if tree.exists():
            shutil.rmtree(tree)
        self._count += 1
        for number in range(4):
            (tree / f"branch{number}").mkdir(parents=True)
            (tree / f"branch{number}" / "leaf").write_bytes(b"leaf" * self.chance.randrange(3000))
        os.rename(tree / "branch0", tree / "moved")
        os.link(tree / "moved" / "leaf", tree / "other name")

"""What the kernel remembers of files whose disk has lied.

After a failed write-back the pages are called clean and keep what never reached the disk. To compare them with the peer's would find no
difference, and the resync of a FAILED copy would leave the hole where it is. So they are thrown away before: what is read then is the disk.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress


def forget(trees: Sequence[int]) -> int:
    """Drop the clean pages of every file below; returns of how many. What cannot be opened is left: the resync will find out."""
    count = 0
    for tree in trees:
        for directory, names in _directories(tree):
            for name in names:
                try:
                    if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                        continue
                    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
                except OSError:
                    continue
                try:
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                    count += 1
                finally:
                    os.close(file)
    return count


def _directories(tree: int) -> Iterator[tuple[int, list[str]]]:
    """Each directory, open, with its names that are no directories. Not os.fwalk: a tree may be deeper than a stack."""
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        way = waiting.pop()
        try:
            directory = _open(tree, way)
        except OSError:
            continue
        try:
            names: list[str] = []
            with suppress(OSError):
                for entry in os.scandir(directory):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((*way, entry.name))
                    else:
                        names.append(entry.name)
            yield directory, names
        finally:
            os.close(directory)


def _open(tree: int, way: Sequence[str]) -> int:
    at = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    for name in way:
        above = at
        try:
            at = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        finally:
            os.close(above)
    return at

"""Have the file systems below the replicated directories room, and may they be written to?

What is asked is the file system that holds the data, never the mirror that lies over it: a mirror that is frozen would hang whoever
asks. The mount table tells which one that is, and whether the kernel has made it read-only (as ext4 does after an error). Mostly it can
be asked through the directory's parent; where a file system of its own is mounted exactly there, a child in a mount namespace of its own
takes the mirror off and asks what is beneath.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from orchestrator.checkers.checker import Finding
from orchestrator.checkers.one_thread import OneThread
from orchestrator.checkers.targets import parse_free
from orchestrator.units import show_bytes
from rfs.mount_table import MountEntry, read_mount_table, stack_at

CHILD_DEADLINE_S = 5.0
BENEATH = Path(__file__).with_name("beneath.py")


@dataclass(frozen=True, slots=True)
class Room:
    """Of a file system: bytes and inodes, and what an ordinary user may still take of them."""

    total_bytes: int
    free_bytes: int
    total_inodes: int
    free_inodes: int

    @property
    def free_percent(self) -> int:
        """Of the bytes; of a file system that has none, all of them."""
        return self.free_bytes * 100 // self.total_bytes if self.total_bytes > 0 else 100


@dataclass(frozen=True, slots=True)
class Place:
    """Where a directory's file system can be asked: at `path`, after so many layers of ours have been taken off it."""

    path: str
    layers: int
    read_only: bool


class DiskChecker:
    """Up while each has enough room and may be written to."""

    def __init__(self, directories: Sequence[str], min_free: str = "5%", min_free_inodes: str = "2%") -> None:
        self.directories, self.min_free, self.min_free_inodes = directories, min_free, min_free_inodes
        self._bytes, self._inodes = parse_free(min_free), parse_free(min_free_inodes)
        self._thread = OneThread()

    async def look(self) -> Finding:
        """All of them, in a thread: a disk that stands still hangs whoever asks."""
        troubles, least = await self._thread.run(self._look_at_all)
        return Finding(not troubles, "; ".join(troubles) or f"at least {least} % are free")

    async def changed(self) -> None:
        """Nobody tells."""
        await trio.sleep_forever()

    def _look_at_all(self) -> tuple[list[str], int]:
        """What is wrong, and how much is free of the fullest in percent."""
        troubles, least, table = list[str](), 100, read_mount_table()
        for directory in self.directories:
            try:
                place = place_of(directory, table)
                room = measure(place)
            except OSError as error:
                troubles.append(f"{directory} cannot be looked at: {error.strerror or error}")
                continue
            troubles += self._troubles(directory, place, room)
            least = min(least, room.free_percent)
        return troubles, least

    def _troubles(self, directory: str, place: Place, room: Room) -> list[str]:
        found = []
        if place.read_only:
            found.append(f"{directory} lies on a file system that is read-only")
        if not self._bytes.enough(room.free_bytes, room.total_bytes):
            found.append(f"{directory} has {show_bytes(room.free_bytes)} free of {show_bytes(room.total_bytes)}, less than {self.min_free}")
        if not self._inodes.enough(room.free_inodes, room.total_inodes):
            free = f"{room.free_inodes} of {room.total_inodes} inodes"
            found.append(f"{directory} has {free} free, less than {self.min_free_inodes}")
        return found


def place_of(directory: str, table: list[MountEntry]) -> Place:
    """Where the file system of this directory can be asked without asking the mirror."""
    path = os.path.join(os.path.realpath(Path(directory).parent), Path(directory).name)
    stack, around = stack_at(path, table), _around(path, table)
    plain = [entry for entry in stack if not entry.is_ours]
    holder = plain[-1] if plain else around  # the uppermost is a guard perhaps, which is the same file system
    if len(plain) == len(stack):
        return Place(path, 0, holder.is_read_only_file_system)
    if holder.device == around.device:
        return Place(str(Path(path).parent), 0, holder.is_read_only_file_system)
    return Place(path, len(stack) - stack.index(holder) - 1, holder.is_read_only_file_system)


def _around(path: str, table: list[MountEntry]) -> MountEntry:
    """The mount that the directory lies in."""
    for parent in Path(path).parents:
        if stack := stack_at(str(parent), table):
            return stack[-1]
    raise OSError(f"no file system holds {path}")


def measure(place: Place) -> Room:
    """Ask it (blocking)."""
    if not place.layers:
        found = os.statvfs(place.path)
        return Room(found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail, found.f_files, found.f_favail)
    words = [sys.executable, "-I", "-S", str(BENEATH), place.path, str(place.layers)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=CHILD_DEADLINE_S, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise OSError("it does not answer") from None
    if done.returncode != 0:
        raise OSError(done.stderr.strip().rpartition("\n")[2] or "it cannot be asked")
    total_bytes, free_bytes, total_inodes, free_inodes = (int(word) for word in done.stdout.split())
    return Room(total_bytes, free_bytes, total_inodes, free_inodes)

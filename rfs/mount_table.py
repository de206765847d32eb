"""/proc/self/mountinfo: which mounts lie on a path, from the bottom to the top."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FUSE_TYPE = "fuse.lockstep"


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One line of mountinfo."""

    mount_id: int
    parent_id: int
    path: str
    options: frozenset[str]
    file_system: str
    device: str = ""  # major:minor: mounts of one file system have the same
    is_read_only_file_system: bool = False  # all of it, not only this mount

    @property
    def is_ours(self) -> bool:
        """One of rfsmount's FUSE layers, of this process or another."""
        return self.file_system == FUSE_TYPE

    @property
    def is_read_only(self) -> bool:
        return "ro" in self.options


def unescape(text: str) -> str:
    """The kernel writes space, tab, newline and backslash as three octal digits."""
    raw = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text.encode(errors="surrogateescape"))
    return raw.decode(errors="surrogateescape")


def parse_mount_table(lines: Iterable[str]) -> list[MountEntry]:
    """The entries of a mountinfo text."""
    entries = []
    for line in lines:
        fields = line.split(" ")
        kind = fields.index("-") + 1
        options = frozenset(fields[5].split(","))
        gives_up = "ro" in fields[kind + 2].split(",")
        entries.append(MountEntry(int(fields[0]), int(fields[1]), unescape(fields[4]), options, fields[kind], fields[2], gives_up))
    return entries


def lines_of(text: str) -> list[str]:
    """The kernel ends lines with a newline and escapes it in names, and nothing else that Python takes for the end of a line."""
    return [line for line in text.split("\n") if line]


def read_mountinfo() -> str:
    """The mounts of this process' namespace, now. Read as bytes: of text Python makes newlines out of carriage returns, and a name may
    have them."""
    return Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape")


def read_mount_table() -> list[MountEntry]:
    """The same, taken apart."""
    return parse_mount_table(lines_of(read_mountinfo()))


def stack_at(path: str, table: list[MountEntry]) -> list[MountEntry]:
    """The mounts exactly at `path`, the lowest first: each lies on the root of the one below."""
    here = {entry.mount_id: entry for entry in table if entry.path == path}

    def depth(entry: MountEntry) -> int:
        steps, current = 0, entry
        while current.parent_id in here and steps <= len(here):
            current, steps = here[current.parent_id], steps + 1
        return steps

    return sorted(here.values(), key=depth)


def beneath(path: str, table: list[MountEntry]) -> list[str]:
    """Mount points inside `path`."""
    return sorted({entry.path for entry in table if entry.path.startswith(path.rstrip("/") + "/")})

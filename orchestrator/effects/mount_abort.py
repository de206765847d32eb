"""Ending a FUSE connection from outside, when who serves it does not: every operation on it fails at once, and whoever waits is free.

By the kernel's own switch (`/sys/fs/fuse/connections/N/abort`, N being the mount's device), or where fusectl is not mounted by a forced
umount(2), which aborts before it finds the mount in use. Both only ask the kernel; neither waits for rfsmount.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

from rfs.mount_table import FUSE_TYPE, lines_of, read_mountinfo, unescape

CONTROL = Path("/sys/fs/fuse/connections")
MNT_FORCE = 1


def connections(mountinfo: str, directories: Iterable[str]) -> dict[int, str]:
    """The number of each FUSE connection of ours that is mounted on one of the directories, with one of its mount points."""
    wanted, found = set(directories), dict[int, str]()
    for line in lines_of(mountinfo):
        fields = line.split(" ")
        path, (major, _, minor) = unescape(fields[4]), fields[2].partition(":")
        if path in wanted and fields[fields.index("-") + 1] == FUSE_TYPE and major == "0":
            found.setdefault(int(minor), path)
    return found


def abort(directories: Iterable[str], control: Path = CONTROL) -> list[int]:
    """Abort them; the numbers of those that were. Never waits for who serves them."""
    done = []
    for number, path in connections(read_mountinfo(), directories).items():
        try:
            (control / str(number) / "abort").write_text("1")
        except OSError:
            ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(path), MNT_FORCE)  # EBUSY: aborted, and still mounted
        done.append(number)
    return done

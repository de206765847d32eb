"""Is a tree one that a copy may show? The ledger says what may be seen; this looks."""

from __future__ import annotations

import errno
import os
import stat
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.lab.trees import Manifest
from tests.powercut import content
from tests.powercut.ledger import Cell, Key, Ledger, Needs
from tests.powercut.node import manifest_of

SHOWN = 6


def check(place: Path, ledger: Ledger, cut: int, needs: Needs) -> list[str]:
    """What is wrong with the copy at `place`; nothing: it is as it may be after a cut at `cut`."""
    look = _Look(place, cut, needs)
    wrong = [sentence for key, cell in ledger.cells.items() if (sentence := look.at(key, cell))]
    return wrong[:SHOWN] + ([f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else [])


class _Look:
    def __init__(self, place: Path, cut: int, needs: Needs) -> None:
        self._place, self._cut, self._needs = place, cut, needs
        self._bytes = cache(self._read)

    def _read(self, path: str) -> bytes | None:
        try:
            with open(self._place / path, "rb", opener=_regular) as file:
                return file.read()
        except FileNotFoundError:
            return None

    def at(self, key: Key, cell: Cell) -> str:
        """The sentence that tells what is wrong with one cell, or nothing."""
        try:
            return self._at(key, cell)
        except OSError as failure:  # a broken file system, say
            return f"{'/'.join(key)}: {failure.strerror}"

    def _at(self, key: Key, cell: Cell) -> str:
        allowed, had_to_be = cell.allowed(self._cut, self._needs)
        kind, path = key[0], key[1]
        found: object
        if kind == "name":
            found = self._name(path)
            good = found in allowed or (not had_to_be and found is None)
        elif not had_to_be and self._name(path) is None:
            return ""
        elif kind == "piece":
            if not had_to_be:
                return ""  # it may be there, in part, or not
            offset, length = int(key[2]), int(key[3])
            found = "other bytes"
            good = (self._bytes(path) or b"")[offset : offset + length] == content.piece(path, offset, length)
        elif kind == "block":
            return self._block(path, int(key[2]), allowed) if had_to_be else ""
        elif kind == "whole":
            data = self._bytes(path)
            good = data is not None and any(data == content.whole(path, version) for version in allowed)
            found = None if data is None else data.split(b"\n")[0][-40:]
        else:
            if not had_to_be:
                return ""
            found = self._attribute(kind, path)
            good = found in allowed
        if good:
            return ""
        why = "has to be there" if had_to_be else f"is there as {self._name(path)}"
        return f"{kind} {'/'.join(key[1:])} ({why}): is {found!r:.60}, may be {_shown(allowed)}"

    def _name(self, path: str) -> str | None:
        try:
            status = os.lstat(self._place / path)
        except FileNotFoundError:
            return None
        if stat.S_ISLNK(status.st_mode):
            return f"link:{os.readlink(self._place / path)}"
        return "dir" if stat.S_ISDIR(status.st_mode) else "fifo" if stat.S_ISFIFO(status.st_mode) else "file"

    def _block(self, path: str, block: int, allowed: list[Any]) -> str:
        """Each sector is whole, of an allowed version; several versions of them in one block may be the trace of a torn write."""
        try:
            with open(self._place / path, "rb", buffering=0, opener=_regular) as file:
                data = os.pread(file.fileno(), content.BLOCK, block * content.BLOCK)
        except FileNotFoundError:
            data = b""
        for index in range(content.BLOCK // content.SECTOR):
            found = data[index * content.SECTOR : (index + 1) * content.SECTOR]
            version = content.version_of(found)
            if version not in allowed or found != content.sector(path, block, index, version):
                return f"block {path} {block}, sector {index}: is version {version}, may be {_shown(allowed)}"
        return ""

    def _attribute(self, kind: str, path: str) -> object:
        at = self._place / path
        try:
            status = os.lstat(at)
            if kind == "xattr":
                return os.getxattr(at, "user.powercut").decode()
        except OSError as failure:
            return failure.strerror
        return {
            "mode": stat.S_IMODE(status.st_mode), "owner": status.st_uid, "mtime": status.st_mtime_ns, "size": status.st_size,
        }[kind]  # fmt: skip


def _regular(path: str, flags: int) -> int:
    """On a broken disk a file may have become a pipe, whose opening waits for ever."""
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is no file any more", path)
    return fd


def _shown(allowed: list[Any]) -> str:
    texts = [repr(value)[:40] for value in allowed]
    return " or ".join(texts[:4]) + (f" or {len(texts) - 4} others" if len(texts) > 4 else "")


def below(tree: Manifest, rounds: set[str]) -> Manifest:
    """The part of a tree that lies in the directories of these rounds."""
    return {path: described for path, described in tree.items() if len(parts := path.split("/")) > 1 and parts[1] in rounds}


def check_unchanged(place: Path, expected: Manifest) -> list[str]:
    """What nobody has touched since both nodes had it on their disks is as it was."""
    if not expected:
        return []
    rounds = {path.split("/")[1] for path in expected}
    try:
        found = below(manifest_of(place), rounds)
    except OSError as failure:
        return [f"{failure.filename}: {failure.strerror}"]
    wrong = [
        f"{path}: was {expected.get(path)}, is {found.get(path)}"
        for path in sorted({*expected, *found})
        if expected.get(path) != found.get(path)
    ]
    return wrong[:SHOWN]

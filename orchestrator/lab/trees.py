"""Are two trees equal? Names, type, mode, owner, size, content, hard-link groups, mtime, link target, device number and extended
attributes count; atime, ctime, inode numbers and directory sizes do not.

    python -m orchestrator.lab.trees DIRECTORY...      prints one JSON object: path -> what counts
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

HIDDEN_NAMES = frozenset({".lockstep-holding", ".lockstep-kept", ".lockstep-before"})
HIDDEN_ATTRIBUTES = "trusted.lockstep."
READ_BYTES = 1 << 20
ZEROS = bytes(READ_BYTES)

Manifest = dict[str, dict[str, Any]]


def _content(path: str) -> str:
    """Of the blocks that are not all zeros, with their places: a hole and zeros that were written are the same content."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb", buffering=0) as file:
        while block := _next_data(file.fileno()):
            if block != ZEROS[: len(block)]:
                digest.update((os.lseek(file.fileno(), 0, os.SEEK_CUR) - len(block)).to_bytes(8))
                digest.update(block)
    return digest.hexdigest()


def _next_data(fd: int) -> bytes:
    """The next whole block with data in it; nothing: the end."""
    try:
        at = os.lseek(fd, os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_DATA)
    except OSError as failure:
        if failure.errno != errno.ENXIO:
            raise
        return b""
    block = os.pread(fd, READ_BYTES, at - at % READ_BYTES)
    os.lseek(fd, at - at % READ_BYTES + len(block), os.SEEK_SET)
    return block


def _attributes(path: str) -> dict[str, str]:
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in sorted(names) if not name.startswith(HIDDEN_ATTRIBUTES)}


def _describe(path: str, seen: dict[tuple[int, int], str]) -> dict[str, Any]:
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    out: dict[str, Any] = {
        "type": oct(kind),
        "mode": oct(stat.S_IMODE(status.st_mode)),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime_ns": status.st_mtime_ns,
        "xattrs": _attributes(path),
    }
    if stat.S_ISREG(kind):
        out |= {"size": status.st_size, "content": _content(path)}
    elif stat.S_ISLNK(kind):
        out["target"] = os.readlink(path)
    elif stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
        out["rdev"] = status.st_rdev
    if not stat.S_ISDIR(kind) and status.st_nlink > 1:
        out["same_file_as"] = seen.setdefault((status.st_dev, status.st_ino), path)
    return out


def manifest(directory: str) -> Manifest:
    """Everything below a directory, and itself as "."."""
    out: Manifest = {}
    seen: dict[tuple[int, int], str] = {}
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(directory)
        out["."] = _describe(".", seen)
        for parent, directories, files in os.walk("."):
            directories[:] = sorted(name for name in directories if name not in HIDDEN_NAMES)
            for name in sorted([*directories, *files]):
                path = os.path.normpath(os.path.join(parent, name))
                with suppress(FileNotFoundError):  # gone since it was listed: who compares sees that something was done meanwhile
                    out[path] = _describe(path, seen)
    finally:
        os.fchdir(here)
        os.close(here)
    return out


def mirrored(tree: Manifest, exclude: Sequence[str]) -> Manifest:
    """Without what is local by these patterns (rfs/patterns.py has their rules), and what lies below that."""
    local = [re.compile(expression(pattern)) for pattern in exclude]
    return {path: found for path, found in tree.items() if not any(each.fullmatch(path) for each in local)}


def expression(pattern: str) -> str:
    """A pattern as a regular expression over paths."""
    names = pattern.removeprefix("./").split("/")
    names = names if "/" in pattern else ["**", *names]
    *above, last = names
    inner = "".join("(?:[^/]+/)*" if name == "**" else f"{_name(name)}/" for name in above)
    return inner + (".+" if last == "**" else f"{_name(last)}(?:/.*)?")


def _name(pattern: str) -> str:
    """`*` and `?` within one name."""
    return re.escape(pattern).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")


def differences(one: Manifest, other: Manifest, limit: int = 10) -> list[str]:
    """The first few sentences that tell them apart; empty when equal."""
    out = [f"only in the first: {path}" for path in sorted(one.keys() - other.keys())]
    out += [f"only in the second: {path}" for path in sorted(other.keys() - one.keys())]
    for path in sorted(one.keys() & other.keys()):
        for field in sorted({*one[path], *other[path]}):
            if one[path].get(field) != other[path].get(field):
                out.append(f"{path}: {field} {one[path].get(field)} / {other[path].get(field)}")
    return out[:limit]


def main(arguments: list[str]) -> int:
    """Print the manifests of the directories named."""
    json.dump({directory: manifest(directory) for directory in arguments}, sys.stdout)
    return 0 if all(Path(directory).is_dir() for directory in arguments) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

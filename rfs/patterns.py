"""`--exclude` and `--only`: what of the directories is local, and so never heard of by the peer. csrc/scope.c does the matching.

A pattern that begins with a directory's own path is for that directory and counts from its top; any other is for all of them.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from rfs import exit_codes
from rfs.errors import SaidNo

PARTS_MAX = 62  # the engine keeps one bit for each, with two of its own


@dataclass(frozen=True, slots=True)
class Patterns:
    """Of one directory. With `only`, what none of those matches is local as well."""

    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()


def reason_against(pattern: str) -> str | None:
    """Why it is not a pattern (relative to a directory); None: it is one."""
    names = pattern.removeprefix("./").split("/")
    if pattern.startswith("/"):
        return "it is an absolute path"
    if "" in names:
        return "a name in it is empty"
    if "." in names or ".." in names:
        return '"." and ".." are not names'
    if "\0" in pattern or len(pattern.encode()) > 1024:
        return "it has to be 1 to 1024 bytes without NUL"
    return None


def parts_of(pattern: str) -> int:
    """How many names it consists of for the engine."""
    return len(pattern.removeprefix("./").split("/")) + (0 if "/" in pattern else 1)  # without a slash: at any depth


def by_directory(directories: Sequence[str], exclude: Sequence[str], only: Sequence[str]) -> tuple[Patterns, ...]:
    """By the directories' positions."""
    sorted_out = [
        Patterns(_of(directory, directories, exclude, "--exclude"), _of(directory, directories, only, "--only"))
        for directory in directories
    ]
    for directory, patterns in zip(directories, sorted_out, strict=True):
        if sum(map(parts_of, patterns.exclude + patterns.only)) > PARTS_MAX:
            raise SaidNo(
                f"{directory}: its patterns have more than {PARTS_MAX} names in all; fewer are needed", exit_codes.CONFIGURATION_INVALID
            )
    return tuple(sorted_out)


def _of(directory: str, directories: Sequence[str], given: Sequence[str], option: str) -> tuple[str, ...]:
    found = []
    for pattern in given:
        relative = pattern
        if pattern.startswith("/"):
            owner = next((one for one in directories if pattern.startswith(one + "/")), None)
            if owner not in (None, directory):
                continue
            if owner:
                rest = pattern.removeprefix(owner + "/")
                relative = rest if "/" in rest else f"./{rest}"
        if reason := reason_against(relative):
            raise SaidNo(
                f'{option} {pattern}: is not a pattern: {reason}; examples are "*.tmp" and "cache/**"', exit_codes.CONFIGURATION_INVALID
            )
        found.append(relative)
    return tuple(found)


def within(directory: str, pattern: str) -> str:
    """The option's word for a pattern of this directory alone."""
    rest = pattern.removeprefix("./")
    return f"{directory}/{rest}" if "/" in pattern else f"{directory}/**/{rest}"


def digest(patterns: Sequence[Patterns], refuses: int = 0) -> str:
    """The same on two nodes that leave out, and refuse, the same. (Where nothing is refused it is that of releases that refuse nothing.)"""
    plain: list[object] = [[sorted(one.exclude), sorted(one.only)] for one in patterns]
    if refuses:
        plain.append(refuses)
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()

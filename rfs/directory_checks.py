"""Which directories may be mirrored. Every refusal is one sentence: place, reason, next step.

Nothing here touches a directory beyond looking at it, and the first function does not even do that: a dead FUSE mount of an rfsmount that
was killed answers nothing, and has to be taken off before anything can be looked at.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from rfs import exit_codes
from rfs.errors import SaidNo
from rfs.mount_table import MountEntry, beneath

# Mirroring one of these itself would put the running system under a mount; inside some of them nothing is data at all.
SYSTEM_TREES = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc"),
    *("/root", "/run", "/sbin", "/sys", "/tmp", "/usr", "/var"),
)
ID_ATTRIBUTE = "trusted.lockstep.id"  # FID_ATTRIBUTE of csrc/engine.h
NO_DATA_WITHIN = ("/dev", "/proc", "/sys")


def _refuse(sentence: str) -> SaidNo:
    return SaidNo(sentence, exit_codes.CONFIGURATION_INVALID)


def _inside(path: str, outer: str) -> bool:
    return path == outer or path.startswith(outer.rstrip("/") + "/")


def resolve_directories(directories: Sequence[str], state_directory: str) -> list[str]:
    """The real paths, after everything that the names alone can tell."""
    state = os.path.realpath(state_directory)
    resolved: list[str] = []
    for directory in directories:
        path = os.path.realpath(directory)
        shown = directory if path == directory else f"{directory} ({path})"
        if path == "/":
            raise _refuse(f"{shown}: the root of the system cannot be mirrored; name the directory that holds the data")
        if path in SYSTEM_TREES or any(_inside(path, tree) for tree in NO_DATA_WITHIN):
            raise _refuse(f"{shown}: this is a system tree and cannot be mirrored; name the directory that holds the data")
        if _inside(state, path):
            raise _refuse(f"{shown}: contains the state directory {state}; put the state elsewhere with --state")
        if _inside(path, state):
            raise _refuse(f"{shown}: lies inside the state directory {state}; put the state elsewhere with --state")
        for other in resolved:
            if path == other:
                raise _refuse(f"{shown}: is given twice; name each directory once")
            if _inside(path, other) or _inside(other, path):
                raise _refuse(f"{shown}: {max(path, other, key=len)} is nested in {min(path, other, key=len)}; name only the outer one")
        resolved.append(path)
    return resolved


def check_existing(path: str, table: list[MountEntry]) -> None:
    """Is there a directory at `path`, without another mount beneath it?"""
    try:
        if not os.path.isdir(path):
            kind = "is no directory" if os.path.lexists(path) else "does not exist; create it first"
            raise _refuse(f"{path}: {kind}")
        os.scandir(path).close()
    except OSError as failure:
        raise _refuse(f"{path}: cannot be read ({failure.strerror})") from failure
    inner = beneath(path, table)
    if inner:
        raise _refuse(f"{path}: another file system is mounted beneath it at {inner[0]}; mirror that directory by itself or unmount it")


def holders(paths: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """(pid, command, path) of every process that has something in the plain trees open, mapped, or as its working directory."""
    devices = {os.stat(path).st_dev for path in paths}
    prefixes = tuple(path.rstrip("/") + "/" for path in paths)
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        for link in _links_of(entry.path):
            try:
                target = os.readlink(link)
                if (target in paths or target.startswith(prefixes)) and os.stat(link).st_dev in devices:
                    yield int(entry.name), _command(entry.path), target
                    break
            except OSError:
                continue  # closed meanwhile


def _links_of(process: str) -> Iterator[str]:
    yield f"{process}/cwd"
    for kind in ("fd", "map_files"):
        try:
            names = os.listdir(f"{process}/{kind}")
        except OSError:
            continue  # ended meanwhile
        for name in names:
            yield f"{process}/{kind}/{name}"


def _command(process: str) -> str:
    try:
        return Path(process, "comm").read_text().strip()
    except OSError:
        return "?"


def refuse_holders(paths: Sequence[str]) -> None:
    """Whoever holds the plain tree would write behind the mirror's back."""
    found = list(holders(paths))
    if found:
        named = ", ".join(f"{command} (pid {pid}, {target})" for pid, command, target in found[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise SaidNo(f"{paths[0] if len(paths) == 1 else 'the directories'}: still in use by {named}{more}; stop it before mounting")


def carries_ids(path: str) -> bool:
    """Was anything in it mirrored before, by this module or another? Its ids may be the same as others' here: they are given anew for each
    module. Looks at every entry until it finds one."""
    for place, directories, files in os.walk(path):
        for name in (*directories, *files):
            try:
                os.getxattr(os.path.join(place, name), ID_ATTRIBUTE, follow_symlinks=False)
                return True
            except OSError as failure:
                if failure.errno not in (errno.ENODATA, errno.ENOENT):
                    return True  # what cannot be looked at is no reason to believe
    return False


def begins_with_ids(path: str) -> bool:
    """Was it mirrored as a whole before? Then what lies at its top has ids as well; a look there costs nothing in a large tree."""
    with os.scandir(path) as entries:
        return any(_has_id(entry.path) for entry in entries if entry.name not in NOT_CONTENT)


def _has_id(path: str) -> bool:
    try:
        os.getxattr(path, ID_ATTRIBUTE, follow_symlinks=False)
    except OSError:
        return False
    return True


def forget_ids(path: str) -> None:
    """Take the ids off everything in it, before the state that gave them is put away: a new one would count from the beginning, and give
    a file that has none the id of one that has. What cannot be changed keeps its id."""
    for place, directories, files in os.walk(path):
        for entry in (place, *(os.path.join(place, name) for name in (*directories, *files))):
            try:
                os.removexattr(entry, ID_ATTRIBUTE, follow_symlinks=False)
            except OSError:
                continue


def is_empty(root: int | str) -> bool:
    """Does the tree hold nothing of anybody's? (The engine's own places and a file system's lost+found do not count.)"""
    with os.scandir(root) as entries:
        return all(entry.name in NOT_CONTENT for entry in entries)


NOT_CONTENT = frozenset({".lockstep-holding", ".lockstep-kept", ".lockstep-before", "lost+found"})

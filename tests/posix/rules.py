"""A small language for rules of POSIX, and what does each of them twice: on the mount and on a plain directory beside it.

A case is a directory of things ("file f 4755 one:team; dir d 1777"), a user, and calls that this user makes in it. What is compared:
the answers, and of every object afterwards its type, mode, owner, size, links and which of its times have changed. All cases of a
chapter are made first and their times set to a moment long ago, so that a change shows; then they are run, in one forked child.
"""

from __future__ import annotations

import errno
import os
import pickle
import stat
import struct
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.posix.syscalls import make_socket

TEAM = 65500
USERS: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "root": (0, 0, (0,)),
    "one": (65534, 65534, (65534,)),
    "two": (65533, 65533, (65533,)),
    "member": (65532, 65532, (65532, TEAM)),  # `team` is one more group of his
    "owner": (65534, 65534, (65534, TEAM)),  # `one`, when he is in it too
}
GROUPS = {name: gid for name, (_, gid, _) in USERS.items()} | {"team": TEAM}
LONG_AGO_NS = (1_000_000_000_111_111_111, 1_000_000_001_222_222_222)
CONTENT = b"0123456789"


@dataclass(frozen=True)
class Case:
    """`expected`: how it ends on any file system, where the table says so: "ok" or an errno's name. `on_mount`: the answer
    there, where docs/posix.md gives the reason why it (or a time) is another one."""

    name: str
    things: str
    user: str
    do: Callable[[], object]
    expected: str | None = None
    on_mount: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a case came to on one file system."""

    answer: str
    before: dict[str, str]
    after: dict[str, str]


# ---- making what a case needs ----------------------------------------------------------------------------------------------------------


def _owner(word: str) -> tuple[int, int]:
    user, _, group = word.partition(":")
    return USERS[user][0], GROUPS[group or user]


def make(things: str) -> None:
    """In the current directory, as root. `kind name [mode|target] [user[:group]]`; "." is the directory itself."""
    for thing in filter(None, (part.strip() for part in things.split(";"))):
        kind, name, *rest = thing.split()
        mode = int(rest[0], 8) if rest and kind != "link" and kind != "hard" else 0
        if kind == "dir" and name != ".":
            os.mkdir(name)
        elif kind == "file":
            Path(name).write_bytes(CONTENT)
        elif kind == "fifo":
            os.mkfifo(name)
        elif kind == "sock":
            make_socket(name)
        elif kind == "char":
            os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        elif kind == "link":
            os.symlink(rest[0], name)
        elif kind == "hard":
            os.link(rest[0], name)
            continue
        if len(rest) > 1 and rest[1] != "root":
            os.chown(name, *_owner(rest[1]), follow_symlinks=False)
        if mode:
            os.chmod(name, mode)


# ---- seeing what is there --------------------------------------------------------------------------------------------------------------


def _time(now_ns: int, was_ns: int, kind_ns: int | None) -> str:
    if was_ns == kind_ns:
        return "kept"
    return "now" if abs(now_ns - was_ns) < 300 * 10**9 else str(was_ns)


def _state(path: str, ctimes: dict[int, int] | None, now_ns: int) -> tuple[str, os.stat_result]:
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    words = [f"{kind:o} {stat.S_IMODE(status.st_mode):04o} {status.st_uid}:{status.st_gid} links {status.st_nlink}"]
    if not stat.S_ISDIR(kind):
        words.append(f"size {status.st_size}")
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        words.append(f"device {status.st_rdev:x}")
    for name, value, old in zip(("atime", "mtime"), (status.st_atime_ns, status.st_mtime_ns), LONG_AGO_NS, strict=True):
        words.append(f"{name} {_time(now_ns, value, old)}")
    if ctimes is not None:
        words.append(f"ctime {'kept' if ctimes.get(status.st_ino) == status.st_ctime_ns else 'now'}")
    return " ".join(words), status


def _names(path: str = ".") -> list[str]:
    """All paths, the directory before what is in it, in a fixed order."""
    found = [path]
    if stat.S_ISDIR(os.lstat(path).st_mode):
        for name in sorted(os.listdir(path)):
            found += _names(os.path.join(path, name))
    return found


def _short(path: str) -> str:
    return path if len(path) < 60 else f"{path[:20]}…{len(path)}"


def _look(known: Iterable[str], ctimes: dict[int, int] | None) -> dict[str, str]:
    """Those known first: to list a directory changes its atime."""
    now_ns, out = time.time_ns(), {}
    for path in known:
        if os.path.lexists(path):
            out[_short(path)] = _state(path, ctimes, now_ns)[0]
    for path in _names():
        out.setdefault(_short(path), _state(path, ctimes, now_ns)[0])
    return out


def _age(paths: list[str]) -> None:
    for path in reversed(paths):
        os.utime(path, ns=LONG_AGO_NS, follow_symlinks=False)


# ---- running --------------------------------------------------------------------------------------------------------------------------


def become(user: str) -> None:
    """The effective user, who counts for a file system; "root" leads back."""
    uid, gid, groups = USERS[user]
    if os.geteuid() != 0:
        os.seteuid(0)
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)


def answer(do: Callable[[], object]) -> str:
    try:
        result = do()
        return "ok" if result is None else str(result)
    except OSError as failure:
        return errno.errorcode.get(failure.errno or 0, str(failure.errno))


def _run(case: Case, path: str, known: list[str], ctimes: dict[int, int]) -> Outcome:
    os.chdir(path)
    before = {_short(name): _state(name, None, 0)[0] for name in known}
    become(case.user)
    try:
        said = answer(case.do)
    finally:
        become("root")
        os.umask(0o022)
    os.chdir(path)
    return Outcome(said, before, _look(known, ctimes))


def _run_all(root: str, cases: list[Case]) -> list[Outcome]:
    os.umask(0o022)
    places = []
    for number, case in enumerate(cases):
        path = f"{root}/{number:05}"
        os.mkdir(path)
        os.chmod(path, 0o777)
        os.chdir(path)
        make(case.things)
        known = _names()
        _age(known)
        places.append((path, known, {status.st_ino: status.st_ctime_ns for status in map(os.lstat, known)}))
    newest = max(ctime for _, _, ctimes in places for ctime in ctimes.values())
    while time.clock_gettime_ns(5) <= newest:  # CLOCK_REALTIME_COARSE: an older kernel's ctimes have only its ticks
        pass
    return [_run(case, *place) for case, place in zip(cases, places, strict=True)]


def in_child(do: Callable[[], object]) -> object:
    """What it returns, or what it raised; the credentials, directory and umask that it leaves behind end with it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            try:
                message = pickle.dumps((True, do()))
            except BaseException:
                message = pickle.dumps((False, traceback.format_exc()))
            with open(writing, "wb") as out:
                out.write(struct.pack("<Q", len(message)) + message)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as incoming:
        message = incoming.read()
    os.waitpid(pid, 0)
    assert len(message) >= 8, "the child died"
    fine, result = pickle.loads(message[8:])
    assert fine, result
    return result


def _without_times(states: dict[str, str]) -> dict[str, str]:
    return {path: state.partition(" atime")[0] for path, state in states.items()}


def differences_of(cases: list[Case], mounted: Path, plain: Path) -> list[str]:
    """Run them on both; a sentence for each case that ended otherwise, or not as its table says."""
    both: list[list[Outcome]] = []
    for root in (mounted, plain):
        outcomes = in_child(partial(_run_all, str(root), cases))
        assert isinstance(outcomes, list)
        both.append(outcomes)
    out = []
    for case, here, there in zip(cases, *both, strict=True):
        if case.expected is not None and there.answer != case.expected:
            out.append(f"{case.name}: the table says {case.expected}, a plain directory {there.answer}")
        if here == there or (here.answer == case.on_mount and _without_times(here.after) == _without_times(there.after)):
            continue
        out.append(f"{case.name} ({case.things}) as {case.user}: {here.answer} on the mount, {there.answer} on a plain directory")
        for moment in ("before", "after"):
            one, other = getattr(here, moment), getattr(there, moment)
            out += [
                f"    {moment} {path}: {one.get(path)} / {other.get(path)}"
                for path in sorted({*one, *other})
                if one.get(path) != other.get(path)
            ]
    return out

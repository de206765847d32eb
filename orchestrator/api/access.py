"""Who is at the other end of the unix socket, and which role they have.

The kernel says who: user, group and all further groups of the process that connected, as they were then (SO_PEERCRED, SO_PEERGROUPS).
Nothing that a client sends counts. root is admin. Everybody else is what `[access]` in cluster.toml says, or, where that has no word, what
they are by group: lockstep-admin, lockstep (operator), lockstep-viewer.

The socket itself is 0660 and belongs to the group lockstep, if there is one. The others who have a role are let through that door by an
access list on it; where the file system has none, only that group is. So who has no role cannot even connect.

Names are looked up for every request anew (somebody who was taken out of a group is out), in a thread and with a deadline: a directory
service that hangs must not hold hactld up, and then nobody but root is anybody.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from orchestrator.api.roles import Role

GROUPS: Final[Mapping[Role, str]] = {Role.ADMIN: "lockstep-admin", Role.OPERATOR: "lockstep", Role.VIEWER: "lockstep-viewer"}
DOOR_GROUP: Final = GROUPS[Role.OPERATOR]
GROUP_MARK: Final = "%"  # `%dba` is a group, as in sudoers
NAME_DEADLINE_S = 1.0
NOBODY_LOGGED_IN = 2**32 - 1  # loginuid of what no login started
PEER_GROUPS: Final = getattr(socket, "SO_PEERGROUPS", 59)
GROUPS_BYTES_MAX = 1024  # 256 groups: Python asks for no more. Of somebody who is in more only the first one counts

ACL_NAME: Final = "system.posix_acl_access"
ACL_VERSION: Final = 2
ACL_USER_OBJ, ACL_USER, ACL_GROUP_OBJ, ACL_GROUP, ACL_MASK, ACL_OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
NO_ID: Final = 2**32 - 1
READ_WRITE: Final = 6

LOOK_UPS_MAX = 4
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("access_limiter")

Access = Mapping[str, Collection[str]]  # role -> users and %groups, as the configuration has them


@dataclass(frozen=True, slots=True)
class Process:
    """Who connected, in numbers."""

    pid: int
    uid: int
    groups: frozenset[int]


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks. `who` is for people: the name, and the role of whoever is not root."""

    name: str
    role: Role

    @property
    def who(self) -> str:
        """For the history."""
        return self.name if self.name.partition(",")[0] == "root" else f"{self.name} ({self.role.word})"


DAEMON: Final = Asker("hactld", Role.ADMIN)
# Who it is that a task works for. Set where a question arrives; whatever is asked of a peer on the way to its answer is asked in this name.
asking: ContextVar[Asker] = ContextVar("asking", default=DAEMON)


def process_at(sock: trio.socket.SocketType) -> Process:
    """The process at the other end."""
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    try:
        more = sock.getsockopt(socket.SOL_SOCKET, PEER_GROUPS, GROUPS_BYTES_MAX)
    except OSError:  # a kernel before 4.13, or more than that
        more = b""
    return Process(pid, uid, frozenset((gid, *struct.unpack(f"{len(more) // 4}I", more))))


async def asker(process: Process, access: Access) -> Asker:
    """Their name and role. Never raises, never waits long; for root there is nothing to look up."""
    if process.uid == 0 and login_of(process) in (0, NOBODY_LOGGED_IN):
        return Asker("root", Role.ADMIN)
    with trio.move_on_after(NAME_DEADLINE_S):
        return await trio.to_thread.run_sync(_asker, process, access, abandon_on_cancel=True, limiter=_few_threads())
    return Asker("root" if process.uid == 0 else f"uid {process.uid}", Role.ADMIN if process.uid == 0 else Role.NONE)


def _few_threads() -> trio.CapacityLimiter:
    """Of its own: names that hang must not use up the threads in which modules are started."""
    try:
        return _limiter.get()
    except LookupError:
        _limiter.set(limiter := trio.CapacityLimiter(LOOK_UPS_MAX))
        return limiter


def _asker(process: Process, access: Access) -> Asker:
    login = login_of(process)
    name = user_name(process.uid) + ("" if login in (process.uid, NOBODY_LOGGED_IN) else f", logged in as {user_name(login)}")
    return Asker(name, role_of(process, access))


def login_of(process: Process) -> int:
    """Who logged in, whoever they have become since (sudo)."""
    try:
        return int(Path(f"/proc/{process.pid}/loginuid").read_text())
    except (OSError, ValueError):
        return process.uid


def role_of(process: Process, access: Access) -> Role:
    """The highest role that fits (blocking)."""
    if process.uid == 0:
        return Role.ADMIN
    for role, entries in sorted(_entries(access), reverse=True):
        for entry in entries:
            group, identity = identity_of(entry)
            if identity is not None and (identity in process.groups if group else identity == process.uid):
                return role
    return Role.NONE


def _entries(access: Access) -> Iterator[tuple[Role, tuple[str, ...]]]:
    """Users and %groups of each role; the groups count only where `[access]` is silent."""
    if any(access.values()):
        yield from ((role, tuple(access.get(role.word, ()))) for role in GROUPS)
    else:
        yield from ((role, (GROUP_MARK + name,)) for role, name in GROUPS.items())


def identity_of(entry: str) -> tuple[bool, int | None]:
    """Is it a group, and its number; None: there is no such user or group (blocking)."""
    try:
        if entry.startswith(GROUP_MARK):
            return True, grp.getgrnam(entry[1:]).gr_gid
        return False, pwd.getpwnam(entry).pw_uid
    except (KeyError, OSError):
        return entry.startswith(GROUP_MARK), None


def who_may(needed: Role, access: Access) -> str:
    """The end of a refusal: who could have done it."""
    entries = [name for role, names in _entries(access) if role >= needed for name in names]
    members = [f"members of {entry[1:]}" if entry.startswith(GROUP_MARK) else entry for entry in entries]
    return f"root may, and {', '.join(members)}" if members else "only root may"


def user_name(uid: int) -> str:
    """Or its number (blocking)."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


# ---- the door --------------------------------------------------------------------------------------------------------------------------


def open_door(path: Path, access: Access, log: Callable[[str], None]) -> None:
    """Let those who have a role connect, and nobody else (blocking)."""
    os.chmod(path, 0o600)
    _, group = identity_of(GROUP_MARK + DOOR_GROUP)
    found = [identity_of(entry) for _, entries in _entries(access) for entry in entries]
    others = [(is_group, identity) for is_group, identity in found if identity is not None and (is_group, identity) != (True, group)]
    if group is not None and (True, group) in found:
        os.chown(path, 0, group)
        os.chmod(path, 0o660)
    if not others:
        return
    try:
        os.setxattr(path, ACL_NAME, access_list(others, READ_WRITE if group is not None and (True, group) in found else 0))
    except OSError as error:
        log(f"{path}: only root and the group {DOOR_GROUP} can connect, an access list cannot be set ({error.strerror})")


def access_list(others: Collection[tuple[bool, int]], group_may: int) -> bytes:
    """As the kernel stores it (linux/posix_acl_xattr.h): owner, users, group, groups, mask, the rest, each in the order of its number."""
    users = sorted({identity for is_group, identity in others if not is_group})
    groups = sorted({identity for is_group, identity in others if is_group})
    entries = [
        (ACL_USER_OBJ, READ_WRITE, NO_ID),
        *((ACL_USER, READ_WRITE, identity) for identity in users),
        (ACL_GROUP_OBJ, group_may, NO_ID),
        *((ACL_GROUP, READ_WRITE, identity) for identity in groups),
        (ACL_MASK, READ_WRITE, NO_ID),
        (ACL_OTHER, 0, NO_ID),
    ]
    return struct.pack("<I", ACL_VERSION) + b"".join(struct.pack("<HHI", *entry) for entry in entries)

"""Probes of the replicated directories. Each blocks, perhaps for ever where a file system hangs: gather.py leaves it behind then."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import time
from collections import Counter
from typing import Any

import trio

from orchestrator.config import ModuleConfig
from orchestrator.doctor.scene import Scene
from rfs import directory_checks, engine
from rfs.mount_table import MountEntry, beneath, read_mount_table, stack_at

SCAN_ENTRIES_MAX = 200_000
SCAN_S = 3.0
HOLDERS_MAX = 10
FICLONE = 0x40049409
OWNERS_MAX = 200
NESTED_MAX = 20


def directory(scene: Scene, module: ModuleConfig, path: str) -> dict[str, Any]:
    """One of them, from the outside in."""
    found: dict[str, Any] = {"module": module.name, "exists": os.path.lexists(path), "is_directory": os.path.isdir(path)}
    if not found["is_directory"]:
        return found
    table = read_mount_table()
    real = os.path.realpath(path)
    stack = stack_at(real, table)
    top = stack[-1] if stack else None
    layer = "mirror" if top is not None and top.is_ours else "guard" if top is not None and top.is_read_only else "plain"
    under = _beneath_layers(real, table, stack)
    space = os.statvfs(path)
    required = [name for replicated in module.replicated if replicated.directory == path for name in replicated.require]
    return found | {
        "layer": layer,
        "empty": all(name in directory_checks.NOT_CONTENT for name in os.listdir(path)),
        "file_system": under.file_system,
        "mount_point": under.path,
        "read_only_beneath": under.is_read_only and layer == "plain",
        "nested": beneath(real, table)[:NESTED_MAX],
        "required_missing": [name for name in required if not os.path.lexists(os.path.join(path, name))],
        "total_bytes": space.f_blocks * space.f_frsize,
        "available_bytes": space.f_bavail * space.f_frsize,
        "inodes": space.f_files,
        "inodes_available": space.f_favail,
        "acl": _keeps_acls(path) if layer != "guard" else None,
        **({"unfit": "", "clones": None} if layer == "mirror" else trio.run(_tree, real)),  # of a mounted one rfsmount has asked
        "holders": [
            {"pid": pid, "command": command, "path": held} for pid, command, held in list(directory_checks.holders([real]))[:HOLDERS_MAX]
        ] if layer == "plain" else [],
    }  # fmt: skip


def _beneath_layers(path: str, table: list[MountEntry], stack: list[MountEntry]) -> MountEntry:
    """The mount that holds the plain tree: the lowest at the path that is not ours, or the nearest above it."""
    layers = [entry for entry in stack if not entry.is_ours]
    if layers:
        return layers[0]
    above = [entry for entry in table if path != entry.path and path.startswith(entry.path.rstrip("/") + "/")]
    return max(above, key=lambda entry: (len(entry.path), entry.mount_id))


def _keeps_acls(path: str) -> bool | None:
    try:
        os.getxattr(path, "system.posix_acl_access")
    except OSError as failure:
        return failure.errno != errno.EOPNOTSUPP  # ENODATA: it could have one
    return True


async def _tree(path: str) -> dict[str, Any]:
    """Why no replica can be here, as rfsmount would say; and whether files can be cloned, as the snapshot of before a resync is made."""
    try:
        tree = await engine.tree_open(path)
    except OSError as failure:
        return {"unfit": failure.strerror or str(failure), "clones": None}
    try:
        return {"unfit": await engine.tree_probe(tree) or "", "clones": _clones(tree)}
    finally:
        os.close(tree)


def _clones(tree: int) -> bool | None:
    """Tried with two files without a name."""
    try:
        with open(os.open(f"/proc/self/fd/{tree}", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC), "r+b") as one:
            one.write(bytes(4096))
            one.flush()
            with open(os.open(f"/proc/self/fd/{tree}", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC), "r+b") as other:
                fcntl.ioctl(other, FICLONE, one.fileno())
    except OSError as failure:
        return False if failure.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.EXDEV) else None
    return True


def owners(path: str) -> dict[str, Any]:
    """Whose files lie there: a bounded walk, which stays on one file system and follows no link."""
    deadline, entries, size_bytes = time.monotonic() + SCAN_S, 0, 0
    uids, gids = Counter[int](), Counter[int]()
    newest_s = 0.0
    device = os.stat(path).st_dev
    waiting, complete = [path], True
    while waiting and complete:
        try:
            listing = os.scandir(waiting.pop())
        except OSError:
            continue  # gone meanwhile
        with listing:
            for entry in listing:
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                entries, size_bytes = entries + 1, size_bytes + found.st_blocks * 512
                uids[found.st_uid] += 1
                gids[found.st_gid] += 1
                newest_s = max(newest_s, found.st_mtime)
                if entry.is_dir(follow_symlinks=False) and found.st_dev == device and entry.name not in directory_checks.NOT_CONTENT:
                    waiting.append(entry.path)
                if entries >= SCAN_ENTRIES_MAX or time.monotonic() > deadline:
                    complete = False
                    break
    return {
        "entries": entries, "complete": complete, "bytes": size_bytes, "newest_s": newest_s,
        "uids": {str(uid): _user(uid) for uid, _ in uids.most_common(OWNERS_MAX)},
        "gids": {str(gid): _group(gid) for gid, _ in gids.most_common(OWNERS_MAX)},
    }  # fmt: skip


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""

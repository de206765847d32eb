"""Judgements about the replicated directories of one node, and the services that live on them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Any, Final

from orchestrator.doctor.finding import Facts, Said, bad, node_of, ok, part, unknown, warn
from orchestrator.units import show_bytes

FULL_WARN, FULL_BAD = 0.10, 0.03
ENABLED: Final = ("enabled", "enabled-runtime", "linked", "linked-runtime")


def there(facts: Facts) -> Iterator[Said]:
    """Each is a directory, and answers."""
    for path, found in _directories(facts):
        if "error" in found:
            yield bad(f"{path}: {found['error']}", f"dmesg | tail; grep {path} /proc/self/mountinfo: does its file system hang?")
        elif not found["exists"]:
            yield bad(f"{path} does not exist", f"mkdir -p {quote(path)}, with the owner and mode that it has on the other node")
        elif not found["is_directory"]:
            yield bad(f"{path} is no directory", f"correct modules/{found['module']}.toml")
        else:
            yield ok(f"{path} {'is empty' if found['empty'] else 'holds files'}, {_layer(found)}")


def required(facts: Facts) -> Iterator[Said]:
    """What `require` names is there, unless nothing is."""
    for path, found in _usable(facts):
        for name in found["required_missing"]:
            if found["empty"]:
                yield ok(f"{path} is empty: a first copy brings {name}")
            else:
                yield bad(f"{path} lacks {name}, which the module requires", "is its file system mounted? else correct 'require'")
        if not found["required_missing"]:
            yield ok(f"{path} has what is required of it")


def features(facts: Facts) -> Iterator[Said]:
    """File handles and trusted.* attributes; without them nothing can be mirrored."""
    for path, found in _usable(facts):
        if found["unfit"]:
            fix = "put the directory on ext4, xfs or btrfs"
            yield bad(f"{path} cannot hold a replica: {found['unfit']}", fix)
        elif found["acl"] is False:
            text = f"{path}: {found['file_system']} is mounted without ACLs; those of the other copy could not be kept"
            yield warn(text, f"mount -o remount,acl {found['mount_point']}")
        else:
            cannot_clone = "; it cannot clone files, so what a resync overwrites is not kept" if found["clones"] is False else ""
            yield ok(f"{path}: {found['file_system']} has file handles and trusted.* attributes{cannot_clone}")


def writable(facts: Facts) -> Iterator[Said]:
    """The file system beneath is not read-only."""
    for path, found in _usable(facts):
        if found["read_only_beneath"]:
            yield bad(f"the file system below {path} is read-only", f"dmesg | tail; mount -o remount,rw {found['mount_point']}")
        else:
            yield ok(f"the file system below {path} can be written")


def nested(facts: Facts) -> Iterator[Said]:
    """No other mount inside."""
    for path, found in _usable(facts):
        for inner in found["nested"][:3]:
            yield bad(f"{inner} is a mount inside {path}, and would not be mirrored", f"umount {quote(inner)}, or mirror it by itself")
        if not found["nested"]:
            yield ok(f"no mount lies inside {path}")


def holders(facts: Facts) -> Iterator[Said]:
    """Before it is mounted nobody may have files open in it."""
    for path, found in _usable(facts):
        for holder in found["holders"][:3]:
            text = f"{holder['command']} (pid {holder['pid']}) has {holder['path']} open, and {path} is not mounted: start would be refused"
            yield bad(text, f"stop it first: systemctl status {holder['pid']}")
        if not found["holders"]:
            yield ok(f"nobody works on {path} behind the mirror")


def room(facts: Facts) -> Iterator[Said]:
    """Space and inodes."""
    for path, found in _usable(facts):
        total, free = found["total_bytes"], found["available_bytes"]
        inodes, inodes_free = found["inodes"], found["inodes_available"]
        fix = (
            f"df -h {quote(path)}; df -i {quote(path)}{' on both nodes' if found['layer'] == 'mirror' else ''}; make room, or a larger disk"
        )
        if free < total * FULL_BAD:
            yield bad(f"{path}: {show_bytes(free)} of {show_bytes(total)} are free", fix)
        elif inodes and inodes_free < inodes * FULL_BAD:
            yield bad(f"{path}: {inodes_free} of {inodes} inodes are free", fix)
        elif free < total * FULL_WARN or (inodes and inodes_free < inodes * FULL_WARN):
            yield warn(f"{path}: {show_bytes(free)} of {show_bytes(total)} and {inodes_free} of {inodes} inodes are free", fix)
        else:
            yield ok(f"{path}: {show_bytes(free)} of {show_bytes(total)} are free")


def units(facts: Facts) -> Iterator[Said]:
    """What Lockstep starts must not be started at boot by somebody else."""
    for service in _services(facts):
        if not service["unit"]:
            continue
        if service["unit_state"] in ENABLED:
            text = f"{service['unit']} ({service['module']}) is started at boot by systemd, on both nodes, behind Lockstep's back"
            yield bad(text, f"systemctl disable {service['unit']}")
        else:
            yield ok(f"{service['unit']} is not started at boot")


def programs(facts: Facts) -> Iterator[Said]:
    """Each service's unit or program is there."""
    for service in _services(facts):
        what = service["unit"] or service["program"]
        name = f"service {service['name']} of {service['module']}"
        if service["unit"] and not service["unit_found"]:
            yield bad(f"{name}: there is no unit {what} on {node_of(facts)}", "install the same packages as on the other node")
        elif service["program"] and not service["program_found"]:
            yield bad(f"{name}: {service['program']} is not on {node_of(facts)}", "install the same packages as on the other node")
        elif service["program"] and not service["program_executable"]:
            yield bad(f"{name}: {service['program']} is not executable", f"chmod 755 {quote(service['program'])}")
        else:
            yield ok(f"{name}: {what} is there")


def users(facts: Facts) -> Iterator[Said]:
    """Whom a service is to run as."""
    for service in _services(facts):
        if service["user"] and service["uid"] is None:
            fix = f"useradd with the uid that {service['user']} has on the other node"
            yield bad(f"service {service['name']} of {service['module']}: there is no user {service['user']}", fix)
        elif service["user"]:
            yield ok(f"{service['user']} has uid {service['uid']}")


def _layer(found: Mapping[str, Any]) -> str:
    return {"mirror": "mirrored now", "guard": "guarded", "plain": "not mounted now"}.get(str(found["layer"]), str(found["layer"]))


def _directories(facts: Facts) -> list[tuple[str, Mapping[str, Any]]]:
    return [(str(path), found) for path, found in part(facts, "directories")["by_path"].items()]


def _usable(facts: Facts) -> list[tuple[str, Mapping[str, Any]]]:
    return [(path, found) for path, found in _directories(facts) if "error" not in found and found["exists"] and found["is_directory"]]


def _services(facts: Facts) -> list[Mapping[str, Any]]:
    return list(part(facts, "services")["services"])


def scanned(facts: Facts) -> Iterator[Said]:
    """Owners without a name: left by a user who is gone, or copied from elsewhere."""
    for path, found in part(facts, "owners")["by_path"].items():
        if "error" in found:
            yield unknown(f"{path}: whose files these are is not known: {found['error']}")
            continue
        nameless = [f"uid {uid}" for uid, name in found["uids"].items() if not name] + [
            f"gid {gid}" for gid, name in found["gids"].items() if not name
        ]
        if nameless:
            fix = "useradd/groupadd with that number on both nodes, or chown the files"
            yield warn(f"{path} has files of {', '.join(nameless[:5])}, who has no name here", fix)
        else:
            shown = "" if found["complete"] else f" (of the first {found['entries']} entries)"
            yield ok(f"{path}: every owner has a name here{shown}")

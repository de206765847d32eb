"""Judgements about the machine itself: kernel, clock, memory, limits, disk of the state. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Any, Final

from orchestrator.doctor.finding import Facts, Said, bad, ok, part, running_process, unknown, warn
from orchestrator.units import show_bytes

NEEDED_CALLS: Final = ("openat2", "open_tree", "move_mount", "pidfd_open", "name_to_handle_at")
KERNEL_MIN: Final = (5, 10)
LIBFUSE_MIN: Final = (3, 10)
NEEDED_CAPABILITIES: Final = {
    0: "CHOWN", 1: "DAC_OVERRIDE", 2: "DAC_READ_SEARCH", 5: "KILL", 6: "SETGID", 7: "SETUID", 12: "NET_ADMIN", 13: "NET_RAW",
    21: "SYS_ADMIN",
}  # fmt: skip
NOFILE_MIN: Final = 65536
FSYNC_WARN_S, FSYNC_BAD_S = 0.1, 1.0
ROOM_WARN_BYTES, ROOM_BAD_BYTES = 512 << 20, 64 << 20
MEMORY_FILE_SYSTEMS: Final = ("tmpfs", "ramfs")


def fuse_device(facts: Facts) -> Iterator[Said]:
    """/dev/fuse opens."""
    trouble = part(facts, "kernel")["fuse_trouble"]
    yield bad(f"/dev/fuse cannot be opened: {trouble}", "modprobe fuse") if trouble else ok("/dev/fuse opens")


def libfuse(facts: Facts) -> Iterator[Said]:
    """The library is there, and not ancient."""
    version = part(facts, "versions")["libfuse"]
    if not version:
        yield bad("libfuse3 is not installed: no directory can be mounted", "apt-get install fuse3 libfuse3-3")
    elif _numbers(version) < LIBFUSE_MIN:
        yield warn(f"libfuse {version} is older than {_dotted(LIBFUSE_MIN)}, with which Lockstep is tested", "upgrade fuse3")
    else:
        yield ok(f"libfuse {version}")


def kernel(facts: Facts) -> Iterator[Said]:
    """Every system call that the data path and the guards use."""
    lacks = [name for name in NEEDED_CALLS if not part(facts, "kernel")["calls"].get(name)]
    release = part(facts, "versions")["kernel"]
    if lacks:
        yield bad(f"kernel {release} lacks {', '.join(lacks)}", f"boot a kernel of {_dotted(KERNEL_MIN)} or newer")
    elif _numbers(release) < KERNEL_MIN:
        yield warn(f"kernel {release} is older than {_dotted(KERNEL_MIN)}", "upgrade the kernel")
    else:
        yield ok(f"kernel {release} has {', '.join(NEEDED_CALLS)}")


def engine(facts: Facts) -> Iterator[Said]:
    """The C part is built for this Python."""
    if part(facts, "versions")["engine"]:
        yield ok("the engine is built for this Python")
    else:
        yield bad("rfsmount's engine (rfs/_engine) is not built for this Python", "install the package of this Python anew")


def rights(facts: Facts) -> Iterator[Said]:
    """What hactld may do, or the doctor in its place."""
    found = part(facts, "process")
    lacks = [name for number, name in NEEDED_CAPABILITIES.items() if not int(found["capabilities"]) >> number & 1]
    whose = "hactld" if found["is_hactld"] else "root here"
    if lacks:
        yield bad(f"{whose} lacks CAP_{', CAP_'.join(lacks)}", "run hactld as root and without a bounded set: systemctl cat hactld")
    else:
        yield ok(f"{whose} has the capabilities that are needed")


def limits(facts: Facts) -> Iterator[Said]:
    """Descriptors, and memory that stays in memory."""
    found = running_process(facts)
    nofile = found["nofile_hard"]
    if nofile is not None and nofile < NOFILE_MIN:
        yield warn(f"hactld and what it starts may open {nofile} files only", "systemctl edit hactld: LimitNOFILE=1048576")
    if not found["locked_bytes"]:
        yield warn("hactld's memory is not locked: under memory pressure it may be late", "systemctl edit hactld: LimitMEMLOCK=infinity")
    if (nofile is None or nofile >= NOFILE_MIN) and found["locked_bytes"]:
        yield ok(f"hactld may open {'any number of' if nofile is None else nofile} files, and its memory is locked")


def spared(facts: Facts) -> Iterator[Said]:
    """The kernel kills others first."""
    found = running_process(facts)
    if found["oom_score_adj"] > -500:
        fix = "systemctl edit hactld: OOMScoreAdjust=-900"
        yield warn(f"hactld would be killed when memory runs out (oom_score_adj {found['oom_score_adj']})", fix)
    else:
        yield ok("hactld is spared when memory runs out")


def clock(facts: Facts) -> Iterator[Said]:
    """Somebody sets it. No decision reads it; people do, and applications."""
    found = part(facts, "clock")
    if found["synchronised"] is None:
        yield unknown("the kernel does not say whether its clock is synchronised")
    elif found["synchronised"]:
        yield ok("the clock is synchronised")
    else:
        fix = "timedatectl set-ntp true (or install chrony)"
        yield warn("nothing synchronises this clock: logs of the two nodes will not fit together", fix)


def memory(facts: Facts) -> Iterator[Said]:
    """Some is left."""
    found = part(facts, "memory")
    free, total = found["available_bytes"], found["total_bytes"]
    if free < total * 0.03:
        yield bad(f"only {show_bytes(free)} of {show_bytes(total)} memory are available", "ps aux --sort=-rss | head")
    elif free < total * 0.1:
        yield warn(f"only {show_bytes(free)} of {show_bytes(total)} memory are available", "ps aux --sort=-rss | head")
    else:
        yield ok(f"{show_bytes(free)} of {show_bytes(total)} memory are available")


def swap(facts: Facts) -> Iterator[Said]:
    """A machine that swaps heavily stands still now and then."""
    found = part(facts, "memory")
    total, free = found["swap_bytes"], found["swap_free_bytes"]
    if total and free < total * 0.2:
        fix = "ps aux --sort=-rss | head; vmstat 1 5"
        yield warn(f"{show_bytes(total - free)} of {show_bytes(total)} swap are in use: a node that swaps may be taken for dead", fix)
    else:
        yield ok("no swap" if not total else f"{show_bytes(free)} of {show_bytes(total)} swap are free")


def cores(facts: Facts) -> Iterator[Said]:
    """What a crash leaves to be looked at."""
    found, process = part(facts, "kernel"), running_process(facts)
    if process["core_soft"] == 0 and not found["core_pattern"].startswith("|"):
        yield ok("a crash leaves no core: to have one, systemctl edit hactld: LimitCORE=infinity")
    else:
        yield ok(f"a crash leaves a core ({found['core_pattern']})")


def mandatory_access(facts: Facts) -> Iterator[Said]:
    """SELinux and AppArmor, which may forbid a service what it may do without them."""
    found = part(facts, "security")
    if found["selinux"] == "enforcing":
        fix = "ausearch -m avc -ts recent; allow the service the type fusefs_t, or semanage permissive -a its domain"
        yield warn("SELinux is enforcing: a service may be refused its files on a mirrored directory", fix)
    elif found["apparmor"]:
        yield ok("AppArmor is on: profiles that name paths hold for mirrored directories as well")
    else:
        yield ok(f"SELinux {found['selinux']}, AppArmor off")


def state_disk(facts: Facts) -> Iterator[Said]:
    """What must survive a power cut lies on a disk."""
    found = part(facts, "storage")["state"]
    if found["file_system"] in MEMORY_FILE_SYSTEMS:
        text = f"{found['path']} is on {found['file_system']}: after a power cut this node would not know what it has"
        yield bad(text, f"mount a disk at {found['path']}, or remove the {found['file_system']} from /etc/fstab")
    elif found["read_only"]:
        yield bad(f"{found['path']} is read-only", f"dmesg | tail; mount -o remount,rw {found['mount_point']}")
    else:
        yield ok(f"{found['path']} is on {found['file_system']}")


def state_sync(facts: Facts) -> Iterator[Said]:
    """fsync works there, and soon."""
    found = part(facts, "storage")["state"]
    took_s = found["fsync_s"]
    if found["fsync_trouble"]:
        yield bad(f"{found['path']} cannot be written durably: {found['fsync_trouble']}", "df -h, dmesg | tail: see to the disk")
    elif took_s >= FSYNC_BAD_S:
        yield bad(f"an fsync in {found['path']} took {took_s:.1f} s: roles would change that slowly", "iostat -x 1: see to the disk")
    elif took_s >= FSYNC_WARN_S:
        yield warn(f"an fsync in {found['path']} took {took_s * 1000:.0f} ms", "iostat -x 1: what else uses this disk?")
    else:
        yield ok(f"an fsync in {found['path']} takes {took_s * 1000:.1f} ms")


def state_room(facts: Facts) -> Iterator[Said]:
    """The intent log must be able to grow."""
    yield _room(part(facts, "storage")["state"], "the marks of what the peer lacks could not be kept")


def log_room(facts: Facts) -> Iterator[Said]:
    """Nothing fails without it; nobody knows why something failed, either."""
    yield _room(part(facts, "storage")["log"], "nobody could read afterwards what happened")


def state_owner(facts: Facts) -> Iterator[Said]:
    """Nobody but root writes there."""
    yield from _owner(part(facts, "storage")["state"])


def _owner(found: Mapping[str, Any]) -> Iterator[Said]:
    if found["uid"] != 0 or found["mode"] & 0o022:
        text = f"{found['path']} can be written by others than root (owner {found['uid']}, mode {found['mode']:o})"
        yield bad(text, f"chown root:root {quote(found['path'])} && chmod go-w {quote(found['path'])}")
    else:
        yield ok(f"{found['path']} is root's alone to write")


def _room(found: Mapping[str, Any], otherwise: str) -> Said:
    free, inodes = found["available_bytes"], found["inodes_available"]
    shown = f"{found['path']}: {show_bytes(free)} free"
    fix = f"df -h {quote(found['path'])}; df -i {quote(found['path'])}; make room there"
    if free < ROOM_BAD_BYTES or inodes == 0:
        return bad(f"{shown}{', no inode' if inodes == 0 else ''}: {otherwise}", fix)
    if free < ROOM_WARN_BYTES and free < found["total_bytes"] * 0.1:
        return warn(f"{shown}: soon {otherwise}", fix)
    return ok(shown)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("-")[0].split("+")[0].split(".")[:2] if number.isdigit())


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in version)

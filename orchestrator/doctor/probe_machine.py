"""Probes of the machine: kernel, clock, memory, hactld's process, the disk of the state. Each blocks; each is plain data."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import importlib.metadata
import importlib.util
import os
import platform
import resource
import socket
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

from orchestrator import peer, pulse, seal
from orchestrator.doctor.scene import Scene
from rfs import handshake
from rfs.control import protocol
from rfs.mount_table import read_mount_table

CALLS = {"openat2": 437, "open_tree": 428, "move_mount": 429, "pidfd_open": 434}
NAME_TO_HANDLE_AT = {"x86_64": 303, "aarch64": 264}
ADJTIMEX_UNSYNCHRONISED = 0x40
TIMEX_BYTES = 208
STATUS_OFFSET = 40  # of timex.status: modes, and three longs before it
FSYNCS = 5


def versions(_: Scene) -> dict[str, Any]:
    """Of everything that both nodes must agree upon."""
    return {
        "lockstep": importlib.metadata.version("lockstep-ha"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "libfuse": _libfuse(),
        "engine": importlib.util.find_spec("rfs._engine") is not None,
        "protocols": protocols(),
    }


def protocols() -> dict[str, int]:
    """What this program speaks."""
    return {
        "calls": peer.VERSION, "heartbeats": pulse.VERSION, "seals": seal.VERSION, "links": handshake.VERSION, "control": protocol.VERSION,
    }  # fmt: skip


def _libfuse() -> str:
    try:
        library = ctypes.CDLL("libfuse3.so.3")
    except OSError:
        try:
            library = ctypes.CDLL("libfuse3.so.4")
        except OSError:
            return ""
    library.fuse_pkgversion.restype = ctypes.c_char_p
    return str(library.fuse_pkgversion().decode())


def kernel(_: Scene) -> dict[str, Any]:
    """Does it have what we call? A call with nonsense fails in another way than one that does not exist."""
    trouble = ""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as failure:
        trouble = failure.strerror or str(failure)
    numbers = {**CALLS, "name_to_handle_at": NAME_TO_HANDLE_AT.get(platform.machine(), 0)}
    calls = {name: _exists(number) for name, number in numbers.items()}
    core_pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    return {"fuse_trouble": trouble, "calls": calls, "core_pattern": core_pattern}


def _exists(number: int) -> bool:
    if not number:
        return True  # of this machine the number is not known: what else is asked for tells enough
    library = ctypes.CDLL(None, use_errno=True)
    return bool(library.syscall(number, -1, None, 0, 0, 0) >= 0 or ctypes.get_errno() != errno.ENOSYS)


def clock(_: Scene) -> dict[str, Any]:
    """Does anything set it?"""
    timex = ctypes.create_string_buffer(TIMEX_BYTES)
    state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    if state < 0:
        return {"synchronised": None, "wall_s": time.time()}
    status = struct.unpack_from("i", timex, STATUS_OFFSET)[0]
    return {"synchronised": not status & ADJTIMEX_UNSYNCHRONISED, "wall_s": time.time()}


def identity(_: Scene) -> dict[str, Any]:
    """Which machine, and which boot of it."""
    return {
        "hostname": socket.gethostname(),
        "boot_id": _text("/proc/sys/kernel/random/boot_id"),
        "machine_id": _text("/etc/machine-id"),
        "uptime_s": time.clock_gettime(time.CLOCK_BOOTTIME),
        "architecture": platform.machine(),
        "processors": os.cpu_count() or 0,
    }


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def memory(_: Scene) -> dict[str, Any]:
    """As the kernel counts it."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    found = {words[0].rstrip(":"): int(words[1]) << 10 for words in lines if len(words) > 2}
    return {
        "total_bytes": found["MemTotal"], "available_bytes": found["MemAvailable"],
        "swap_bytes": found["SwapTotal"], "swap_free_bytes": found["SwapFree"],
    }  # fmt: skip


def security(_: Scene) -> dict[str, Any]:
    """SELinux and AppArmor."""
    enforce = _text("/sys/fs/selinux/enforce")
    apparmor = _text("/sys/module/apparmor/parameters/enabled") == "Y"
    return {"selinux": {"1": "enforcing", "0": "permissive"}.get(enforce, "off"), "apparmor": apparmor}


def process(scene: Scene) -> dict[str, Any]:
    """hactld's, found by its socket; without it, what root here may do."""
    pid = daemon_pid(scene.paths.socket)
    home = Path(f"/proc/{pid or 'self'}")
    status = dict(line.split(":\t", 1) for line in (home / "status").read_text().splitlines() if ":\t" in line)
    found: dict[str, Any] = {"is_hactld": pid is not None, "pid": pid, "capabilities": str(int(status["CapEff"], 16))}
    if pid is None:
        return found
    return found | {
        "nofile_hard": _bounded(resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]),
        "core_soft": _bounded(resource.prlimit(pid, resource.RLIMIT_CORE)[0]),
        "locked_bytes": int(status.get("VmLck", "0 kB").split()[0]) << 10,
        "oom_score_adj": int((home / "oom_score_adj").read_text()),
        "program_gone": os.readlink(home / "exe").endswith(" (deleted)"),
        "resident_bytes": int(status.get("VmRSS", "0 kB").split()[0]) << 10,
    }


def _bounded(limit: int) -> int | None:
    return None if limit == resource.RLIM_INFINITY else limit


def daemon_pid(path: Path) -> int | None:
    """Who listens on hactld's socket; None: nobody."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(2.0)
        try:
            sock.connect(str(path))
        except OSError:
            return None
        pid = int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[0])
    return pid or None


def storage(scene: Scene) -> dict[str, Any]:
    """Where the state and the logs are."""
    return {"state": _place(scene.paths.state) | _synced(scene.paths.state), "log": _place(scene.paths.log)}


def _place(path: Path) -> dict[str, Any]:
    existing = next(each for each in (path, *path.parents) if each.exists())  # before the first start it is not there yet
    stat, space = existing.stat(), os.statvfs(existing)
    real = os.path.realpath(existing)
    mounts = [entry for entry in read_mount_table() if real == entry.path or real.startswith(entry.path.rstrip("/") + "/")]
    mount = max(mounts, key=lambda entry: (len(entry.path), entry.mount_id))
    return {
        "path": str(path), "file_system": mount.file_system, "mount_point": mount.path, "read_only": bool(space.f_flag & os.ST_RDONLY),
        "uid": stat.st_uid, "mode": stat.st_mode & 0o7777, "total_bytes": space.f_blocks * space.f_frsize,
        "available_bytes": space.f_bavail * space.f_frsize, "inodes_available": space.f_favail if space.f_files else None,
    }  # fmt: skip


def _synced(path: Path) -> dict[str, Any]:
    """How long it takes until four kilobytes are on the disk: the median."""
    existing = next(each for each in (path, *path.parents) if each.exists())
    took: list[float] = []
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            for _ in range(FSYNCS):
                file.write(b"lockstep" * 512)
                began = time.monotonic()
                file.flush()
                os.fsync(file.fileno())
                took.append(time.monotonic() - began)
    except OSError as failure:
        return {"fsync_s": None, "fsync_trouble": failure.strerror or str(failure)}
    return {"fsync_s": sorted(took)[len(took) // 2], "fsync_trouble": ""}

"""One node's part of a snapshot: a gzipped tar of texts, without secrets, with a list of what is in it and of what is not.

    collect()   runs the child and reads its output, against a deadline (blocking)
    main()      the child: every source is a thread that is left behind when it hangs, as the doctor's probes are (doctor/gather.py)

Every text is the tail of what there is, and all together are bounded.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

from orchestrator.doctor import gather
from orchestrator.doctor.probe_machine import daemon_pid
from orchestrator.doctor.scene import Scene, read_scene
from orchestrator.paths import Paths
from orchestrator.snapshot.redact import Redactor
from rfs import exit_codes, privileges
from rfs.control.blocking import BlockingClient
from rfs.errors import SaidNo
from rfs.record import SLOT_BYTES, choose, decode, to_wire
from rfs.record_file import NAME as RECORD_NAME

SCHEMA: Final = "hactl.snapshot-part/1"
MANIFEST: Final = "manifest.json"
TEXT_BYTES_MAX: Final = 256 << 10
PART_TEXT_BYTES_MAX: Final = 16 << 20
PART_BYTES_MAX: Final = 12 << 20  # packed
DEADLINE_S: Final = 12.0
COMMAND_TIMEOUT_S: Final = 6.0
RUNS_MAX: Final = 10
LISTED_MAX: Final = 2000

COMMANDS: Final[dict[str, list[str]]] = {
    "network/addresses": ["ip", "address"],
    "network/links": ["ip", "-s", "-d", "link"],
    "network/routes": ["ip", "route", "show", "table", "all"],
    "network/rules": ["ip", "rule"],
    "network/neighbours": ["ip", "neighbour"],
    "network/sockets": ["ss", "-tunap"],
    "network/statistics": ["ss", "-s"],
    "network/firewall": ["nft", "list", "ruleset"],
    "network/iptables": ["iptables-save"],
    "disks/space": ["df", "-h"],
    "disks/inodes": ["df", "-i"],
    "disks/devices": ["lsblk", "-o", "NAME,TYPE,SIZE,FSTYPE,MOUNTPOINT,ROTA,RO,MODEL"],
    "machine/processes": ["ps", "-eo", "pid,ppid,user,stat,ni,rss,lstart,wchan:20,args", "--sort=pid"],
    "machine/kernel-log": ["dmesg", "--ctime"],
    "machine/time": ["timedatectl"],
    "machine/memory": ["free", "-m"],
    "machine/journal": ["journalctl", "--no-pager", "-n", "1000", "-u", "hactld", "-u", "lockstep-guard"],
    "machine/unit": ["systemctl", "--no-pager", "status", "hactld"],
    "machine/kernel": ["uname", "-a"],
}
FILES: Final = {
    "machine/mounts": "/proc/self/mountinfo", "machine/load": "/proc/loadavg", "machine/interrupted-io": "/proc/pressure/io",
    "machine/waiting-for-memory": "/proc/pressure/memory", "machine/waiting-for-processors": "/proc/pressure/cpu",
    "machine/memory-in-full": "/proc/meminfo", "machine/os": "/etc/os-release", "disks/statistics": "/proc/diskstats",
    "network/netstat": "/proc/net/snmp",
}  # fmt: skip

Source = Callable[[], str]


def collect(node: str, config_dir: Path, root: Path = Path("/"), *, insecure: bool = False) -> bytes:
    """This node's part, out of a child; SaidNo when it made none in time."""
    words = [sys.executable, "-P", "-m", "orchestrator.snapshot.part", "--config-dir", str(config_dir), "--node", node, "--root", str(root)]
    data = gather.read_bounded(words + (["--insecure"] if insecure else []), DEADLINE_S + 2 * gather.STARTING_S, PART_BYTES_MAX)
    if not data.startswith(b"\x1f\x8b") or len(data) > PART_BYTES_MAX:
        raise SaidNo(f"{node} collected nothing within {DEADLINE_S + 2 * gather.STARTING_S:.0f} s", exit_codes.TIMEOUT)
    return data


# ---- sources ----------------------------------------------------------------------------------------------------------------------------


def sources(scene: Scene) -> Iterator[tuple[str, Source]]:
    """Everything that is asked for, by its name in the archive."""
    yield "doctor/facts.json", lambda: json.dumps(gather.look(scene), indent=1)
    for name, words in COMMANDS.items():
        yield f"{name}.txt", partial(output_of, words)
    for name, path in FILES.items():
        yield f"{name}.txt", partial(tail_of, Path(path))
    yield "machine/limits.txt", partial(_limits, scene)
    yield from _own_files(scene)
    for module in scene.modules.values():
        state = scene.paths.module_state(module.name)
        yield f"modules/{module.name}/services.log", partial(tail_of, scene.paths.module_log(module.name))
        yield f"modules/{module.name}/rfsmount.log", partial(tail_of, scene.paths.rfs_log(module.name))
        if module.mode == "mirror":
            yield f"modules/{module.name}/status.json", partial(_asked, state, "status")
            yield f"modules/{module.name}/stats.json", partial(_asked, state, "stats")
            yield f"modules/{module.name}/record.json", partial(_record, state)
        yield f"modules/{module.name}/state.txt", partial(_listing, state)
        for run in sorted(scene.paths.script_logs(module.name).glob("*.log"))[-RUNS_MAX:]:
            yield f"modules/{module.name}/scripts/{run.name}", partial(tail_of, run)


def _own_files(scene: Scene) -> Iterator[tuple[str, Source]]:
    for path in (scene.paths.log / "hactld.log", scene.paths.log / "history.jsonl", scene.paths.state / "hactld" / "state.json"):
        yield f"hactld/{path.name}", partial(tail_of, path)
    keys = scene.config_dir / "keys"
    yield "configuration/keys.txt", partial(_listing, keys)  # their names and permissions, nothing else
    for path in sorted(scene.config_dir.rglob("*")):
        if path.is_file() and not path.is_symlink() and not path.is_relative_to(keys):
            yield f"configuration/{path.relative_to(scene.config_dir)}", partial(tail_of, path)


def output_of(words: list[str]) -> str:
    """Of a command that ends by itself; a tool that is not there is told."""
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=COMMAND_TIMEOUT_S, check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    return bounded(done.stdout)


def tail_of(path: Path) -> str:
    """The end of a file."""
    with path.open("rb") as file:
        try:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TEXT_BYTES_MAX - 1))
        except OSError:
            pass  # a file of the kernel's has no end to seek to
        return bounded(file.read(TEXT_BYTES_MAX + 1))


def bounded(data: bytes) -> str:
    """Its last lines."""
    if len(data) > TEXT_BYTES_MAX:
        data = data[-TEXT_BYTES_MAX:]
        data = data.partition(b"\n")[2] or data
    return data.decode(errors="replace").replace("\0", "\\0")


def _asked(state: Path, method: str) -> str:
    with BlockingClient(str(state), timeout_s=3.0) as client:
        return json.dumps(client.call(method), indent=1)


def _record(state: Path) -> str:
    """Both slots, as they are."""
    with (state / RECORD_NAME).open("rb") as file:
        slots = [file.read(SLOT_BYTES), file.read(SLOT_BYTES)]
    found = [record for record in (decode(slots[0]), decode(slots[1])) if record is not None]
    newest = choose(*slots)
    shown = {"newest": to_wire(newest) if newest is not None else None, "slots": [to_wire(record) for record in found]}
    return json.dumps(shown, indent=1, default=str)


def _listing(directory: Path) -> str:
    lines = []
    for path in sorted(islice(directory.rglob("*"), LISTED_MAX)):  # kept/ may hold millions
        try:
            found = path.lstat()
        except OSError:
            continue
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.st_mtime))
        lines.append(f"{found.st_mode:o} {found.st_uid}:{found.st_gid} {found.st_size:>12} {when} {path.relative_to(directory)}")
    return "\n".join(lines) + "\n"


def _limits(scene: Scene) -> str:
    """hactld's, and its rfsmounts'."""
    pids = {"hactld": daemon_pid(scene.paths.socket)}
    for module in scene.modules:
        try:
            pids[f"rfsmount of {module}"] = int((scene.paths.module_state(module) / "rfsmount.pid").read_text())
        except (OSError, ValueError):
            pids[f"rfsmount of {module}"] = None
    shown = []
    for name, pid in pids.items():
        shown.append(f"==== {name}: {f'pid {pid}' if pid else 'does not run'}")
        for file in ("limits", "status", "sched") if pid else ():
            try:
                shown.append(f"-- {file}\n" + Path(f"/proc/{pid}/{file}").read_text())
            except OSError as failure:
                shown.append(f"-- {file}: {failure.strerror}")
    return "\n".join(shown) + "\n"


# ---- the child --------------------------------------------------------------------------------------------------------------------------


class Reading:
    """One source in its thread."""

    def __init__(self, name: str, source: Source) -> None:
        self.name, self.text, self.trouble, self._source = name, "", "", source
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True, name=name)
        self._thread.start()

    def _run(self) -> None:
        text = ""
        try:
            text = self._source()
        except FileNotFoundError as failure:
            self.trouble = f"{failure.filename}: is not there"
        except (OSError, SaidNo, subprocess.SubprocessError) as failure:
            self.trouble = getattr(failure, "sentence", None) or getattr(failure, "strerror", None) or str(failure)
        except Exception as failure:  # noqa: BLE001 - one source's mistake must not cost all others; it is told in the manifest
            self.trouble = f"{type(failure).__name__}: {failure}"
        self.text = text

    def wait(self, deadline: float) -> None:
        """Until it has read, or the time is over."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self.text, self.trouble = "", f"no answer within {time.monotonic() - self._began:.0f} s"


def make(scene: Scene, deadline_s: float = DEADLINE_S) -> bytes:
    """The part."""
    began, end = time.time(), time.monotonic() + deadline_s
    readings = [Reading(name, source) for name, source in sources(scene)]
    for reading in readings:
        reading.wait(end)
    redactor = Redactor()
    for reading in readings:
        redactor.learn(reading.text, name=reading.name)
    texts = {each.name: redactor.clean(each.text, name=each.name) for each in readings if not each.trouble}
    left_out = [{"name": each.name, "why": redactor.clean(each.trouble)} for each in readings if each.trouble]
    return pack(scene.node, texts, left_out, redactor.removed, began)


def pack(node: str, texts: dict[str, str], left_out: list[dict[str, str]], removed: int, began: float) -> bytes:
    """Texts and their list, within bounds: the small ones first."""
    items: list[dict[str, Any]] = []
    output, total = io.BytesIO(), 0
    with tarfile.open(fileobj=output, mode="w:gz", compresslevel=6, format=tarfile.USTAR_FORMAT) as archive:  # plain_tar.py reads no other
        for name, text in sorted(texts.items(), key=lambda each: len(each[1])):
            data = text.encode(errors="replace")
            total += len(data)
            if total > PART_TEXT_BYTES_MAX:
                left_out.append({"name": name, "why": f"{len(data)} bytes are more than there is room for"})
                continue
            try:
                add(archive, name, data, began)
            except ValueError:
                left_out.append({"name": name, "why": "its name is too long for a part"})
                continue
            items.append({"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
        manifest = {
            "schema": SCHEMA, "node": node, "began_s": began, "took_s": round(time.time() - began, 2), "removed": removed,
            "items": items, "left_out": left_out,
        }  # fmt: skip
        add(archive, MANIFEST, json.dumps(manifest, indent=1).encode(), began)
    return output.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes, when: float) -> None:
    """One file, readable for its owner."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(data), 0o600, int(when)
    archive.addfile(entry, io.BytesIO(data))


def main() -> None:
    """The child."""
    parser = argparse.ArgumentParser(prog="orchestrator.snapshot.part")
    for option in ("--config-dir", "--root"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--insecure", action="store_true")
    options = parser.parse_args()
    privileges.only_look()
    scene = read_scene(options.node, options.config_dir, Paths(options.root), insecure=options.insecure)
    data = make(scene)
    with open(1, "wb", closefd=False) as output:
        output.write(data)
    os._exit(0)  # threads that were left behind are not waited for


if __name__ == "__main__":
    main()

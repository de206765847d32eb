"""The probes, in a process of their own and against a deadline.

A file system that hangs holds whoever asks it until the machine is booted again: not even SIGKILL ends such a process. So the probes are a
child that its parent only reads from and never waits for, and in the child every probe is a thread that is left behind when its time is
over. What the others found is written, and the child ends, or stays as the one process that the file system holds.

How far away the peers are is measured first and alone: the walk through a million files would be measured with it.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from orchestrator.doctor import probe_configuration, probe_directories, probe_machine, probe_network, probe_services
from orchestrator.doctor.scene import Scene, read_scene
from orchestrator.paths import Paths
from rfs import exit_codes, privileges
from rfs.errors import SaidNo
from rfs.foreign import from_json

SCHEMA: Final = "hactl.facts/1"
DEADLINE_S: Final = 6.0  # for the probes; whoever asks a peer waits ten seconds
STARTING_S: Final = 3.0  # for the child's imports, on a busy machine
MEASURING_S: Final = 2.5
REAPING_S: Final = 0.5
FACTS_BYTES_MAX: Final = 900 << 10  # a call's answer is a megabyte at most

Probe = Callable[[], dict[str, Any]]
FIRST: Final[Mapping[str, Callable[[Scene], dict[str, Any]]]] = {"paths": probe_network.paths}
PROBES: Final[Mapping[str, Callable[[Scene], dict[str, Any]]]] = {
    "versions": probe_machine.versions,
    "kernel": probe_machine.kernel,
    "clock": probe_machine.clock,
    "identity": probe_machine.identity,
    "memory": probe_machine.memory,
    "security": probe_machine.security,
    "process": probe_machine.process,
    "storage": probe_machine.storage,
    "configuration": probe_configuration.configuration,
    "keys": probe_configuration.keys,
    "units": probe_configuration.units,
    "services": probe_services.services,
    "accounts": probe_services.accounts,
    "network": probe_network.network,
    "ports": probe_network.ports,
    "mirrors": probe_network.mirrors,
    "firewall": probe_network.firewall,
    "vips": probe_network.vips,
    "third": probe_network.third,
}
BEFORE_PAIRING: Final = (
    *("versions", "kernel", "clock", "identity", "memory", "security", "process"),
    *("storage", "units", "accounts", "firewall"),
)


class Look:
    """One probe in its thread."""

    def __init__(self, name: str, probe: Probe) -> None:
        self.name, self._probe = name, probe
        self._found: dict[str, Any] | None = None
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"probe {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._probe()
        except (OSError, SaidNo) as failure:
            self._found = {"error": getattr(failure, "sentence", None) or getattr(failure, "strerror", None) or str(failure)}
        except Exception as failure:  # noqa: BLE001 - one probe's mistake must not cost the facts of all others; it is shown as its fact
            self._found = {"error": f"{type(failure).__name__}: {failure}"}

    def result(self, deadline: float) -> dict[str, Any]:
        """What it found, or that it did not come back."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._found is None:
            return {"error": f"no answer within {time.monotonic() - self._began:.0f} s"}
        return self._found


def look(scene: Scene, deadline_s: float = DEADLINE_S, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """All facts, or those that are named."""
    end = time.monotonic() + deadline_s
    measuring = [Look(name, partial(probe, scene)) for name, probe in FIRST.items() if not only or name in only]
    measured = {each.name: each.result(min(end, time.monotonic() + MEASURING_S)) for each in measuring}
    looks = [Look(name, partial(probe, scene)) for name, probe in PROBES.items() if not only or name in only]
    places = [] if only else list(scene.directories())
    inside = {path: Look(path, partial(probe_directories.directory, scene, module, path)) for module, path in places}
    owned = {path: Look(path, partial(probe_directories.owners, path)) for _, path in places}
    facts: dict[str, Any] = {"schema": SCHEMA, "node": scene.node, **measured}
    facts |= {each.name: each.result(end) for each in looks}
    if not only:
        facts["directories"] = {"by_path": {path: each.result(end) for path, each in inside.items()}}
        facts["owners"] = {"by_path": {path: each.result(end) for path, each in owned.items()}}
    return facts


def gather(
    node: str,
    config_dir: Path,
    root: Path = Path("/"),
    *,
    insecure: bool = False,
    deadline_s: float = DEADLINE_S,
    only: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The facts of this node, out of a child (blocking, but never longer than the deadline and a little); SaidNo when there are none."""
    words = [sys.executable, "-P", "-m", "orchestrator.doctor.gather", "--config-dir", str(config_dir), "--node", node, "--root", str(root)]
    words += ["--deadline", str(deadline_s), *(["--insecure"] if insecure else []), *(f"--only={name}" for name in only)]
    output = read_bounded(words, deadline_s + STARTING_S, FACTS_BYTES_MAX)
    try:
        found = from_json(output)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SaidNo(f"the doctor on {node} found nothing within {deadline_s + STARTING_S:.0f} s", exit_codes.TIMEOUT)
    return found


def read_bounded(words: list[str], patience_s: float, bytes_max: int) -> bytes:
    """What a child writes until it ends its output, the time is over, or it writes too much. It is killed then, and not waited for."""
    end = time.monotonic() + patience_s
    pieces = bytearray()
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    assert child.stdout is not None
    with child.stdout as output:
        while (left_s := end - time.monotonic()) > 0 and len(pieces) <= bytes_max:
            if not select.select([output], [], [], left_s)[0]:
                break
            piece = os.read(output.fileno(), 1 << 16)
            if not piece:
                break
            pieces += piece
    child.kill()
    _reap(child)
    return bytes(pieces)


def _reap(child: subprocess.Popen[bytes]) -> None:
    """Unless a file system holds it: then it is nobody's until that answers, and whoever has read its output goes on."""
    try:
        handle = os.pidfd_open(child.pid)
    except OSError:
        return  # reaped already
    try:
        select.select([handle], [], [], REAPING_S)
        child.poll()
    finally:
        os.close(handle)


def main() -> None:
    """The child."""
    parser = argparse.ArgumentParser(prog="orchestrator.doctor.gather")
    for option in ("--config-dir", "--root"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--deadline", type=float, default=DEADLINE_S)
    parser.add_argument("--insecure", action="store_true")
    parser.add_argument("--only", action="append", default=[])
    options = parser.parse_args()
    privileges.only_look()
    scene = read_scene(options.node, options.config_dir, Paths(options.root), insecure=options.insecure)
    sys.stdout.write(json.dumps(look(scene, options.deadline, tuple(options.only))))
    sys.stdout.flush()
    os._exit(0)  # threads that were left behind are not waited for


if __name__ == "__main__":
    main()

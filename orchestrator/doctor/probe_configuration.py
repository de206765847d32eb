"""Probes of what is written in files: configuration, scripts, keys, units. Each blocks; each is plain data."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

from orchestrator.config import CLUSTER_FILE, MODULES_DIR
from orchestrator.config_archive import is_configuration
from orchestrator.doctor.scene import Scene
from orchestrator.security import key_store
from rfs.errors import SaidNo

FILES_MAX = 500
FILE_BYTES_MAX = 4 << 20
OWN_UNITS = ("hactld.service", "lockstep-guard.service")
COMMAND_TIMEOUT_S = 4.0


def configuration(scene: Scene) -> dict[str, Any]:
    """The files, by their hashes, and who may change them."""
    files = _files(scene.config_dir)
    loose = [scene.config_dir, scene.config_dir / MODULES_DIR, *files, *{file.parent for file in files}]
    cluster = scene.cluster
    return {
        "complaints": list(scene.complaints)[:20],
        "nodes": list(cluster.nodes) if cluster is not None else [],
        "cluster": cluster.name if cluster is not None else "",
        "policy": cluster.policy if cluster is not None else "",
        "peers": list(scene.peers),
        "modules": {name: module.mode for name, module in scene.modules.items()},
        "replication_networks": sorted({module.replication_network for module in scene.modules.values() if module.mode == "mirror"}),
        "files": {str(file.relative_to(scene.config_dir)): _digest(file) for file in files},
        "loose": [found for path in dict.fromkeys(loose) if (found := _loose(path)) is not None][:FILES_MAX],
        "scripts": [_script(file) for file in files if _is_script(scene, file)],
    }


def _files(config_dir: Path) -> list[Path]:
    """What `config apply` takes along, too: what was kept beside or left by an editor differs between two nodes that are alike."""
    candidates = (config_dir / CLUSTER_FILE, *sorted((config_dir / MODULES_DIR).rglob("*")))
    return [path for path in candidates if path.is_file() and is_configuration(path.relative_to(config_dir))][:FILES_MAX]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(FILE_BYTES_MAX)).hexdigest()[:32]


def _loose(path: Path) -> dict[str, Any] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    if found.st_uid == 0 and not found.st_mode & 0o022:
        return None
    return {"path": str(path), "uid": found.st_uid, "mode": stat.S_IMODE(found.st_mode)}


def _is_script(scene: Scene, path: Path) -> bool:
    """What lies directly in a module's directory of scripts, and begins like one or may be executed."""
    if not any(path.parent == module.scripts_dir for module in scene.modules.values()):
        return False
    with path.open("rb") as file:
        return file.read(2) == b"#!" or bool(path.stat().st_mode & 0o111)


def _script(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        first = file.readline(256).decode(errors="replace")
    words = first[2:].split() if first.startswith("#!") else []
    interpreter = words[0] if words else ""
    wanted = words[1] if len(words) > 1 and interpreter.endswith("/env") and not words[1].startswith("-") else interpreter
    found = any(os.access(place, os.X_OK) for place in _places(wanted))
    return {
        "path": str(path), "executable": bool(path.stat().st_mode & 0o100), "interpreter": wanted, "interpreter_found": found,
    }  # fmt: skip


def _places(program: str) -> list[str]:
    if program.startswith("/"):
        return [program]
    return [f"{directory}/{program}" for directory in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")]


def keys(scene: Scene) -> dict[str, Any]:
    """Whose keys are here, by their pins: nothing of it is secret."""
    found: dict[str, Any] = {"insecure": scene.insecure, "trouble": "", "own": "", "peers": {}, "left_s": {}}
    store = key_store(scene.config_dir)
    found["path"] = str(store.directory)
    if scene.insecure or not store.exists():
        return found
    try:
        own, trust = store.own(), store.trust()
    except SaidNo as trouble:
        return found | {"trouble": trouble.sentence}
    if store.directory.stat().st_mode & 0o077:
        found["trouble"] = f"{store.directory} can be read by others than root"
    peers = {peer: [pinned.pin for pinned in trust.of(peer)] for peer in trust.peers}
    expires = {own.node: own.known.expires, **{peer: trust.of(peer)[-1].expires for peer in trust.peers if trust.of(peer)}}
    return found | {"own": own.known.pin, "peers": peers, "left_s": {node: at - time.time() for node, at in expires.items()}}


def units(scene: Scene) -> dict[str, Any]:
    """What is started at boot: ours, and what the modules start."""
    wanted = [*OWN_UNITS, *(service.unit for module in scene.modules.values() for service in module.services if service.unit)]
    names = list(dict.fromkeys(name if "." in name else f"{name}.service" for name in wanted))
    return {"systemd": Path("/run/systemd/system").is_dir(), "states": {name: unit_state(name) for name in names}}


def unit_state(name: str) -> str:
    """As `systemctl is-enabled` says; empty when there is no systemctl or it does not answer."""
    try:
        done = subprocess.run(
            ["systemctl", "is-enabled", name], capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() or ("not-found" if "No such file" in done.stderr else "")

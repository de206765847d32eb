"""Probes of what the modules start: units, programs, users. Each blocks; each is plain data.

A program is never run to learn its version unless it is one of the few that are known to answer and end: what a start script of somebody's
own does with `--version` nobody knows. Of the others the files are compared.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import subprocess
from pathlib import Path
from typing import Any

from orchestrator.config import ModuleConfig, ServiceConfig
from orchestrator.doctor.probe_configuration import COMMAND_TIMEOUT_S, unit_state
from orchestrator.doctor.scene import Scene

UNIT_DIRECTORIES = tuple(f"{place}/systemd/system" for place in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"))
KNOWN_PROGRAMS = {
    "postgres": ["--version"], "mysqld": ["--version"], "mariadbd": ["--version"], "nginx": ["-v"], "redis-server": ["--version"],
    "httpd": ["-v"], "apache2": ["-v"], "slapd": ["-VV"], "named": ["-v"],
}  # fmt: skip
NOBODY = 65534
PROGRAM_BYTES_MAX = 64 << 20
ACCOUNTS_MAX = 5000


def services(scene: Scene) -> dict[str, Any]:
    """Every service of every module that runs here."""
    return {"services": [_service(module, service) for module in scene.modules.values() for service in module.services]}


def _service(module: ModuleConfig, service: ServiceConfig) -> dict[str, Any]:
    unit = service.unit if service.unit is None or "." in service.unit else f"{service.unit}.service"
    file = _unit_file(unit) if unit else None
    program = _program_of(file) if file is not None else service.start[0] if service.start else ""
    found = bool(program) and Path(program).is_file()
    version = _version(program) if found else ""
    return {
        "module": module.name, "name": service.name, "unit": unit or "", "unit_found": file is not None,
        "unit_state": unit_state(unit) if unit else "", "program": program, "program_found": found,
        "program_executable": found and os.access(program, os.X_OK), "version": version,
        "digest": _digest(program) if found and not version else "", "user": service.user or "", "uid": _uid(service.user),
    }  # fmt: skip


def _unit_file(unit: str) -> Path | None:
    """Where a unit, or the template that it is made of, is written down."""
    template = re.sub(r"@[^.]*\.", "@.", unit)
    return next((path for name in (unit, template) for place in UNIT_DIRECTORIES if (path := Path(place, name)).exists()), None)


def _program_of(file: Path) -> str:
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return ""
    match = re.search(r"^ExecStart=[-@:+!]*(/\S+)", text, re.MULTILINE)
    return match[1] if match else ""


def _version(program: str) -> str:
    words = KNOWN_PROGRAMS.get(Path(program).name)
    if words is None:
        return ""
    as_nobody: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    try:
        done = subprocess.run(
            [program, *words], capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL, cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, **as_nobody,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0][:200] if lines else ""


def _digest(program: str) -> str:
    try:
        with open(program, "rb") as file:
            return hashlib.sha256(file.read(PROGRAM_BYTES_MAX)).hexdigest()[:32]
    except OSError:
        return ""


def _uid(user: str | None) -> int | None:
    """As the system knows it, directory services included."""
    if user is None:
        return None
    try:
        return int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def accounts(scene: Scene) -> dict[str, Any]:
    """Names and numbers: of the local files, and of the users that services name."""
    users, groups = _table("/etc/passwd"), _table("/etc/group")
    for module in scene.modules.values():
        for service in module.services:
            if service.user and not service.user.isdigit() and (uid := _uid(service.user)) is not None:
                users[service.user] = uid
    return {"users": users, "groups": groups}


def _table(path: str) -> dict[str, int]:
    lines = (line.split(":") for line in Path(path).read_text(errors="replace").splitlines()[:ACCOUNTS_MAX])
    return {words[0]: int(words[2]) for words in lines if len(words) > 3 and words[2].isdigit()}

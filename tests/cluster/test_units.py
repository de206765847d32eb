"""The units for systemd: hardened as far as their mounts and the services allow (docs/decisions/0037), and no further."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import orchestrator

UNITS = Path(orchestrator.__file__).parent / "systemd"
HACTLD, GUARD = UNITS / "hactld.service", UNITS / "lockstep-guard.service"
# Each makes a mount namespace of its own, in this release of systemd or another: a mount of ours would be seen by nobody there.
MOUNT_NAMESPACE = frozenset(
    {
        "PrivateTmp",
        "PrivateDevices",
        "PrivateMounts",
        "PrivateIPC",
        "PrivateUsers",
        "PrivateNetwork",
        "PrivatePIDs",
        "ProtectSystem",
        "ProtectHome",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectProc",
        "ProcSubset",
        "ProtectHostname",
        "ReadOnlyPaths",
        "ReadWritePaths",
        "InaccessiblePaths",
        "ExecPaths",
        "NoExecPaths",
        "BindPaths",
        "BindReadOnlyPaths",
        "TemporaryFileSystem",
        "RootDirectory",
        "RootImage",
        "MountImages",
        "ExtensionImages",
        "ExtensionDirectories",
        "MountAPIVFS",
        "MountFlags",
        "DynamicUser",
        "RuntimeDirectory",
        "StateDirectory",
        "LogsDirectory",
        "CacheDirectory",
        "NetworkNamespacePath",
        "IPCNamespacePath",
    }
)
# Each is inherited by what the unit starts: for hactld that is other people's services, which may be anything.
INHERITED = frozenset(
    {
        "CapabilityBoundingSet",
        "AmbientCapabilities",
        "NoNewPrivileges",
        "SecureBits",
        "SystemCallFilter",
        "SystemCallArchitectures",
        "RestrictAddressFamilies",
        "RestrictNamespaces",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "RestrictFileSystems",
        "LockPersonality",
        "MemoryDenyWriteExecute",
        "ProtectClock",
        "DevicePolicy",
        "DeviceAllow",
        "IPAddressDeny",
        "LimitCORE",
        "LimitNOFILE",
        "LimitMEMLOCK",
        "UMask",
        "User",
        "Group",
    }
)
# Exposure as systemd 252 counts it, in tenths. Less is better; what is open has its reason in the decision.
EXPOSURE = {HACTLD: 96, GUARD: 33}
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


def options_of(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("unit", EXPOSURE, ids=lambda unit: unit.name)
def test_no_unit_that_owns_mounts_has_a_mount_namespace(unit: Path) -> None:
    assert not set(options_of(unit)) & MOUNT_NAMESPACE
    assert set(UNITS.glob("*")) == set(EXPOSURE), "a new unit has its line here"


def test_nothing_of_hactlds_unit_reaches_the_services() -> None:
    assert not set(options_of(HACTLD)) & INHERITED


@needs_systemd
@pytest.mark.parametrize("unit", EXPOSURE, ids=lambda unit: unit.name)
def test_the_exposure_is_what_the_decision_says(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    said = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LANG": "C.UTF-8"})
    if "--offline" in said.stderr:
        pytest.skip("this systemd-analyze cannot look at a file")
    level = re.search(r"exposure level for \S+: (\d+)\.(\d)", said.stdout)
    assert level is not None, said.stdout + said.stderr
    assert int(level[1]) * 10 + int(level[2]) <= EXPOSURE[unit]


@needs_systemd
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    for unit in EXPOSURE:
        text = unit.read_text()
        (tmp_path / unit.name).write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", text, flags=re.MULTILINE))
        said = subprocess.run(["systemd-analyze", "verify", str(tmp_path / unit.name)], capture_output=True, text=True, check=False)
        assert unit.name not in said.stderr, said.stderr


# ---- what the guard does passes the filter of its unit


def calls_of(name: str) -> set[str]:
    """The system calls of a set, and of the sets in it."""
    said = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True).stdout
    words = [line.strip() for line in said.splitlines() if line.startswith("    ") and not line.strip().startswith("#")]
    inner = [calls_of(word) for word in words if word.startswith("@")]
    return {word for word in words if not word.startswith("@")}.union(*inner)


def allowed(unit: Path) -> set[str]:
    """As systemd puts the lines together: the first says that it is a list of what is allowed, each next one adds or takes away. What
    every program needs is in any case."""
    found = calls_of("@default")
    for line in options_of(unit)["SystemCallFilter"]:
        named = set().union(*(calls_of(word) if word.startswith("@") else {word} for word in line.removeprefix("~").split()))
        found = found - named if line.startswith("~") else found | named
    return found


@pytest.fixture
def node() -> Iterator[tuple[Path, Path]]:
    """Configuration and state of a module whose machine went down with its guards, below a directory of root's own."""
    with tempfile.TemporaryDirectory(prefix="lockstep-units-", dir="/root") as place:
        home, data = Path(place), Path(place, "data")
        config, state = home / "etc", home / "var/lib/lockstep/modules/m"
        (config / "modules").mkdir(parents=True)
        state.mkdir(parents=True)
        data.mkdir()
        nodes = "".join(f'[[node]]\nname = "n{i}"\naddresses = {{ lan = "10.0.0.{i}" }}\n' for i in (1, 2))
        (config / "cluster.toml").write_text(f'name = "c"\n{nodes}')
        (config / "modules/m.toml").write_text(f'mode = "mirror"\n[[replicated]]\ndirectory = "{data}"\n')
        (state / "guards").write_text(json.dumps({"boot": "before", "namespace": "", "guards": {}, "trusted": True}))
        yield home, data
        subprocess.run(["umount", "-l", str(data)], capture_output=True, check=False)


@needs_systemd
@pytest.mark.mount
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("strace") is None, reason="needs root and strace")
def test_the_guard_makes_no_call_that_its_unit_refuses(node: tuple[Path, Path]) -> None:
    home, data = node
    log = home / "trace"
    line = [sys.executable, "-P", "-m", "orchestrator.daemon", "--guard", "--insecure", "--node", "n1", "--root", str(home)]
    line += ["--config-dir", str(home / "etc")]
    done = subprocess.run(["strace", "-f", "-qq", "-o", str(log), *line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(OSError, match="Read-only"):
        (data / "file").write_text("guarded")
    made = {match[1] for each in log.read_text().splitlines() if (match := re.match(r"\d+ +(\w+)\(", each))}
    assert {"move_mount", "mount_setattr", "execve"} <= made
    families = {match[1] for each in log.read_text().splitlines() if (match := re.search(r"socket(?:pair)?\((AF_\w+)", each))}
    assert made <= allowed(GUARD)
    assert families <= set(options_of(GUARD)["RestrictAddressFamilies"])

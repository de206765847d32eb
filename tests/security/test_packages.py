"""A package of a module is code: said before anything is written. What it cannot bring along: links, other places, bits, owners, sizes.
(Each hostile archive with its reason: tests/unit/test_module_archive.py.)"""

from __future__ import annotations

import json
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.hactl.cli import run
from orchestrator.modules import archive
from tests.unit.test_hactl_cli import CLUSTER
from tests.unit.test_module_archive import entry, tar_of

MODULE = 'mode = "light"\nnodes = ["node1", "node2"]\n[[service]]\nname = "app"\nstart = ["/usr/bin/sleep", "1000"]\n'
SCRIPT = b"#!/bin/sh\ntrue\n"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setattr("orchestrator.config.own_name", lambda: "node1")
    (tmp_path / "etc" / "modules").mkdir(parents=True)
    (tmp_path / "etc" / "cluster.toml").write_text(CLUSTER)

    def made(*words: str) -> tuple[int, str, str]:
        code = run(["--config-dir", str(tmp_path / "etc"), *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return made


def package(tmp_path: Path, mode: int, uid: int = 0) -> Path:
    """Somebody has made it by hand: bits and owners that no package of ours has."""
    files = {"module.toml": MODULE.encode(), "scripts/start_prim": SCRIPT}
    made = json.loads(manifest_of(archive.pack("app", "light", "0.1.0", MODULE, {"start_prim": (True, SCRIPT)})))
    entries = []
    for name, data in {"manifest.json": json.dumps(made).encode(), **files}.items():
        one = entry(name)
        one.mode, one.uid, one.gid, one.uname = (mode if name.startswith("scripts") else 0o644), uid, uid, "daemon"
        entries.append((one, data))
    file = tmp_path / "app.lockstep.tar.gz"
    file.write_bytes(tar_of(*entries))
    return file


def manifest_of(packed: bytes) -> bytes:
    import io

    with tarfile.open(fileobj=io.BytesIO(packed)) as opened:
        found = opened.extractfile("manifest.json")
        assert found is not None
        return found.read()


def test_it_says_that_it_is_code_before_anything_is_written(call: Call, tmp_path: Path) -> None:
    file = package(tmp_path, 0o755)
    code, out, err = call("module", "install", str(file), "--dry-run")
    assert code == 0 and "a package is code" in err and "run as root" in err and "(start_prim)" in err
    assert sorted(path.name for path in (tmp_path / "etc" / "modules").iterdir()) == []
    code, out, err = call("module", "install", str(file), "--json")
    assert code == 0 and any("a package is code" in sentence for sentence in json.loads(out)["to_know"])


@pytest.mark.parametrize("bits", [0o4755, 0o2755, 0o1777, 0o6777])
def test_bits_and_owners_stay_behind(bits: int, call: Call, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        code, _, err = call("module", "install", str(package(tmp_path, bits, uid=1)), "--yes")
    finally:
        os.umask(before)
    assert code == 0, err
    for path in (tmp_path / "etc" / "modules").rglob("*"):
        found = path.lstat()
        assert not stat.S_ISLNK(found.st_mode) and found.st_uid == os.geteuid() and found.st_gid == os.getegid(), path
        assert not stat.S_IMODE(found.st_mode) & 0o7022, f"{path}: {found.st_mode:o}"

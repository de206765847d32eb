"""Directories that labs made for their nodes to mount over: the last lab removes them, and no lab those of another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.lab import mount_points


def test_the_last_lab_removes_what_the_first_one_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, target = tmp_path / "labs", tmp_path / "etc/lockstep"
    monkeypatch.setattr(mount_points, "STATE_ROOT", root)
    (tmp_path / "etc").mkdir()
    for lab in ("one", "two"):
        (root / lab).mkdir(parents=True)
        (root / lab / "state.json").write_text("{}")
        mount_points.make([str(target)])
    (root / "one/state.json").unlink()
    mount_points.release("one")
    assert target.is_dir(), "two's nodes have mounted over it"
    (root / "two/state.json").unlink()
    (root / "two").rmdir()
    (root / "one").rmdir()
    mount_points.release("two")
    assert not target.exists() and (tmp_path / "etc").is_dir() and not root.exists()


def test_what_was_there_or_is_used_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount_points, "STATE_ROOT", tmp_path / "labs")
    there, used = tmp_path / "there", tmp_path / "deep/used"
    there.mkdir()
    mount_points.make([str(there), str(used)])
    (used / "file").touch()
    mount_points.release("one")
    assert there.is_dir() and used.is_dir()

"""Logs that others write stay bounded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from orchestrator.effects import logs
from orchestrator.paths import Paths


def test_a_long_log_is_moved_aside_while_somebody_writes(tmp_path: Path) -> None:
    path = tmp_path / "pg.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        assert logs.bound(path, 100) is False
        writer.write(b"y")
        assert logs.bound(path, 100) is True
        writer.write(b"after\n")
    assert path.read_bytes() == b"after\n" and (tmp_path / "pg.log.1").read_bytes() == b"x" * 100 + b"y"
    assert logs.bound(tmp_path / "none.log") is False


async def test_every_log_of_a_module_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(logs.bound, "__defaults__", (10,))
    paths = Paths(tmp_path)
    paths.make()
    paths.script_logs("pg").mkdir(parents=True)
    files = [paths.module_log("pg"), paths.rfs_log("pg"), paths.script_logs("pg") / "run.log"]
    for file in files:
        file.write_text("longer than ten")
    notes: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(logs.keep_bounded, paths, ["pg"], lambda kind, text: notes.append(text))
        with trio.fail_after(10):
            while any(map(os.path.getsize, files)):
                await trio.sleep(0.01)
        failures = trio.Event()
        tries = 0

        def full(path: Path) -> bool:
            nonlocal tries
            tries += 1
            if tries == 5:
                trio.from_thread.run_sync(failures.set)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(logs, "bound", full)
        with trio.fail_after(10):
            await failures.wait()
        nursery.cancel_scope.cancel()
    assert notes == ["the logs cannot be kept short: [Errno 28] No space left on device"], "once, not at every look"

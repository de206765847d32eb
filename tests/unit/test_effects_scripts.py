"""The administrator's scripts, as real files: what they are told, how they fail, what is kept of them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import trio

from orchestrator.config import ModuleConfig
from orchestrator.core.actions import RunScript
from orchestrator.core.states import Move, Point, State
from orchestrator.effects import EffectFailed, processes, scripts
from orchestrator.effects.scripts import Scripts
from orchestrator.paths import Paths
from tests.unit.test_effects_services import module

MODULE, BOTH, PRIM = Point.MODULE, Point.BOTH, Point.PRIM


class Stage:
    """A module's scripts over a temporary root."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path, self.paths = tmp_path, Paths(tmp_path)
        self.paths.make()
        self.config: ModuleConfig = module(tmp_path)
        self.config.scripts_dir.mkdir()
        self.notes: list[str] = []

    def scripts(self) -> Scripts:
        """As a restarted hactld would have them."""
        return Scripts(self.config, "node1", self.paths, lambda kind, text: self.notes.append(f"{kind}: {text}"))

    def write(self, name: str, body: str) -> None:
        path = self.config.scripts_dir / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    async def run(self, name: str, *entered: Point, force: bool = False, move: Move | None = None) -> None:
        await self.scripts().run(RunScript("pg", 1, name, move or Move("WAIT", "PRIM", "start"), force, frozenset(entered)))

    def said(self) -> list[str]:
        """What the scripts wrote themselves."""
        return (self.tmp_path / "said").read_text().splitlines()

    def logs(self) -> list[Path]:
        return sorted(self.paths.script_logs("pg").glob("*.log"))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_a_start_script_is_told_the_move_and_finds_its_variables(stage: Stage) -> None:
    variables = "$LOCKSTEP_MODULE $LOCKSTEP_NODE $LOCKSTEP_STATE $SAFEMODULE $SAFEUSERBIN"
    stage.write("start_prim", f'echo "$@" >> {stage.tmp_path}/said; echo {variables} >> {stage.tmp_path}/said; echo to the log; pwd')
    await stage.run("start_prim", MODULE, BOTH, PRIM)
    assert stage.said() == ["WAIT PRIM start", f"pg node1 PRIM pg {stage.config.scripts_dir}"]
    (log,) = stage.logs()
    assert log.name.endswith("_start_prim.log") and log.read_text() == "to the log\n/\n"
    assert [note.partition(";")[0] for note in stage.notes] == [
        "script: start_prim WAIT PRIM start: runs", "script: start_prim WAIT PRIM start: ended with exit code 0 after 0.0 s",
    ]  # fmt: skip


async def test_a_stop_script_is_asked_and_then_told(stage: Stage) -> None:
    stage.write("stop_prim", f'echo "$@" >> {stage.tmp_path}/said; [ "$1" = force ]')
    await stage.run("stop_prim", MODULE, BOTH, move=Move("PRIM", "STOP", "stop"))
    assert stage.said() == ["PRIM STOP stop", "force PRIM STOP stop"], "that the first call fails is what the second is for"
    await stage.run("stop_prim", MODULE, BOTH, force=True, move=Move("PRIM", "WAIT", "stopwait"))
    assert stage.said()[2:] == ["force PRIM WAIT stopwait"]


async def test_what_is_not_there_is_entered_all_the_same(stage: Stage) -> None:
    await stage.run("prestart", MODULE)
    await stage.run("transition", MODULE, move=Move("STOP", "WAIT", "start"))
    assert stage.scripts().found() == (frozenset({MODULE}), State.WAIT)
    assert stage.notes == [] and not stage.paths.script_logs("pg").exists()


async def test_a_restarted_hactld_knows_what_was_entered_and_announced(stage: Stage) -> None:
    assert stage.scripts().found() == (frozenset(), State.STOP)
    await stage.run("transition", MODULE, move=Move("WAIT", "ALONE", "start"))
    await stage.run("start_both", MODULE, BOTH)
    assert stage.scripts().found() == (frozenset({MODULE, BOTH}), State.ALONE)
    (stage.paths.run / "services/pg.points").write_text("module no-such-point\nALONE\n")
    assert stage.scripts().found() == (frozenset(), State.STOP), "of another release: nothing is known"


async def test_how_scripts_fail(stage: Stage) -> None:
    stage.write("start_prim", "exit 4")
    with pytest.raises(EffectFailed, match="start_prim ended with exit code 4; see 'hactl logs pg'"):
        await stage.run("start_prim", MODULE, BOTH, PRIM)
    assert stage.scripts().found()[0] == {MODULE, BOTH, PRIM}, "it was called: its stop script has to be, too"
    os.chmod(stage.config.scripts_dir / "start_prim", 0o644)
    with pytest.raises(EffectFailed, match="chmod"):
        await stage.run("start_prim", MODULE, BOTH, PRIM)
    (stage.config.scripts_dir / "start_prim").write_text("#!/no/such/interpreter\n")
    os.chmod(stage.config.scripts_dir / "start_prim", 0o755)
    with pytest.raises(EffectFailed, match="exit code 127"):
        await stage.run("start_prim", MODULE, BOTH, PRIM)


async def test_one_that_hangs_is_killed_with_all_it_left(stage: Stage) -> None:
    stage.config = dataclasses.replace(stage.config, script_stop_timeout_s=2.0, script_force_timeout_s=2.0)
    stage.write("stop_prim", f"trap '' TERM; echo $$ >> {stage.tmp_path}/said; setsid sleep 1000 & echo $! >> {stage.tmp_path}/said; wait")
    with trio.fail_after(20), pytest.raises(EffectFailed, match="was not finished after 2 s"):
        await stage.run("stop_prim", MODULE, BOTH)
    assert len(stage.said()) == 4, "asked, then told"
    for pid in stage.said():
        if (process := processes.find(int(pid))) is not None:  # killed, and perhaps not yet gone
            with trio.fail_after(5):
                await processes.wait_dead(process)


async def test_output_without_end_is_cut_off_and_the_beginning_stays(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "LOG_BYTES_MAX", 1 << 16)
    monkeypatch.setattr(scripts, "LOOK_EVERY_S", 0.01)
    stage.write("start_prim", "echo the reason; timeout 1 yes; true")
    await stage.run("start_prim", MODULE, BOTH, PRIM)
    (log,) = stage.logs()
    text = log.read_text(errors="replace")
    assert text.startswith("the reason\n") and "the rest is cut off" in text
    assert log.stat().st_size < 64 << 20, "a second of yes is several gigabytes"


async def test_the_newest_logs_are_kept(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "RUNS_KEPT", 3)
    stage.write("start_both", 'echo "$2"')
    for number in range(6):
        await stage.run("start_both", MODULE, BOTH, move=Move("WAIT", str(number), "start"))
    assert [log.read_text() for log in stage.logs()] == ["3\n", "4\n", "5\n"]


async def test_a_log_that_somebody_removes_ends_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "LOOK_EVERY_S", 0.01)
    stage.write("start_prim", f"rm {stage.paths.script_logs('pg')}/*; sleep 0.1; echo done >> {stage.tmp_path}/said")
    await stage.run("start_prim", MODULE, BOTH, PRIM)
    assert stage.said() == ["done"]


async def test_a_log_disk_that_refuses_stops_no_script(stage: Stage) -> None:
    stage.paths.script_logs("pg").parent.write_text("no directory")
    stage.write("start_both", f"echo done >> {stage.tmp_path}/said")
    await stage.run("start_both", MODULE, BOTH)
    assert stage.said() == ["done"] and "its output is lost" in stage.notes[0]


async def test_what_prepares_and_fails_is_not_entered_for_the_next_hactld(stage: Stage) -> None:
    await stage.run("prestart", MODULE)
    stage.write("start_both", "exit 1")
    with pytest.raises(EffectFailed):
        await stage.run("start_both", MODULE, BOTH)
    assert stage.scripts().found()[0] == {MODULE}


async def test_what_hactld_was_in_the_middle_of_is_called_again(stage: Stage) -> None:
    stage.write("start_both", f"echo $$ >> {stage.tmp_path}/said; sleep 1000")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.run, "start_both", MODULE, BOTH)
        with trio.fail_after(10):
            while not stage.notes or not (stage.tmp_path / "said").exists():
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert stage.scripts().found()[0] == frozenset()
    assert processes.find(int(stage.said()[0])) is None

"""What runs as root is root's alone to change: every way in which it would not be, at every step of the path, and where it is looked at."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from orchestrator import config_archive, config_start, ownership
from orchestrator.effects import EffectFailed, commands
from orchestrator.generations import GenerationStore
from rfs import exit_codes
from rfs.errors import SaidNo

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")
SOMEBODY, ANOTHER = 12345, 54321


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Below root's own directory: nothing above it is anybody else's, and all of it counts."""
    monkeypatch.setattr(ownership, "TOP", Path("/"))
    with tempfile.TemporaryDirectory(prefix="lockstep-ownership-", dir="/root") as path:
        (Path(path) / "etc" / "modules" / "pg").mkdir(parents=True)
        yield Path(path)


def script(place: Path, text: str = "#!/bin/sh\necho ran\n") -> Path:
    path = place / "etc" / "modules" / "pg" / "start_prim"
    path.write_text(text)
    path.chmod(0o755)
    return path


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "the file is somebody's": (lambda path: os.chown(path, SOMEBODY, 0), "chown root {path}"),
    "the group may write": (lambda path: path.chmod(0o775), "chmod go-w {path}"),
    "all may write": (lambda path: path.chmod(0o757), "chmod go-w {path}"),
    "its directory is somebody's": (lambda path: os.chown(path.parent, SOMEBODY, 0), "chown root {path.parent}"),
    "its directory is open": (lambda path: path.parent.chmod(0o777), "chmod go-w {path.parent}"),
    "a sticky directory": (lambda path: path.parent.parent.chmod(0o1777), "chmod go-w {path.parent.parent}"),
    "far above": (lambda path: path.parents[2].chmod(0o775), "chmod go-w {path.parents[2]}"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_each_way_is_one_sentence_with_the_next_step(place: Path, name: str) -> None:
    path = script(place)
    assert ownership.complaint(path) is None
    spoil, step = SPOILT[name]
    spoil(path)
    said = ownership.complaint(path)
    assert said is not None and said.endswith(f"'{step.format(path=path)}'"), said
    assert subprocess.run(re.findall(r"'([^']*)'$", said)[0], shell=True, check=False).returncode == 0
    assert ownership.complaint(path) is None, "the step that is named is enough"


def test_an_access_list_that_lets_others_write_is_seen(place: Path) -> None:
    if not shutil.which("setfacl"):
        pytest.skip("needs setfacl")
    path = script(place)
    subprocess.run(["setfacl", "-m", f"u:{SOMEBODY}:rw", path], check=True)
    said = ownership.complaint(path)
    assert said is not None and "chmod go-w" in said


def test_links_are_followed_by_name_and_both_ends_count(place: Path) -> None:
    path = script(place)
    real, open_place = place / "real", place / "open"
    path.rename(real)
    path.symlink_to("../../../real")
    assert ownership.complaint(path) is None
    open_place.mkdir()
    open_place.chmod(0o777)
    real.rename(open_place / "real")
    path.unlink()
    path.symlink_to(open_place / "real")
    said = ownership.complaint(path)
    assert said is not None and said.startswith(f"{path}: {open_place} can be changed")
    path.unlink()
    path.symlink_to(path.name)
    said = ownership.complaint(path)
    assert said is not None and "too many symbolic links" in said
    path.unlink()
    assert ownership.complaint(path) is None, "what is not there is somebody else's finding"


def test_what_is_a_users_may_run_as_that_user_and_nobody_else(place: Path) -> None:
    path = script(place)
    os.chown(path, SOMEBODY, 0)
    assert ownership.complaint_of_program(path, SOMEBODY) is None
    for other in (0, ANOTHER):
        assert ownership.complaint_of_program(path, other) is not None


def test_the_interpreter_counts_as_well(place: Path) -> None:
    shell = place / "shell"
    shutil.copy("/bin/sh", shell)
    path = script(place, f"#!{shell} -e\n")
    assert ownership.complaint_of_program(path, 0) is None
    shell.chmod(0o777)
    said = ownership.complaint_of_program(path, 0)
    assert said is not None and str(shell) in said


def test_our_own_environment_is_as_good_as_we_are(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """And it is no excuse for all of /usr, where the interpreter is the system's."""
    own = place / "venv"
    own.mkdir()
    shutil.copy("/bin/true", own / "rfsmount")
    (own / "rfsmount").chmod(0o777)
    monkeypatch.setattr(sys, "prefix", str(own))
    assert ownership.complaint_of_program(own / "rfsmount", 0) is None
    monkeypatch.setattr(sys, "base_prefix", str(own))
    assert ownership.complaint_of_program(own / "rfsmount", 0) is not None


async def test_it_is_looked_at_before_each_run(place: Path) -> None:
    path, log = script(place), place / "log"

    async def run() -> int:
        with trio.fail_after(10):
            return await commands.run([str(path)], commands.identity_of(None), {}, log, 5)

    assert await run() == 0
    path.parent.chmod(0o777)
    with pytest.raises(EffectFailed, match="is not started: .*chmod go-w") as refused:
        await run()
    assert refused.value.refused and log.read_text() == "ran\n"
    path.parent.chmod(0o755)
    assert await run() == 0


def test_it_is_looked_at_whenever_a_configuration_is_taken_up(place: Path) -> None:
    config, store = place / "etc", GenerationStore(place / "state")
    cluster = 'name = "c"\n' + "".join(f'[[node]]\nname = "n{i}"\naddresses = {{ lan = "10.0.0.{i}" }}\n' for i in (1, 2))
    (config / "cluster.toml").write_text(cluster)

    def refused(spoilt: Path, mode: int = 0o777) -> None:
        before = spoilt.stat().st_mode & 0o7777
        spoilt.chmod(mode)
        for look in (lambda: config_start.tree_of(store, config), lambda: config_archive.check_ownership(config)):
            with pytest.raises(SaidNo) as no:
                look()
            assert no.value.exit_code == exit_codes.CONFIGURATION_INVALID and str(spoilt) in no.value.sentence
        spoilt.chmod(before)

    script(place)
    for spoilt in (
        config,
        config / "cluster.toml",
        config / "modules",
        config / "modules" / "pg",
        config / "modules" / "pg" / "start_prim",
    ):
        refused(spoilt)
    (config / "modules" / "empty").mkdir()
    refused(config / "modules" / "empty")

    config_start.adopt(store, config)
    tree = config_start.tree_of(store, config)
    assert tree.is_relative_to(place / "state")
    (tree / "modules" / "pg" / "start_prim").chmod(0o777)
    with pytest.raises(SaidNo, match="chmod go-w"):
        config_start.tree_of(store, config)

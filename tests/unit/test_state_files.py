"""Every file that this node must not lose is the old one or the new one, wherever its writing is cut off; a damaged one is one sentence.

Each writer of the table runs as a process of its own under strace, which kills it at its first, second, third call of a kind, and so on.
Another run shows that a cut of power finds the same: what is given its name was on the disk before, and the name is after. The applied
configurations have their own test (test_generations.py), the marks theirs (tests/powercut, tests/native).
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator import config_archive, statefile
from orchestrator.config import ModuleConfig
from orchestrator.core.states import Memory, Point, State
from orchestrator.effects.processes import Process, write_pid_file
from orchestrator.effects.scripts import Scripts
from orchestrator.effects.service_command import Group
from orchestrator.hactl import cluster_commands, cluster_files
from orchestrator.modules import place
from orchestrator.paths import Paths
from rfs import small_file, state_directory
from rfs.errors import SaidNo
from rfs.keys import KeyStore, Pinned, Trust
from rfs.record_file import RecordDamaged, RecordFile
from tests.property.records import PLAIN

CALLS = ("write", "pwrite64", "fsync", "fdatasync", "rename", "link", "unlink", "ftruncate")
CLUSTER = 'name = "c"\n' + "".join(f'[[node]]\nname = "n{i}"\naddresses = {{ lan = "10.0.0.{i}" }}\n' for i in (1, 2))


@dataclass(frozen=True)
class Writer:
    """`write(root, version)` with version 1 and then 2; `read` tells which is there (None: not even the first, `first` allows it)."""

    write: Callable[[Path, int], None]
    read: Callable[[Path], object]
    durable: bool = True  # what lies below /run ends with the boot


def _remembered(version: int) -> dict[str, statefile.Kept]:
    return {f"m{number}": statefile.Kept("boot", Memory(wanted=version == 2)) for number in range(40)}


def _which(path: Path) -> object:
    found = statefile.read(path / "state.json")
    return next((version for version in (1, 2) if found == _remembered(version)), found)


def _directories(version: int) -> state_directory.Directories:
    return state_directory.Directories(("/srv/one", "/srv/two") if version == 1 else ("/s",))


def _without_room(root: Path, version: int) -> None:
    """No second file fits: written over the first one."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.MonkeyPatch.context() as patch:
        if version == 2:
            patch.setattr(small_file, "write_durably", full)
        state_directory.write_directories(str(root), _directories(version))


def _directories_there(root: Path) -> object:
    found = state_directory.read_directories(str(root))
    return next((version for version in (1, 2) if found == _directories(version)), found)


def _trust(root: Path, version: int) -> None:
    pins = tuple(Pinned(f"{number:064x}", "CERTIFICATE", 0) for number in range(version))
    store = KeyStore(root)
    with store._changing():
        store._write_trust(Trust("c", {"peer": pins}))


def _record(root: Path, version: int) -> None:
    file = RecordFile(str(root))
    file.write(replace(PLAIN, generation=1, term=version))
    file.close()


def _record_there(root: Path) -> object:
    file = RecordFile(str(root))
    found = file.read()
    file.close()
    return found.term if found is not None else None


def _scripts(root: Path) -> Scripts:
    (root / "run/lockstep/services").mkdir(parents=True, exist_ok=True)
    config = ModuleConfig("m", "light", ("n1",), "", "", "on", 1, 1.0, (), (), (), 1, root)  # type: ignore[arg-type]
    return Scripts(config, "n1", Paths(root), lambda kind, text: None)


def _points(root: Path, version: int) -> None:
    _scripts(root)._remember(frozenset(list(Point)[:version]), State.WAIT)


def _config(root: Path, version: int) -> config_archive.Files:
    return {"cluster.toml": (0o644, f"{CLUSTER}# {version}\n".encode()), "modules/m/start_prim": (0o755, b"#!/bin/sh\n" * version)}


def _lay_out(root: Path, version: int) -> None:
    """Somebody edits meanwhile: that work is kept aside before it is replaced."""
    if version == 1:
        config_archive.lay_out(_config(root, 1), {}, root)
        (root / "cluster.toml").write_text("edited")
    else:
        config_archive.lay_out(_config(root, 2), _config(root, 1), root)


def _laid_out(root: Path) -> object:
    """An interrupted one is done again; what was edited is in one place or the other, whole."""
    text, aside = (root / "cluster.toml").read_text(), root / "cluster.toml.before-apply"
    assert text == "edited" or (aside.read_text() == "edited" and text.endswith("# 2\n"))
    script = (root / "modules/m/start_prim").read_bytes()
    assert script in (b"#!/bin/sh\n", b"#!/bin/sh\n" * 2)
    return 2 if text != "edited" and len(script) == 20 else 1


def _join(root: Path, version: int) -> None:
    cluster_files.store(_config(root, version), root, "n1", replace=True)


def _joined(root: Path) -> object:
    text = (root / "cluster.toml").read_text()
    return int(text[-2]) if text.startswith(CLUSTER) else text


def _module(root: Path, version: int) -> None:
    if version == 2:
        shutil.rmtree(root / "modules" / "m", ignore_errors=True)  # scripts of one that was cut off are in the way, and a person is told so
        place.write(root, "m", "# a module\n", {"start_prim": (True, b"#!/bin/sh\n")})


def _module_there(root: Path) -> object:
    path = root / "modules/m.toml"
    assert not path.exists() or (path.read_text() == "# a module\n" and (root / "modules/m/start_prim").read_bytes() == b"#!/bin/sh\n")
    return 2 if path.exists() else 1


def _cluster_there(root: Path) -> object:
    return 2 if (root / "cluster.toml").exists() and "[[node]]" in (root / "cluster.toml").read_text() else 1


WRITERS = {
    "memory of hactld": Writer(lambda root, version: statefile.write(root / "state.json", _remembered(version)), _which),
    "directories": Writer(lambda root, version: state_directory.write_directories(str(root), _directories(version)), _directories_there),
    "directories on a full disk": Writer(_without_room, _directories_there),
    "trust": Writer(_trust, lambda root: len(KeyStore(root).trust().of("peer"))),
    "record": Writer(_record, _record_there),
    "points": Writer(_points, lambda root: len(_scripts(root).found()[0]), durable=False),
    "group": Writer(
        lambda root, version: Group(str(version), None).write(root / "group"),
        lambda root: int(Group.read(root / "group").mark),
        durable=False,
    ),
    "pid file": Writer(
        lambda root, version: write_pid_file(root / "pid", Process(version, 7)),
        lambda root: int((root / "pid").read_text().split()[0]),
        durable=False,
    ),
    "configuration": Writer(_lay_out, _laid_out),
    "configuration of another": Writer(_join, _joined),
    "module file": Writer(_module, _module_there),
    "first cluster.toml": Writer(
        lambda root, version: cluster_commands._write_cluster(root, "c", ("n1,lan=10.0.0.1", "n2,lan=10.0.0.2")) if version == 2 else None,
        _cluster_there,
    ),
}
# One process each, under one strace, which counts the calls of each process by itself. What it says is no `write`.
DRIVER = """
import ctypes.util, os, pathlib, sys
ctypes.util.find_library = {"c": "libc.so.6"}.get  # else it runs programs, which would be killed as well
from tests.unit.test_state_files import WRITERS
for name, writer in WRITERS.items():
    if (child := os.fork()) == 0:
        writer.write(pathlib.Path(sys.argv[1], name), 2)
        os._exit(0)
    os.writev(1, [f"{name}={os.waitpid(child, 0)[1]}\\n".encode()])
"""
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


def prepared(root: Path) -> Path:
    """The first version of everything."""
    for name, writer in WRITERS.items():
        (root / name).mkdir(mode=0o700, parents=True)
        writer.write(root / name, 1)
        assert writer.read(root / name) == 1
    return root


def run(root: Path, *options: str) -> dict[str, int]:
    """The second version of everything, under strace: how each process ended."""
    line = ["strace", "-f", "-qq", "-y", *options, sys.executable, "-c", DRIVER, str(root)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(line, env=environment, check=True, capture_output=True, text=True, timeout=60)
    ends = {name: int(status) for name, status in (said.split("=") for said in done.stdout.splitlines())}
    assert set(ends) == set(WRITERS)
    return ends


@pytest.mark.timeout(180)
@needs_strace
@pytest.mark.parametrize("call", CALLS)
def test_cut_off_at_any_call_it_is_the_old_or_the_new(tmp_path: Path, call: str) -> None:
    for count in range(1, 20):
        root = prepared(tmp_path / str(count))
        ends = run(root, "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={count}")
        for name, writer in WRITERS.items():
            found = writer.read(root / name)
            assert found in ((1, 2) if ends[name] else (2,)), f"{name}, cut off at {call} {count}: {found}"
            if found == 1:  # it can be done again
                writer.write(root / name, 2)
                assert writer.read(root / name) == 2
        if not any(ends.values()):
            assert count > 1, f"nobody calls {call}"
            return
    raise AssertionError(f"{call} has no end")


@needs_strace
def test_what_gets_its_name_is_on_the_disk_before_and_the_name_after(tmp_path: Path) -> None:
    root, log = prepared(tmp_path / "root"), tmp_path / "trace"
    assert not any(run(root, "-o", str(log), "-e", f"trace={','.join(CALLS)}").values())
    for name, writer in WRITERS.items():
        if writer.durable:
            made = calls_below(log, root / name)
            assert made, name
            check_order(made, root / name)


def calls_below(log: Path, root: Path) -> list[tuple[str, str]]:
    """Name and text of each call that concerns a file there."""
    found = (re.match(r"\d+ +(\w+)\((.*)", line) for line in log.read_text().splitlines())
    return [(each[1], each[2]) for each in found if each is not None and re.search(rf"{re.escape(str(root))}[/>\"]", each[2])]


def check_order(made: list[tuple[str, str]], root: Path) -> None:
    """What gets its name is on the disk before, and the name after."""
    synced: list[str] = []
    unsynced: set[str] = set()
    for call, text in made:
        paths = re.findall(rf"{re.escape(str(root))}[^>\",]*", text)
        if call in ("fsync", "fdatasync"):
            synced += paths
            unsynced.discard(paths[0])
        elif call in ("rename", "link"):
            source, target = paths
            assert source in synced or any(each.startswith(f"{source}/") for each in synced), (
                f"{source} has its name before it is on the disk"
            )
            unsynced.add(str(Path(target).parent))
    assert not unsynced, f"names in {unsynced} are not on the disk"


# ---- damaged -----------------------------------------------------------------------------------------------------------------------------

RUBBISH = {
    "empty": b"",
    "half": b'{"modules": {"m',
    "bytes": bytes(range(256)) * 4,
    "list": b"[1, 2]",
    "number": b"7",
    "null": b"null",
    "text": b"x",
}


@pytest.mark.parametrize("what", RUBBISH)
def test_a_damaged_file_is_one_sentence_or_nothing_remembered(tmp_path: Path, what: str) -> None:
    def damaged(name: str) -> Path:
        path = tmp_path / name
        path.write_bytes(RUBBISH[what])
        path.chmod(0o600)
        return path

    assert statefile.read(damaged("state.json")) == {}
    damaged("directories")
    assert state_directory.read_directories(str(tmp_path)) is None
    assert Group.read(damaged("group")) == Group("", None)
    (tmp_path / "run/lockstep/services").mkdir(parents=True)
    damaged("run/lockstep/services/m.points")
    assert _scripts(tmp_path).found() == (frozenset(), State.STOP)
    damaged("trust.json")
    with pytest.raises(SaidNo, match="trust.json: (is damaged|cannot be read)"):
        KeyStore(tmp_path).trust()
    damaged("identity.pem")
    with pytest.raises(SaidNo, match="identity.pem: (is not a key|cannot be read)"):
        KeyStore(tmp_path).own()
    damaged("record")
    file = RecordFile(str(tmp_path))
    if RUBBISH[what].strip(b"\0"):
        with pytest.raises(RecordDamaged, match="both copies of the record are damaged"):
            file.read()
    else:
        assert file.read() is None
    file.close()


def test_what_is_written_over_is_whole_between_its_two_calls(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(json.dumps({"long": "x" * 100}))
    with path.open("r+b") as file:
        seen: list[bytes] = []
        real = os.ftruncate

        def truncate(descriptor: int, length: int) -> None:
            seen.append(path.read_bytes())
            real(descriptor, length)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "ftruncate", truncate)
            small_file.overwrite(file.fileno(), b'{"short": 1}')
    assert json.loads(seen[0]) == {"short": 1}
    assert path.read_bytes() == b'{"short": 1}'

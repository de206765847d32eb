"""What is kept of applied configurations, and that a node which dies at any system call has the old one or the new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import generations
from orchestrator.config_archive import digest
from orchestrator.generations import Generation, GenerationStore, Prepared, newest_within
from rfs.errors import SaidNo
from rfs.pairing import Files


def files(word: str) -> Files:
    return {"cluster.toml": (0o644, word.encode()), "modules/pg/start_prim": (0o755, b"#!/bin/sh\n")}


def generation(number: int, word: str, base: str = "") -> Generation:
    return Generation(number, digest(files(word)), base, f"t{number}", "ann", float(number), f"to {word}")


def commit(store: GenerationStore, number: int, word: str) -> Generation:
    made = generation(number, word)
    store.keep(files(word))
    store.commit(made)
    return made


def read(root: Path) -> GenerationStore:
    store = GenerationStore(root)
    store.read()
    return store


def test_nothing_at_first(tmp_path: Path) -> None:
    store = read(tmp_path / "config")
    assert store.past.applied is None and store.prepared is None


def test_what_is_committed_is_read_again(tmp_path: Path) -> None:
    root = tmp_path / "config"
    store = read(root)
    first, second = commit(store, 1, "one"), commit(store, 2, "two")
    again = read(root)
    assert again.past.generations == (first, second) and again.past.applied == second and not again.past.laid_out
    assert again.files_of(first.digest) == files("one")
    assert again.past.numbered(1) == first and again.past.has_transaction("t2") and not again.past.has_transaction("t3")
    assert root.stat().st_mode & 0o777 == 0o700
    again.note_laid_out()
    assert read(root).past.laid_out


def test_a_promise_is_kept_until_it_is_over(tmp_path: Path) -> None:
    store = read(tmp_path / "config")
    commit(store, 1, "one")
    promised = Prepared(generation(2, "two"), "node1", ("pg",))
    store.keep(files("two"))
    store.prepare(promised)
    store.sweep()
    again = read(tmp_path / "config")
    assert again.prepared == promised and again.past.applied == generation(1, "one")
    again.commit(promised.generation)
    assert again.prepared is None and read(tmp_path / "config").prepared is None
    again.prepare(promised)
    again.release()
    assert read(tmp_path / "config").prepared is None


def test_old_generations_and_what_nobody_needs_go(tmp_path: Path) -> None:
    store = read(tmp_path / "config")
    for number in range(1, generations.KEPT_MAX + 5):
        commit(store, number, f"word {number}")
    store.keep(files("for nobody"))
    store.sweep()
    assert len(store.past.generations) == generations.KEPT_MAX and store.past.applied == generation(24, "word 24")
    assert {place.name for place in (tmp_path / "config/trees").iterdir()} == {each.digest for each in store.past.generations}


def test_bytes_are_bounded_but_the_applied_one_and_the_one_before_stay() -> None:
    many = [generation(number, str(number)) for number in range(1, 6)]
    sizes = {each.digest: generations.KEPT_BYTES_MAX for each in many}
    assert newest_within(many, sizes) == tuple(many[-2:])
    assert newest_within(many, {}) == tuple(many)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda root: (root / "history.json").write_text("{"),
        lambda root: (root / "history.json").write_text("[]"),
        lambda root: (root / "history.json").write_text(json.dumps({"generations": [{"number": "x"}]})),
        lambda root: next((root / "trees").glob("*/cluster.toml")).write_text("other"),
        lambda root: (root / "prepared.json").write_text('{"generation": {}}'),
    ],
)
def test_what_is_damaged_is_said_with_the_next_step(tmp_path: Path, spoil: object) -> None:
    commit(read(tmp_path / "config"), 1, "one")
    spoil(tmp_path / "config")  # type: ignore[operator]
    with pytest.raises(SaidNo, match="move .*config away, and hactld begins anew"):
        read(tmp_path / "config")


CHILD = """
import sys
from pathlib import Path
from tests.unit.test_generations import commit, read
store = read(Path(sys.argv[1]))
commit(store, 2, "two")
"""


@pytest.mark.skipif(subprocess.run(["which", "strace"], capture_output=True, check=False).returncode != 0, reason="needs strace")
def test_whoever_is_killed_at_any_rename_fsync_or_unlink_has_one_or_the_other(tmp_path: Path) -> None:
    seen = set()
    for call in ("rename", "fsync", "unlink"):
        for count in range(1, 20):
            root = tmp_path / f"{call}{count}"
            commit(read(root), 1, "one")
            line = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={count}"]
            environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
            done = subprocess.run([*line, sys.executable, "-c", CHILD, str(root)], env=environment, check=False, capture_output=True)
            store = read(root)
            assert store.past.applied in (generation(1, "one"), generation(2, "two"))
            assert store.files_of(store.past.applied.digest) == files("one" if store.past.applied.number == 1 else "two")
            seen.add(store.past.applied.number)
            if done.returncode == 0:
                break
        else:
            raise AssertionError(f"{call} has no end")
    assert seen == {1, 2}

"""What is kept of applied configurations, and that a node which dies at any system call has the old one or the new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import generations
from orchestrator.config_archive import as_open_here, digest, gather, pack, unpack
from orchestrator.config_start import adopt
from orchestrator.generations import Generation, GenerationStore, Prepared, newest_within
from rfs.errors import SaidNo
from rfs.pairing import Files


def files(word: str) -> Files:
    return {"cluster.toml": (0o600, word.encode()), "modules/pg/start_prim": (0o755, b"#!/bin/sh\n")}


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
    assert root.stat().st_mode & 0o777 == 0o711
    again.note_laid_out()
    assert read(root).past.laid_out


NOBODY = 65534


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory to which other users come; those of pytest are closed."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        yield Path(place)


def as_nobody(*command: str | Path) -> str:
    """What it prints; empty: it may not."""
    done = subprocess.run(command, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True, text=True, check=False)
    return done.stdout


def scripts(directory: Path) -> Files:
    """People's files: a configuration with a password, a script for all, what it reads, and a script for root."""
    put = {"cluster.toml": (0o644, "password"), "modules/pg.toml": (0o644, "password"), "modules/pg/data": (0o640, "secret")}
    put |= {"modules/pg/check": (0o755, '#!/bin/sh\n. "${0%check}words"\n'), "modules/pg/words": (0o644, "echo fine\n")}
    put |= {"modules/pg/own": (0o700, "#!/bin/sh\necho password\n")}
    for name, (mode, text) in put.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
        (directory / name).chmod(mode)
    return gather(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_script_runs_as_another_user_who_reads_nothing_else(open_path: Path) -> None:
    """The checker's `user`: its program lies in a tree."""
    before = os.umask(0o077)
    try:
        store, people = read(open_path / "config"), scripts(open_path / "etc")
        digest = store.keep(people)
    finally:
        os.umask(before)
    tree = store.tree(digest)
    store.commit(Generation(1, digest, "", "t1"))
    assert as_nobody(tree / "modules/pg/check") == "fine\n"
    for name in ("cluster.toml", "modules/pg.toml", "modules/pg/data", "modules/pg/own"):
        assert as_nobody("/bin/cat", tree / name) == "", name
    assert as_nobody("/bin/ls", open_path / "config") == as_nobody("/bin/ls", open_path / "config/trees") == ""
    assert as_nobody("/bin/cat", open_path / "config/history.json") == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_comes_from_another_node_is_as_open_as_what_is_here(open_path: Path) -> None:
    store, people = read(open_path / "config"), scripts(open_path / "etc")
    sent = unpack(pack(people))
    assert sent["modules/pg/own"][0] == 0o755, "who may read a file does not travel"
    tree = store.tree(store.keep(as_open_here(sent, open_path / "etc")))
    assert as_nobody(tree / "modules/pg/check") == "fine\n"
    assert as_nobody("/bin/cat", tree / "modules/pg/own") == as_nobody("/bin/cat", tree / "modules/pg/data") == ""
    (open_path / "etc/modules/pg/own").chmod(0o755)
    assert store.keep(as_open_here(sent, open_path / "etc")) == tree.name and as_nobody(tree / "modules/pg/own") == "password\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_relied_on_the_closed_directory_is_closed_before_that_is_opened(open_path: Path) -> None:
    store, people = read(open_path / "config"), scripts(open_path / "etc")
    tree = store.tree(store.keep(people))
    store.commit(Generation(1, tree.name, "", "t1"))
    for path in (path for path in tree.rglob("*") if path.is_file()):
        path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    old = store.keep(files("old"))
    (store.tree(old) / "cluster.toml").chmod(0o644)
    store.root.chmod(0o700)
    (store.root / "trees").chmod(0o755)
    adopt(store, open_path / "etc")
    assert as_nobody(tree / "modules/pg/check") == "fine\n"
    for path in (tree / "cluster.toml", tree / "modules/pg/own", store.tree(old) / "cluster.toml"):
        assert as_nobody("/bin/cat", path) == ""
    assert read(store.root).past == store.past


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

"""`rfsmount verify`: no false alarm while an application writes; what was planted beneath the guard is found, and repaired."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.lab.trees import differences, manifest
from rfs import exit_codes
from tests.posix.node import Node, needs_mounts

pytestmark = [pytest.mark.mount, needs_mounts]


@pytest.fixture
def mirrored(nodes: tuple[Node, Node]) -> tuple[Node, Node]:
    a, b = nodes
    assert a.mount("primary").returncode == exit_codes.DONE
    assert b.mount("secondary").returncode == exit_codes.DONE
    a.until(link="paired")
    return a, b


def verify(node: Node, *more: str) -> tuple[int, dict[str, object]]:
    done = node.run("verify", "--json", *more)
    assert done.returncode in (0, 1) and not done.stderr, done
    answer: dict[str, object] = json.loads(done.stdout)
    return done.returncode, answer


def fsync_writer(root: Path, chance: random.Random) -> None:
    """Like a database: pages of one file in place, a log that grows, both synced now and then."""
    with open(root / "pages", "r+b" if (root / "pages").exists() else "w+b", buffering=0) as pages, open(root / "log", "ab") as log:
        for _ in range(50):
            os.pwrite(pages.fileno(), chance.randbytes(8192), 8192 * chance.randrange(400))
            log.write(chance.randbytes(200))
        os.fdatasync(log.fileno())


def namer(root: Path, chance: random.Random) -> None:
    """Like an editor or a mail store: files are made, renamed over others, linked, removed."""
    place = root / f"d{chance.randrange(5)}"
    place.mkdir(exist_ok=True)
    for _ in range(20):
        name, other = (place / f"n{chance.randrange(20)}" for _ in range(2))
        try:
            match chance.randrange(7):
                case 0:
                    name.write_bytes(chance.randbytes(chance.randrange(100_000)))
                case 1:
                    os.rename(name, other)
                case 2:
                    name.unlink()
                case 3:
                    os.link(name, other)
                case 4:
                    name.symlink_to("somewhere")
                case 5:
                    os.truncate(name, chance.randrange(200_000))
                case _:
                    os.chmod(name, chance.choice((0o600, 0o644, 0o755)))
                    os.utime(name, ns=(0, chance.randrange(10**18)))
        except OSError:
            pass


@contextmanager
def load(root: Path) -> Iterator[None]:
    stopping = threading.Event()

    def loop(step: Callable[[Path, random.Random], None], seed: int) -> None:
        chance = random.Random(seed)
        while not stopping.is_set():
            step(root, chance)

    threads = [threading.Thread(target=loop, args=(step, seed)) for seed, step in enumerate((fsync_writer, namer, namer))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


def test_no_false_alarm_under_load(mirrored: tuple[Node, Node]) -> None:
    a, b = mirrored
    for position, directory in enumerate(a.directories):
        (directory / "still").write_bytes(os.urandom(3_000_000 + position))
    with load(a.directories[0]):
        until, rounds = time.monotonic() + 15, 0
        while time.monotonic() < until or rounds < 3:
            code, answer = verify(a)
            assert (code, answer["equal"], answer["found"]) == (0, True, [])
            rounds += 1
    for here, there in zip(a.directories, b.directories, strict=True):
        assert differences(manifest(str(here)), manifest(str(there))) == []


def plant(tree: Path) -> None:
    """One difference of each kind, without a trace in the directory's own times."""
    before = tree.stat()
    with open(tree / "byte", "r+b") as file:
        status = os.fstat(file.fileno())
        os.pwrite(file.fileno(), b"\xff", 100_000)
        os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
    os.chmod(tree / "mode", 0o711)
    os.setxattr(tree / "xattr", "user.planted", b"x")
    os.utime(tree / "mtime", ns=(0, 0))
    (tree / "extra").write_text("x")
    (tree / "missing").unlink()
    (tree / "new").write_text("linked")
    os.rename(tree / "new", tree / "hard2")
    (tree / "new").symlink_to("elsewhere")
    os.rename(tree / "new", tree / "symlink")
    os.utime(tree, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_is_planted_is_found_and_repaired(mirrored: tuple[Node, Node]) -> None:
    a, b = mirrored
    data = a.directories[0]
    (data / "byte").write_bytes(bytes(300_000))
    for name in ("mode", "xattr", "mtime", "missing"):
        (data / name).write_text(name)
    (data / "hard1").write_text("linked")
    os.link(data / "hard1", data / "hard2")
    (data / "symlink").symlink_to("somewhere")
    assert verify(a)[0] == 0
    refused = b.run("verify")
    assert refused.returncode == exit_codes.REFUSED and "run it on a" in refused.stderr

    plant(b.beneath())
    code, answer = verify(a)
    found = {(Path(one["path"]).name, *one["kinds"]) for one in answer["found"]}  # type: ignore[attr-defined]
    assert code == 1 and found == {
        ("byte", "content"), ("mode", "mode"), ("xattr", "xattrs"), ("mtime", "mtime"), ("extra", "extra"), ("missing", "missing"),
        ("hard2", "object"), ("symlink", "object"),
    }  # fmt: skip
    byte = next(one for one in answer["found"] if one["path"].endswith("byte"))  # type: ignore[attr-defined]
    assert byte["offset"] <= 100_000 < byte["offset"] + byte["length"]
    told = a.run("verify")
    assert told.returncode == 1 and "8 differences; 'verify --repair' makes them equal" in told.stdout

    with load(data):
        code, answer = verify(a, "--repair")
    assert code == 0 and answer["equal"] and answer["repaired"] == 8
    a.until(link="paired")
    b.until(link="paired")
    for here, there in zip(a.directories, b.directories, strict=True):
        assert differences(manifest(str(here)), manifest(str(there))) == []


def test_local_files_are_not_compared(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    assert a.mount("primary", "--exclude", "*.tmp", "--exclude", "cache/**").returncode == exit_codes.DONE
    assert b.mount("secondary", "--exclude", "*.tmp", "--exclude", "cache/**").returncode == exit_codes.DONE
    a.until(link="paired")
    data = a.directories[0]
    (data / "x.tmp").write_text("local")
    (data / "cache").mkdir()
    (data / "cache" / "local").write_text("local")
    (data / "y.tmp").write_text("arrives")
    os.rename(data / "y.tmp", data / "y")
    assert verify(a)[0] == 0
    (b.beneath() / "y").write_text("ARRIVES")
    assert verify(a)[0] == 1

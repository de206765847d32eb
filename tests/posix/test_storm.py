"""Random sequences of changes, from several processes at once, on the mount and on a plain directory: the same results, errnos and
trees; then the secondary's tree. And the same while the secondary is being resynced."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.lab.trees import differences, manifest
from tests.posix.conftest import Pair

pytestmark = pytest.mark.mount

STEPS = 400


def storm(root: str, seed: int, steps: int) -> list[str]:
    """The same seed does the same to any directory. Returns what each step answered."""
    chance = random.Random(seed)
    names = [f"n{number}" for number in range(8)]
    out = []

    def path() -> str:
        return os.path.join(root, *(chance.choice(names) for _ in range(chance.choice((1, 1, 2)))))

    for _ in range(steps):
        kind, a, b = chance.randrange(14), path(), path()
        number, data = chance.randrange(200_000), bytes([chance.randrange(256)]) * chance.randrange(1, 20_000)
        try:
            out.append(str(_step(kind, a, b, number, data)))
        except OSError as failure:
            out.append(os.strerror(failure.errno or 0))
    return out


def _step(kind: int, a: str, b: str, number: int, data: bytes) -> object:
    match kind:
        case 0 | 1 | 2:
            fd = os.open(a, os.O_RDWR | os.O_CREAT, 0o600 | (number & 0o77))
            try:
                wrote = os.pwrite(fd, data, number)
                if number % 5 == 0:
                    os.fsync(fd)
                return wrote
            finally:
                os.close(fd)
        case 3:
            return os.mkdir(a, 0o700)
        case 4:
            return os.unlink(a)
        case 5:
            return os.rmdir(a)
        case 6 | 7:
            return os.rename(a, b)
        case 8:
            return os.link(a, b, follow_symlinks=False)
        case 9:
            return os.symlink(os.path.basename(b), a)
        case 10:
            return os.truncate(a, number)
        case 11:
            return os.chmod(a, number & 0o777)
        case 12:
            return os.setxattr(a, f"user.x{number % 3}", data[:100], follow_symlinks=True)
        case _:
            return os.utime(a, ns=(number, number * 1_000_003), follow_symlinks=False)


def without_times(tree: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """Two runs differ in the times that nobody set."""
    return {path: {field: value for field, value in about.items() if field != "mtime_ns"} for path, about in tree.items()}


@pytest.mark.parametrize("seed", range(4))
def test_the_mount_behaves_as_a_plain_directory(pair: Pair, tmp_path: Path, seed: int) -> None:
    mounted = pair.root / f"storm{seed}"
    mounted.mkdir()
    (tmp_path / "plain").mkdir()
    assert storm(str(mounted), seed, STEPS) == storm(str(tmp_path / "plain"), seed, STEPS)
    assert differences(without_times(manifest(str(mounted))), without_times(manifest(str(tmp_path / "plain")))) == []


def start_storms(root: Path, count: int, steps: int) -> list[subprocess.Popen[bytes]]:
    """Several processes in one directory."""
    root.mkdir(exist_ok=True)
    return [subprocess.Popen([sys.executable, "-m", "tests.posix.test_storm", str(root), str(seed), str(steps)]) for seed in range(count)]


def test_several_processes_at_once(pair: Pair) -> None:
    for process in start_storms(pair.root / "together", 4, 500):
        assert process.wait(60) == 0


@pytest.mark.timeout(180)
def test_a_resync_while_several_processes_write(pair: Pair) -> None:
    """The secondary dies again and again and is resynced under a storm; at the end the trees are equal."""
    shutil.copytree("/usr/lib/python3", pair.root / "library", symlinks=True, dirs_exist_ok=True)
    storms = start_storms(pair.root / "under-storm", 3, 6000)
    try:
        for _ in range(3):
            pair.secondary.kill()
            pair.primary.until(link="alone")
            assert pair.secondary.mount("secondary").returncode == 0
            pair.primary.until(link="paired")
    finally:
        for process in storms:
            process.wait(120)
    assert [process.returncode for process in storms] == [0, 0, 0]


if __name__ == "__main__":
    storm(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

"""Short memory, and more open files than a process usually may have."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.posix.conftest import Pair

pytestmark = pytest.mark.mount

FILES = 3000
CAP_SYS_RESOURCE = 24
LIMIT_BYTES, MAPPED_BYTES = 48 << 20, 160 << 20
MAPS = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
os.truncate(fd, int(sys.argv[2]))
memory = mmap.mmap(fd, 0)
for again in range(2):
    for at in range(0, len(memory), mmap.PAGESIZE):
        memory[at : at + 8] = (at + again).to_bytes(8, "little")
memory.flush()
"""


def pids(pair: Pair) -> list[int]:
    return [int((node.state / "rfsmount.pid").read_text()) for node in (pair.primary, pair.secondary)]


@pytest.fixture
def small_memory(tmp_path: Path) -> Iterator[Path]:
    """A control group that may not have much; its `cgroup.procs`."""
    old, new = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    place, limit = (old, "memory.limit_in_bytes") if old.exists() else (new, "memory.max")
    group = place / f"lockstep-{tmp_path.name}"
    try:
        group.mkdir()
        (group / limit).write_text(str(LIMIT_BYTES))
    except OSError as failure:
        pytest.skip(f"no control group for memory can be made here: {failure}")
    yield group / "cgroup.procs"
    group.rmdir()


def test_it_holds_its_memory_and_is_spared(pair: Pair) -> None:
    for pid in pids(pair):
        status = Path(f"/proc/{pid}/status").read_text()
        locked_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmLck"))
        assert locked_kib > 1024
        capabilities = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff"))
        if capabilities >> CAP_SYS_RESOURCE & 1:
            assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) == -900


def test_more_open_files_than_a_process_may_usually_have(pair: Pair) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < FILES + 200:
        pytest.skip("this process may not have that many itself")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    (pair.root / "many-open").mkdir()
    opened = []
    try:
        for number in range(FILES):
            opened.append(os.open(pair.root / "many-open" / str(number), os.O_RDWR | os.O_CREAT, 0o600))
        for number, fd in enumerate(opened):
            os.pwrite(fd, str(number).encode(), 0)
    finally:
        for fd in opened:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (pair.secondary.directories[0] / "many-open" / str(FILES - 1)).read_text() == str(FILES - 1)


def test_an_application_with_little_memory_maps_a_large_file(pair: Pair, small_memory: Path) -> None:
    """The kernel can make room for it only by writing its pages back through us."""
    path = pair.root / "mapped-large"
    command = [sys.executable, "-c", MAPS, str(path), str(MAPPED_BYTES)]
    enter = f'echo $$ > {small_memory} && exec "$@"'
    subprocess.run(["sh", "-c", enter, "sh", *command], check=True, timeout=120)
    mirrored = (pair.secondary.directories[0] / "mapped-large").read_bytes()
    assert len(mirrored) == MAPPED_BYTES
    for at in range(0, MAPPED_BYTES, 997 * mmap.PAGESIZE):
        assert mirrored[at : at + 8] == (at + 1).to_bytes(8, "little")
    path.unlink()

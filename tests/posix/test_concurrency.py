"""Several threads and processes at the same file or directory: nobody loses anything, and at the end both copies are equal."""

from __future__ import annotations

import errno
import mmap
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.posix.conftest import Pair
from tests.posix.rules import in_child
from tests.posix.syscalls import EXCHANGE, Directory, renameat2

pytestmark = pytest.mark.mount

PAGE, BYTES = 4096, 64 << 10


@pytest.fixture
def here(pair: Pair) -> Iterator[Path]:
    """A directory that is the same on both nodes in the end."""
    path = pair.root / "together"
    path.mkdir()
    yield path
    pair.mirrored("together")
    shutil.rmtree(path)


def together(*jobs: Callable[[], object]) -> list[object]:
    """Each in a process of its own; what they returned."""
    results: list[object] = [None] * len(jobs)

    def run(number: int) -> None:
        try:
            results[number] = in_child(jobs[number])
        except AssertionError as failure:
            results[number] = failure

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, AssertionError):
            raise result
    return results


# ---- one file ------------------------------------------------------------------------------------------------------------------------


def write_over(path: Path, flags: int, seed: int, same_block: bool) -> None:
    """Four threads of one process, each with a descriptor of its own."""

    def write(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        fd = os.open(path, flags)
        length = PAGE if flags & os.O_DIRECT else 3 * PAGE
        with mmap.mmap(-1, length) as data:
            for step in range(100):
                data[:] = bytes([(seed * 40 + number * 10 + step) % 255 + 1]) * length
                place = 0 if same_block else chance.randrange(BYTES - length)
                os.pwritev(fd, [data], place - place % PAGE if flags & os.O_DIRECT else place)
        os.close(fd)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def map_over(path: Path, seed: int, same_block: bool) -> None:
    """Through a shared mapping."""
    chance = random.Random(seed)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), BYTES) as memory:
        for step in range(150):
            place = 0 if same_block else chance.randrange(BYTES - 3 * PAGE)
            memory[place : place + 2 * PAGE] = bytes([step % 255 + 1]) * (2 * PAGE)
            memory.flush()


@pytest.mark.parametrize("same_block", [True, False])
def test_whoever_writes_over_whom_both_copies_agree(here: Path, same_block: bool) -> None:
    path = here / "contended"
    path.write_bytes(bytes(BYTES))
    flags = (os.O_WRONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR, os.O_WRONLY | os.O_DIRECT, os.O_RDWR | os.O_DSYNC)
    writers = [partial(write_over, path, how, seed, same_block) for seed, how in enumerate(flags)]
    together(*writers, partial(map_over, path, 7, same_block), partial(map_over, path, 8, same_block))
    direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, BYTES) as memory:
        os.preadv(direct, [memory], 0)
        assert memory[:] == path.read_bytes(), "what the kernel remembers is what is there"
    os.close(direct)


@pytest.mark.parametrize("engine", ["libaio --direct=1", "io_uring --direct=1", "io_uring", "mmap"])
def test_many_writes_of_one_block_in_flight(here: Path, tmp_path: Path, engine: str) -> None:
    if shutil.which("fio") is None:
        pytest.skip("fio is not installed")
    for size in ("4k", "128k"):
        words = f"--rw=randwrite --bs=4k --size={size} --io_size=4m --norandommap --iodepth=16 --numjobs=2 --ioengine={engine}".split()
        command = ["fio", "--name=job", f"--filename={here}/{size}", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_writer_and_a_mapping_share_a_page(here: Path) -> None:
    """In turns: each sees at once what the other has written, however both have opened the file."""
    path = here / "shared"
    path.write_bytes(bytes(2 * PAGE))
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 2 * PAGE) as memory:
        for step in range(1, 200):
            fd = os.open(path, os.O_WRONLY if step % 2 else os.O_RDWR)
            memory[step] = step  # not flushed: the writer must not lose it
            os.pwrite(fd, bytes([step]), PAGE + step)
            os.pwrite(fd, bytes([step]), 1000 + step)
            os.close(fd)
            assert (memory[PAGE + step], memory[1000 + step], memory[step]) == (step, step, step)
        memory.flush()
    content = path.read_bytes()
    wanted = bytes(range(1, 200))
    assert (content[1:200], content[1001:1200], content[PAGE + 1 : PAGE + 200]) == (wanted, wanted, wanted)


def test_a_writer_beside_a_mapping_loses_nothing(here: Path) -> None:
    """At the very same moment: one process changes a page through a mapping, another writes to other bytes of it."""
    path, steps = here / "beside", 1500
    path.write_bytes(bytes(PAGE))

    def mapped() -> None:
        with open(path, "r+b") as file:
            for step in range(steps):
                with mmap.mmap(file.fileno(), PAGE) as memory:
                    memory[step % 1000] = step % 251 + 1
                    if step % 7 == 0:
                        memory.flush()

    def written() -> None:
        fd = os.open(path, os.O_WRONLY)
        for step in range(steps):
            os.pwrite(fd, bytes([step % 251 + 1]), 2000 + step % 1000)
        os.close(fd)

    together(mapped, written)
    content = path.read_bytes()
    for offset in range(1000):
        last = max(step for step in range(offset, steps, 1000)) % 251 + 1
        assert (content[offset], content[2000 + offset]) == (last, last), offset


def test_a_reader_never_keeps_what_was_before_a_write(here: Path) -> None:
    """Somebody follows a log: whatever the size says is there is what was written."""
    path = here / "followed"
    path.touch()

    def follow() -> None:
        seen = b""
        fd = os.open(path, os.O_RDONLY)
        while len(seen) < 60_000:
            seen += os.pread(fd, 1 << 16, len(seen))
            assert b"\0" not in seen
        os.close(fd)

    def append() -> None:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        for _ in range(2000):
            os.write(fd, b"x" * 30)
        os.close(fd)

    together(follow, append)


def append_records(path: Path, number: int, flags: int, count: int) -> None:
    chance = random.Random(number)
    fd = os.open(path, flags | os.O_APPEND)
    for step in range(count):
        record = f"{number} {step} ".encode()
        record += b"." * chance.randrange(1, 5000) + b"\n"
        assert os.write(fd, record) == len(record)
    os.close(fd)


def test_appends_from_several_processes_neither_lost_nor_torn(here: Path) -> None:
    path, count = here / "log", 150
    path.touch()
    flags = (os.O_WRONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR, os.O_WRONLY | os.O_SYNC)
    together(*(partial(append_records, path, number, how, count) for number, how in enumerate(flags)))
    seen: list[list[int]] = [[] for _ in flags]
    for line in path.read_bytes().splitlines():
        number, step, dots = line.split(b" ")
        assert not dots.strip(b".")
        seen[int(number)].append(int(step))
    assert seen == [list(range(count))] * len(flags)


# ---- fsync ---------------------------------------------------------------------------------------------------------------------------


def test_fsyncs_overlap_and_hold_up_nobody(here: Path) -> None:
    """While one large fsync runs, small ones of other files begin and end, and so do writes, creates and reads."""
    large = os.open(here / "large", os.O_RDWR | os.O_CREAT)
    small = [os.open(here / f"small{number}", os.O_RDWR | os.O_CREAT) for number in range(8)]
    for fd, size in ((large, 24 << 20), *((fd, PAGE) for fd in small)):
        os.write(fd, bytes(size))
        os.fsync(fd)
    stop = threading.Event()
    spans: dict[str, list[tuple[float, float]]] = {"fsync": [], "write": [], "create": []}

    def again(kind: str, do: Callable[[], object]) -> None:
        while not stop.is_set():
            began = time.monotonic()
            do()
            spans[kind].append((began, time.monotonic()))

    def sync_small(fd: int) -> None:
        os.pwrite(fd, b"x" * PAGE, 0)
        os.fdatasync(fd)

    def create() -> None:
        os.close(os.open(here / "new", os.O_CREAT | os.O_WRONLY))
        os.unlink(here / "new")

    other = os.open(here / "other", os.O_WRONLY | os.O_CREAT)
    jobs: list[tuple[str, Callable[[], object]]] = [("fsync", partial(sync_small, fd)) for fd in small]
    jobs += [("write", partial(os.pwrite, other, b"y" * PAGE, 0)), ("create", create)]
    threads = [threading.Thread(target=again, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    wanted, within = {"fsync": 8, "write": 30, "create": 5}, dict.fromkeys(spans, 0)
    for fill in range(1, 20):  # as often as a busy machine needs; in a queue of fsyncs it would never come to that
        os.pwrite(large, bytes([fill]) * (24 << 20), 0)
        began = time.monotonic()
        os.fdatasync(large)
        ended = time.monotonic()
        for kind, found in spans.items():
            within[kind] += sum(began < first and last < ended for first, last in list(found))
        if all(within[kind] >= count for kind, count in wanted.items()):
            break
    stop.set()
    for thread in threads:
        thread.join()
    for fd in (large, other, *small):
        os.close(fd)
    assert all(within[kind] >= count for kind, count in wanted.items()), within


# ---- directories ---------------------------------------------------------------------------------------------------------------------


def test_a_cookie_stays_good_while_entries_go(here: Path) -> None:
    """What is read from a remembered place on is what came after it, without what was removed; the rest once."""
    names = {f"entry-{number:04}".encode() for number in range(1000)}
    for made in names:
        (here / os.fsdecode(made)).touch()
    directory = Directory(here)
    places: list[tuple[int, bytes]] = []
    while True:
        cookie = directory.tell()
        name = directory.read()
        if name is None:
            break
        places.append((cookie, name))
    assert {name for _, name in places} == names and len(places) == 1000
    for index in (0, 1, 13, 500, 998, 999):
        directory.seek(places[index][0])
        assert directory.read() == places[index][1]
    gone = {name for _, name in places[300:700:2]}
    for removed in gone:
        (here / os.fsdecode(removed)).unlink()
    for index in (0, 299, 301, 600, 701):
        directory.seek(places[index][0])
        rest = list(iter(directory.read, None))
        assert rest == [name for _, name in places[index:] if name not in gone]
    directory.close()


def make_and_remove(directory: Path, number: int, stop: str) -> int:
    """Names that are never used again, made and removed until the file `stop` is there."""
    made = 0
    while not os.path.exists(stop):
        for _ in range(20):
            made += 1
            os.close(os.open(directory / f"churn-{number}-{made}", os.O_CREAT | os.O_WRONLY))
        for name in range(made - 19, made + 1):
            os.unlink(directory / f"churn-{number}-{name}")
    return made


def list_again(directory: Path, stable: set[str], count: int, stop: str) -> None:
    """Listed plainly and with attributes; each stable name once."""
    try:
        for round_ in range(count):
            names = os.listdir(directory) if round_ % 2 else [entry.name for entry in os.scandir(directory)]
            assert len(names) == len(set(names)), "a name came twice"
            assert stable <= set(names), "a name was missed"
    finally:
        Path(stop).touch()


def test_a_listing_while_others_create_and_delete(here: Path, tmp_path: Path) -> None:
    stable = {f"stable-{number}" for number in range(5000)}
    for name in stable:
        os.close(os.open(here / name, os.O_CREAT | os.O_WRONLY))
    stop = str(tmp_path / "stop")
    together(partial(list_again, here, stable, 6, stop), *(partial(make_and_remove, here, number, stop) for number in range(2)))


def swap_names(directory: Path, count: int, stop: str) -> None:
    """`a` and `b` change places; `target` is replaced; all of them are there at any time."""
    try:
        for number in range(count):
            renameat2(directory / "a", directory / "b", EXCHANGE)
            (directory / "new").write_text(f"{number:06}")
            os.rename(directory / "new", directory / "target")
            os.rename(directory / "x/moved", directory / "y/moved")
            os.rename(directory / "y/moved", directory / "x/moved")
    finally:
        Path(stop).touch()


def look_up(directory: Path, stop: str) -> int:
    looked = 0
    while not os.path.exists(stop):
        looked += 1
        for name in ("a", "b", "target"):
            assert os.stat(directory / name).st_nlink in (0, 1)
        assert len((directory / "target").read_text()) == 6
        for parent in ("x", "y"):
            try:
                os.stat(directory / parent / "moved" / "inside")
            except FileNotFoundError:
                pass
    return looked


def test_lookups_in_a_storm_of_renames(here: Path, tmp_path: Path) -> None:
    (here / "a").write_text("a")
    (here / "b").write_text("b")
    (here / "target").write_text("------")
    (here / "x/moved").mkdir(parents=True)
    (here / "x/moved/inside").touch()
    (here / "y").mkdir()
    stop = str(tmp_path / "stop")
    together(partial(swap_names, here, 400, stop), *(partial(look_up, here, stop) for _ in range(2)))
    assert (here / "target").read_text() == "000399"


RACERS: tuple[Callable[[Path, Path], object], ...] = (
    lambda one, other: os.close(os.open(one, os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
    lambda one, other: os.close(os.open(one, os.O_CREAT | os.O_RDWR | os.O_TRUNC)),
    lambda one, other: os.mkdir(one),
    lambda one, other: os.mkdir(one / "below"),
    lambda one, other: os.unlink(one),
    lambda one, other: os.rmdir(one),
    lambda one, other: os.rename(one, other),
    lambda one, other: os.link(one, other),
    lambda one, other: renameat2(one, other, EXCHANGE),
)


def race(directory: Path, number: int, count: int) -> dict[str, int]:
    """All processes make, link, rename and remove the same few names; what each call came to is counted."""
    chance = random.Random(number)
    outcomes: dict[str, int] = {}
    for _ in range(count):
        one, other = (directory / chance.choice("abcd") for _ in range(2))
        do = chance.choice(RACERS)
        try:
            do(one, other)
            outcome = "ok"
        except OSError as failure:
            outcome = errno.errorcode[failure.errno or 0]
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def test_the_same_names_made_and_removed_by_all(here: Path) -> None:
    """Only answers that such races have on any file system; never an error of another kind."""
    for outcomes in together(*(partial(race, here, number, 2000) for number in range(5))):
        assert isinstance(outcomes, dict)
        assert set(outcomes) <= {"ok", "ENOENT", "EEXIST", "ENOTEMPTY", "EISDIR", "ENOTDIR", "EINVAL", "EPERM"}, outcomes

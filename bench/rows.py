"""Every row: the workloads of workload.c, tar, and pgbench."""

from __future__ import annotations

from bench import floor
from bench.bed import NODES, Bed
from bench.postgres import Database
from bench.row import Extra, Measure, Row, Target, times
from bench.subject import NATIVE, Subject
from orchestrator.lab.lab import kill_group

SMALL, LARGE, GIB = 4096, 1 << 20, 1 << 30
FSYNCS = 300
WRITERS = 4
CPU_BYTES = {SMALL: 64 << 20, LARGE: 256 << 20}  # enough ticks of the clock to count

# ---- what is done ---------------------------------------------------------------------------------------------------------------


def p50(kind: str, block_bytes: int, count: int) -> Measure:
    """µs of one operation."""
    return lambda bed, subject: bed.workload(kind, subject.directory, block_bytes, count)[0]


def large_writes(bed: Bed, subject: Subject) -> float:
    """MB/s of the median write."""
    return LARGE / bed.workload("write", subject.directory, LARGE, 192)[0]


def writers(bed: Bed, subject: Subject) -> float:
    """Of all of them, a second."""
    return bed.workload("writers", subject.directory, SMALL, WRITERS)[0]


def create_unlink(which: int) -> Measure:
    """The p50 (0) or the rate (1)."""
    return lambda bed, subject: bed.workload("create_unlink", subject.directory, 1500)[which]


def untar(bed: Bed, subject: Subject) -> float:
    """Files a second; the tree goes again, unmeasured."""
    files = bed.scale.archive_files_of(subject.slow)
    tree = f"{subject.directory}/untar"
    bed.make_directory("node1", tree)
    seconds = bed.workload("untar", tree, bed.archive(files))[0]
    bed.remove(tree)
    return files / seconds


def _entries(bed: Bed, subject: Subject) -> tuple[str, int]:
    """One large directory, made when it is first wanted."""
    count, directory = bed.scale.entries_of(subject.slow), f"{subject.directory}/entries"
    if not bed.exists(directory):
        bed.make_directory("node1", directory)
        bed.workload("make", directory, count, count)
    return directory, count


def stat_all(bed: Bed, subject: Subject) -> float:
    """Entries a second, the second time round."""
    directory, count = _entries(bed, subject)
    return count / bed.workload("stat", directory, count, count)[0]


def list_all(bed: Bed, subject: Subject) -> float:
    """Entries a second, the second time round."""
    directory, count = _entries(bed, subject)
    return count / bed.workload("readdir", directory, count)[0]


def cpu(block_bytes: int) -> Measure:
    """Seconds of processor time a GiB, of the processes behind a subject on both nodes."""

    def measure(bed: Bed, subject: Subject) -> float:
        bed.workload("write", subject.directory, block_bytes, 1)  # the file is there in full before we look at the clock
        processes = subject.processes()
        before_s = bed.cpu_s(processes)
        bed.workload("stream", subject.directory, block_bytes, CPU_BYTES[block_bytes])
        return (bed.cpu_s(processes) - before_s) * GIB / CPU_BYTES[block_bytes]

    return measure


def pgbench(clients: int) -> Measure:
    """tps."""
    return lambda bed, subject: Database(bed, subject).tps(clients, bed.scale.pgbench_s)


# ---- columns that are no subject ------------------------------------------------------------------------------------------------


def floor_p50(block_bytes: int = SMALL) -> Extra:
    """µs."""
    return lambda bed: floor.p50_us(bed, block_bytes)


def floor_megabytes(bed: Bed) -> float:
    """MB/s."""
    return LARGE / floor.p50_us(bed, LARGE)


def floor_writes(bed: Bed) -> float:
    """Writes a second of one writer that waits for each."""
    return 1e6 / floor.p50_us(bed, SMALL)


def two_writers(bed: Bed) -> float:
    """Write + fsync, µs, while the other node does the same on its disk: both are on this machine's, as the two of a mirror are."""
    for node in NODES:
        bed.workload("write", NATIVE.directory, SMALL, 1, node=node)
    other = bed.start_workload("write_fsync", NATIVE.directory, SMALL, FSYNCS * 100, node="node2")
    try:
        return bed.workload("write_fsync", NATIVE.directory, SMALL, FSYNCS)[0]
    finally:
        kill_group(other)


# ---- the table ------------------------------------------------------------------------------------------------------------------

NO_PROCESSES = ("native", "pg_sync")


def _pgbench_targets(of_native: float) -> tuple[Target, ...]:
    return times(of_native, "native"), times(1.3, "gluster"), times(0.9, "pg_sync", "PostgreSQL's own")


ROWS = (
    Row("write_4k", "4 KiB write, p50", "µs", True, p50("write", SMALL, 4000), {"floor": floor_p50()}, targets=(times(1.3, "floor"),)),
    Row("write_1m", "1 MiB writes", "MB/s", False, large_writes, {"floor": floor_megabytes}, targets=(times(0.9, "floor"),)),
    Row(
        "writers_4k", f"4 KiB writes, {WRITERS} writers", "/s", False, writers, {"floor": floor_writes},
        targets=(times(2, "floor", "floor of one writer"),),
    ),
    Row(
        "write_fsync_4k", "4 KiB write + fsync, p50", "µs", True, p50("write_fsync", SMALL, FSYNCS),
        inputs={"native_two": two_writers, "floor": floor_p50()},
        targets=(
            Target(
                "1.3 × (native, 2 writers + 2 × floor)",
                lambda found: 1.3 * (found["native_two"] + 2 * found["floor"]),
                ("native_two", "floor"),
            ),
        ),
    ),
    Row(
        "read_4k", "4 KiB read (cached), p50", "µs", True, p50("read", SMALL, 20000),
        targets=(Target("native ÷ 0.9", lambda found: found["native"] / 0.9, ("native",)),),
    ),
    Row("create_unlink", "create + close + unlink", "/s", False, create_unlink(1), targets=(times(10, "gluster"),)),
    Row(
        "create_unlink_p50", "create + close + unlink, p50", "µs", True, create_unlink(0), inputs={"floor": floor_p50()},
        targets=(Target("2 × floor + native + 100 µs", lambda found: 2 * found["floor"] + found["native"] + 100, ("floor", "native")),),
    ),
    Row("untar", "untar of small files", "/s", False, untar, effort="once", targets=(times(8, "gluster"),)),
    Row(
        "stat", "stat, warm", "/s", False, stat_all, effort="heavy",
        targets=(times(0.8, "native"),),
    ),
    Row(
        "readdir", "readdir, warm", "/s", False, list_all, effort="heavy",
        targets=(times(0.8, "native"),),
    ),
    Row("pgbench_1", "pgbench -c 1", "tps", False, pgbench(1), without=(), effort="heavy", targets=_pgbench_targets(0.7)),
    Row("pgbench_4", "pgbench -c 4", "tps", False, pgbench(4), without=(), effort="heavy", targets=_pgbench_targets(0.6)),
    Row(
        "cpu_4k", "processor time, 4 KiB writes", "s/GiB", True, cpu(SMALL), without=NO_PROCESSES, effort="heavy",
        targets=(times(1, "gluster"),),
    ),
    Row(
        "cpu_1m", "processor time, 1 MiB writes", "s/GiB", True, cpu(LARGE), without=NO_PROCESSES, effort="heavy",
        targets=(times(1, "gluster"),),
    ),
)  # fmt: skip

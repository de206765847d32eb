"""What is asked of a return, row by row. Times are from the mended cable (or the started rfsmount) to both nodes in sync."""

from __future__ import annotations

import statistics
import sys
import time

from bench import floor
from bench.bed import HERE
from bench.pair import Pair
from bench.postgres import Database
from bench.resync_row import Found, Reach, ResyncRow, at_most
from bench.stage import PER_DIRECTORY, Stage, native_directory
from bench.subject import Subject
from orchestrator.lab.lab import kill_group

PAGE, MIB, CHUNK = 4096, 1 << 20, 4 << 20
COSTS = {"seconds": "s", "session": "s", "places": "marks", "read_1": "MB", "read_2": "MB", "wire": "MB"}

# ---- one large file ---------------------------------------------------------------------------------------------------------------


def _with_sums(stage: Stage, found: dict[str, float]) -> dict[str, float]:
    return {**found, "changed": stage.writes * PAGE / 1e6, "read": max(found["read_1"], found["read_2"])}


def scattered(stage: Stage) -> dict[str, float]:
    """Written while the peer is away."""
    pair = stage.large
    found = stage.absence(pair, lambda: stage.bed.workload("scatter", pair.directory, stage.sparse_bytes, stage.writes))
    return _with_sums(stage, found)


def scattered_and_killed(stage: Stage) -> dict[str, float]:
    """As before, and then the primary's rfsmount is killed and started again."""
    pair = stage.large

    def meanwhile() -> None:
        stage.bed.workload("scatter", pair.directory, stage.sparse_bytes, stage.writes)
        pair.kill("node1")
        pair.start("node1", "primary")

    found = stage.absence(pair, meanwhile)
    return _with_sums(stage, found)


def wire_limit(found: Found) -> float:
    """MB. What the target reads, it hashes."""
    return 2 * found["changed"] + 64 * found["read_2"] / PAGE


# ---- many small ones ----------------------------------------------------------------------------------------------------------------


def nothing_changed(stage: Stage) -> dict[str, float]:
    """The cable, and nothing else."""
    return stage.absence(stage.many, lambda: None)


def rebooted(stage: Stage) -> dict[str, float]:
    """node2 loses its power and boots; its directory is guarded before anything else."""
    pair = stage.many
    pair.settle()
    stage.bed.lab.kill("node2")
    pair.until(lambda: pair.ask("node1", "status")["mode"] in ("alone", "unused"))
    stage.bed.lab.boot("node2")
    guard_s = stage.timed("node2", ["rfsmount", "guard", pair.directory, "--state", pair.state])
    began = time.monotonic()
    pair.start("node2", "secondary")
    found = {"seconds": pair.until_paired() - began, "guard": guard_s}
    stage.start_again(pair)
    return found


def killed_under_load(stage: Stage) -> dict[str, float]:
    """node1 is killed, node2 takes over, node1 comes back as its secondary; then the roles are as before."""
    pair = stage.many
    pair.settle()
    load = stage.bed.start_workload("churn", pair.directory, stage.files, PER_DIRECTORY, node="node1")
    try:
        time.sleep(3)
        pair.kill("node1")
    finally:
        kill_group(load)
    pair.until(lambda: pair.ask("node2", "status")["link"] != "paired")
    stage.bed.lab.run("node2", ["rfsmount", "promote", "--state", pair.state])
    pair.until(lambda: pair.ask("node2", "status")["mode"] in ("alone", "unused"))
    stage.bed.workload("small", pair.directory, 100, PER_DIRECTORY, node="node2")
    marked = pair.ask("node2", "stats")["marked_places"]
    before, began = pair.wire_bytes(), time.monotonic()
    pair.start("node1", "secondary")
    seconds = pair.until_paired("node2") - began
    wire = pair.wire_bytes() - before
    resync = pair.ask("node2", "stats")
    pair.settle("node2")
    stage.bed.lab.run("node2", ["rfsmount", "demote", "--state", pair.state])
    stage.bed.lab.run("node1", ["rfsmount", "promote", "--state", pair.state])
    return {"seconds": seconds, "places": float(marked), "sent": resync["resync_sent_bytes"] / 1e6, "wire": wire / 1e6}


def moved(stage: Stage) -> dict[str, float]:
    """A directory gets another name."""
    pair = stage.large
    here, there = (f"{pair.directory}/{name}" for name in ("moved", "elsewhere"))
    found = stage.absence(pair, lambda: stage.shell("node1", f"mv {here} {there}"))
    stage.shell("node1", f"mv {there} {here}")
    return {**found, "content": stage.moved_files * 1024 / 1e6}


# ---- first copies -------------------------------------------------------------------------------------------------------------------


def _first_copy(stage: Stage, source: str) -> tuple[float, float]:
    """Seconds until the last byte was sent, and until both are in sync, which is on both disks; by a pair of its own."""
    pair = stage.pair(f"copy{len(stage.used)}")
    stage.used.append(pair.column)
    stage.shell("node1", f"cp -a {source}/. {pair.directory}/ && sync -f /srv")
    files = int(stage.bed.lab.run("node1", ["sh", "-c", f"find {source} -type f | wc -l"]).stdout)
    pair.start("node1", "primary")
    began = time.monotonic()
    pair.start("node2", "secondary")
    sent = pair.until(lambda: pair.ask("node1", "stats")["resync_files_done"] >= files) - began
    seconds = pair.until_paired() - began
    for node in ("node2", "node1"):
        pair.stop(node)
        stage.shell(node, f"rm -rf {pair.directory}")
    return sent, seconds


def _rsync(stage: Stage, source: str) -> tuple[float, float]:
    """Seconds as it is, and with its target's disk synced."""
    where = stage.rsync
    stage.shell("node2", "mkdir -p /srv/rsync && sync -f /srv")
    seconds = stage.timed("node1", ["rsync", "-aHAX", f"{source}/", f"{where}/rsync/"])
    synced = seconds + stage.timed("node2", ["sync", "-f", "/srv"])
    stage.shell("node2", "rm -rf /srv/rsync")
    return seconds, synced


def copy_many(stage: Stage) -> dict[str, float]:
    """rsync's time and ours, of the same tree."""
    source = native_directory("small")
    if not stage.bed.exists(source):
        stage.bed.make_directory("node1", source)
        stage.bed.workload("small", source, stage.copied_files, PER_DIRECTORY)
    theirs, ours = _rsync(stage, source), _first_copy(stage, source)
    found = {"files": ours[1], "sent": ours[0], "rsync": theirs[0], "rsync_synced": theirs[1]}
    return {name: stage.copied_files / seconds for name, seconds in found.items()}


def copy_large(stage: Stage) -> dict[str, float]:
    """Right before: the floor, one write after the other into memory; and, as `bare`, the same copy in a stream onto the disk."""
    source = native_directory("one")
    if not stage.bed.exists(source):
        stage.bed.make_directory("node1", source)
        stage.shell("node1", f"head -c {stage.large_bytes} /dev/urandom > {source}/large.dat")
    bare = MIB / floor.p50_us(stage.bed, MIB)
    copied = floor.copy_s(stage.bed, f"{source}/large.dat")
    theirs, ours = _rsync(stage, source), _first_copy(stage, source)
    found = {"rate": ours[1], "sent": ours[0], "bare": copied, "rsync": theirs[0], "rsync_synced": theirs[1]}
    return {name: stage.large_bytes / 1e6 / seconds for name, seconds in found.items()} | {"floor": bare}


# ---- applications -------------------------------------------------------------------------------------------------------------------


def database(stage: Stage) -> dict[str, float]:
    """pgbench while a large file is copied, and while nothing is."""
    if "db" not in stage.made:
        pair = stage.made["db"] = stage.pair("db")
        stage.shell("node1", f"head -c {stage.large_bytes} /dev/urandom > {pair.directory}/large.dat")
        pair.mount()
    pair = stage.made["db"]
    base = Database(stage.bed, Subject("db", pair.directory))
    base.prepare()
    pair.settle()
    without = base.tps(4, stage.bed.scale.pgbench_s)
    pair.stop("node2")
    stage.shell("node2", f"rm {pair.directory}/large.dat")
    pair.until(lambda: pair.ask("node1", "status")["mode"] in ("alone", "unused"))
    base.start()
    try:
        began = time.monotonic()
        pair.start("node2", "secondary")
        during = base.pgbench(4, stage.bed.scale.pgbench_s)
        ended = time.monotonic()
    finally:
        base.stop()
    return {"tps": during, "without": without, "resync": pair.until_paired() - began, "beside": ended - began}


def _warm_pair(stage: Stage, name: str, program: tuple[str, ...]) -> Pair:
    if name not in stage.made:
        pair = stage.made[name] = stage.pair(name, checkpoint_s=30.0, program=program)
        stage.shell("node1", f"head -c {stage.warm_bytes} /dev/zero | tr '\\0' x > {pair.directory}/scatter.dat")
        pair.start("node1", "primary")
        pair.start("node2", "secondary")
        pair.until_paired()
    return stage.made[name]


def marks_price(stage: Stage) -> dict[str, float]:
    """After a checkpoint the first write into each 4 MiB; then writes at random to two mirrors, of which one keeps no marks."""
    marked = _warm_pair(stage, "marked", ("rfsmount",))
    unmarked = _warm_pair(stage, "unmarked", (sys.executable, str(HERE / "unmarked.py")))
    count = 20_000 // stage.divisor
    marked.settle()
    first = stage.bed.workload("touches", marked.directory, stage.warm_bytes)
    times_us: dict[str, list[float]] = {"writes": [], "without": []}
    for _ in range(7):
        for name, pair in (("writes", marked), ("without", unmarked)):
            times_us[name].append(stage.bed.workload("scatter", pair.directory, stage.warm_bytes, count)[0])
    medians = {name: 1e6 / statistics.median(found) for name, found in times_us.items()}  # of medians: a mean hears every other process
    return {**medians, "first_p50": first[0] / 1e3, "first_p99": first[1] / 1e3}


# ---- the table ----------------------------------------------------------------------------------------------------------------------

ROWS = (
    ResyncRow(
        "scattered", "random writes into a sparse file", scattered, {**COSTS, "changed": "MB", "read": "MB"},
        (
            at_most("read", 64 * MIB / 1e6, "64 MiB read on a node"),
            Reach("wire", "2 × changed + 64 B per block", wire_limit),
            at_most("seconds", 3, "3 s"),
        ),
    ),
    ResyncRow(
        "scattered_crash", "the same, primary killed", scattered_and_killed, {**COSTS, "changed": "MB", "read": "MB"},
        (
            Reach("read", "4 MiB for each touched place", lambda found: found["places"] * CHUNK / 1e6),
            Reach("wire", "2 × changed + 64 B per block", wire_limit),
        ),
    ),
    ResyncRow("link", "many files, link lost and back", nothing_changed, COSTS, (at_most("seconds", 1, "1 s"),)),
    ResyncRow("reboot", "many files, a node rebooted", rebooted, {"seconds": "s", "guard": "s"}, (at_most("seconds", 2, "2 s"),)),
    ResyncRow(
        "killed", "many files, primary killed under load", killed_under_load,
        {"seconds": "s", "places": "marks", "sent": "MB", "wire": "MB"},
        (at_most("seconds", 10, "10 s"),),
        heavy=True,
    ),
    ResyncRow(
        "moved", "a renamed directory", moved, {**COSTS, "content": "MB"},
        (at_most("seconds", 1, "1 s"), Reach("wire", "a tenth of the content", lambda found: found["content"] / 10)),
    ),
    ResyncRow(
        "copy_many", "first copy of small files", copy_many, {"files": "/s", "sent": "/s", "rsync": "/s", "rsync_synced": "/s"},
        (Reach("files", "1.5 × rsync", lambda found: 1.5 * found["rsync"], at_least=True, reference="rsync"),),
        heavy=True,
    ),
    ResyncRow(
        "copy_large", "first copy of one large file", copy_large,
        {"rate": "MB/s", "sent": "MB/s", "floor": "MB/s", "bare": "MB/s", "rsync": "MB/s", "rsync_synced": "MB/s"},
        (
            Reach("rate", "0.8 × floor", lambda found: 0.8 * found["floor"], at_least=True, reference="floor"),
            Reach("rate", "0.8 × bare copy", lambda found: 0.8 * found["bare"], at_least=True, reference="bare"),
        ),
        heavy=True,
    ),
    ResyncRow(
        "pgbench", "pgbench -c 4 during a resync", database, {"tps": "tps", "without": "tps", "resync": "s", "beside": "s"},
        (Reach("tps", "0.6 × without", lambda found: 0.6 * found["without"], at_least=True, reference="without"),),
        heavy=True,
    ),
    ResyncRow(
        "marks", "4 KiB writes with marks", marks_price, {"writes": "/s", "without": "/s", "first_p50": "ms", "first_p99": "ms"},
        (Reach("writes", "0.97 × without marks", lambda found: 0.97 * found["without"], at_least=True, reference="without"),),
        heavy=True,
    ),
)  # fmt: skip

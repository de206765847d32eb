"""What the rows of a resync have in common: pairs that are made once, and sizes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property

from bench import floor
from bench.bed import NODES, REPLICATION, Bed
from bench.pair import LONG_S, Pair, Spent
from bench.subject import NATIVE

GIB = 1 << 30
PER_DIRECTORY = 1000
RSYNC_PORT = 5690
RSYNC_CONFIGURATION = "uid = root\ngid = root\nuse chroot = no\n[bench]\npath = /srv\nread only = no\n"


class Stage:
    """Made when first wanted, so a run of one row needs no others."""

    def __init__(self, bed: Bed, say: Callable[[str], None]) -> None:
        self.bed, self.say = bed, say
        self.divisor = bed.scale.resync_divisor
        self.files, self.copied_files, self.moved_files = (count // self.divisor for count in (1_000_000, 100_000, 10_000))
        self.writes = 1000 // self.divisor
        self.sparse_bytes, self.large_bytes, self.warm_bytes = (size * GIB // self.divisor >> 22 << 22 for size in (10, 4, 1))
        self._next_port = 5610
        self.made: dict[str, Pair] = {}  # by those rows that make their own
        self.used: list[str] = []  # names of pairs that are gone

    def pair(self, name: str, **more: object) -> Pair:
        """A new one, paired by keys and not mounted yet; its directory is on node1."""
        pair = Pair(self.bed, name, self._next_port, secure=True, **more)  # type: ignore[arg-type]
        self._next_port += 1
        pair.pair()
        for node in NODES:
            self.bed.make_directory(node, pair.directory)
        return pair

    @cached_property
    def large(self) -> Pair:
        """One sparse file, and a directory of small files."""
        pair = self.pair("large")
        self.shell("node1", f"truncate -s {self.sparse_bytes} {pair.directory}/scatter.dat && mkdir {pair.directory}/moved")
        self.bed.workload("small", f"{pair.directory}/moved", self.moved_files, self.moved_files)
        pair.mount()
        return pair

    @cached_property
    def many(self) -> Pair:
        """Small files."""
        pair = self.pair("many")
        self.say(f"making {self.files:,} files")
        self.bed.workload("small", pair.directory, self.files, PER_DIRECTORY)
        began = time.monotonic()
        pair.mount()
        self.say(f"copied and settled in {time.monotonic() - began:.0f} s")
        return pair

    @cached_property
    def rsync(self) -> str:
        """The daemon on node2: where to send to."""
        self.bed.lab.run("node2", ["sh", "-c", "cat > /tmp/rsyncd.conf"], input=RSYNC_CONFIGURATION)
        place = [f"--address={REPLICATION['node2']}", f"--port={RSYNC_PORT}"]
        self.bed.lab.spawn("node2", ["rsync", "--daemon", "--no-detach", *place, "--config=/tmp/rsyncd.conf"])
        time.sleep(0.5)
        return f"rsync://{REPLICATION['node2']}:{RSYNC_PORT}/bench"

    def start_again(self, but: Pair) -> None:
        """What else ran on node2 when it lost its power."""
        floor.start(self.bed)
        for pair in [*self.made.values(), *(self.__dict__[name] for name in ("large", "many") if name in self.__dict__)]:
            if pair != but:
                pair.start("node2", "secondary")
        self.__dict__.pop("rsync", None)

    def shell(self, node: str, text: str) -> None:
        """Not measured."""
        self.bed.lab.run(node, ["sh", "-c", text], timeout_s=LONG_S)

    def timed(self, node: str, command: list[str]) -> float:
        """Seconds."""
        began = time.monotonic()
        self.bed.lab.run(node, command, timeout_s=LONG_S)
        return time.monotonic() - began

    @staticmethod
    def absence(pair: Pair, meanwhile: Callable[[], object]) -> dict[str, float]:
        """The link is lost, node1 goes on alone; what its return costs, from the cable to both in sync, and from the session's begin."""
        pair.settle()
        pair.cut()
        meanwhile()
        marked = pair.ask("node1", "stats")["marked_places"]
        before, began = pair.spent(), time.monotonic()
        pair.heal()
        met = pair.until(lambda: pair.ask("node1", "status")["link"] not in ("alone", "connecting", "frozen", "handshaking"))
        seconds = pair.until_paired() - began
        return {"seconds": seconds, "session": began + seconds - met, "places": float(marked), **Stage.costs(pair.spent().since(before))}

    @staticmethod
    def costs(spent: Spent) -> dict[str, float]:
        """Megabytes."""
        return {"read_1": spent.read[0] / 1e6, "read_2": spent.read[1] / 1e6, "wire": spent.wire / 1e6}


def native_directory(name: str) -> str:
    """Beside the mirrors, on the same disk."""
    return f"{NATIVE.directory}/{name}"

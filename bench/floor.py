"""The floor: bare TCP send, apply, acknowledge between the same nodes. What any synchronous mirror must pay."""

from __future__ import annotations

from bench.bed import HERE, REPLICATION, Bed
from bench.pair import LONG_S

PORT = 5700


def start(bed: Bed) -> None:
    """Its receiving end, pinned to a processor of its own."""
    bed.lab.spawn("node2", [str(HERE / "floor"), "serve", str(PORT), "/srv/floor.dat", "1"])


def copy_s(bed: Bed, path: str) -> float:
    """Seconds for a file of node1's, in a stream, into a new one on node2 and onto its disk."""
    words = [str(HERE / "floor"), "copy", REPLICATION["node2"], str(PORT), path]
    return float(bed.lab.run("node1", words, timeout_s=LONG_S).stdout)


def p50_us(bed: Bed, block_bytes: int) -> float:
    """One repetition."""
    count = 4000 if block_bytes == 4096 else 192
    words = [str(HERE / "floor"), "send", REPLICATION["node2"], str(PORT), str(block_bytes), str(count), "0"]
    return float(bed.lab.run("node1", words).stdout)

"""What it costs to know a million inodes: files that lie below a new mirror when it is made, copied to the peer, then each looked at."""

from __future__ import annotations

from typing import Any

from bench.bed import Bed
from bench.figures import memory_figures
from bench.mirror import Mirror

FILES_PER_DIRECTORY = 1000


def measure(bed: Bed, idle_bytes: int) -> dict[str, Any]:
    """The primary's, after the kernel has asked it for every one of them and forgets none."""
    inodes = bed.scale.inodes
    mirror = Mirror(bed, "many", 5603, secure=True)
    bed.make_directory("node1", mirror.directory)
    bed.workload("make", mirror.directory, inodes, FILES_PER_DIRECTORY)
    mirror.pair()
    mirror.mount()
    bed.workload("stat", mirror.directory, inodes, FILES_PER_DIRECTORY)
    primary = mirror.processes()[0]
    return memory_figures(inodes, idle_bytes, bed.resident_bytes(primary), *bed.descriptors(primary))

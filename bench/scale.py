"""How much is done: the whole, or --quick for a first look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Effort = Literal["light", "heavy", "once"]  # how long one repetition takes: below a second, seconds, a minute


@dataclass(frozen=True)
class Scale:
    """Counts and repetitions."""

    repetitions: int
    heavy_repetitions: int
    entries: int  # in the directory that is listed
    archive_files: int
    inodes: int  # known at once
    pgbench_s: int
    resync_repetitions: int
    resync_heavy_repetitions: int
    resync_divisor: int  # of the sizes of a resync's rows

    def repetitions_of(self, effort: Effort) -> int:
        """What takes a minute is an average by itself."""
        return {"light": self.repetitions, "heavy": self.heavy_repetitions, "once": 1}[effort]

    def entries_of(self, slow: bool) -> int:
        """A peer of a few hundred creations a second gets a tenth: what is reported is a rate, and more would take an hour."""
        return self.entries // 10 if slow else self.entries

    def archive_files_of(self, slow: bool) -> int:
        """The same for the archive."""
        return self.archive_files // 10 if slow else self.archive_files


FULL = Scale(
    repetitions=7,
    heavy_repetitions=3,
    entries=100_000,
    archive_files=50_000,
    inodes=1_000_000,
    pgbench_s=8,
    resync_repetitions=3,
    resync_heavy_repetitions=2,
    resync_divisor=1,
)
QUICK = Scale(
    repetitions=3,
    heavy_repetitions=1,
    entries=10_000,
    archive_files=5_000,
    inodes=50_000,
    pgbench_s=5,
    resync_repetitions=1,
    resync_heavy_repetitions=1,
    resync_divisor=10,
)

"""What a resync took away and nobody has confirmed yet: the brake's view for people (csrc/brake.c).

Where a copy was to lose more files than it keeps, they lie in `.lockstep-kept/removed.NUMBER.FILES-of-FILES` of that directory until
somebody says `rfsmount discard`. The name of the place is all there is to know, so nothing else has to survive a restart.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

KEPT_NAME = ".lockstep-kept"  # csrc/engine.h
_PLACE = re.compile(r"removed\.(\d{1,10})\.(\d{1,20})-of-(\d{1,20})")  # BRAKE_PREFIX of csrc/brake.h


@dataclass(frozen=True, slots=True, order=True)
class Removal:
    """So many of so many files of this directory, and where they are."""

    path: str
    number: int
    files: int
    of_files: int
    place: str

    def sentence(self, state_directory: str) -> str:
        """For status: what, where, and how it goes on."""
        return (
            f"a resync took away {self.files} of {self.of_files} files of {self.path}: was a file system of the source not mounted, or "
            f"are they gone on purpose? They are kept in {self.place}; 'rfsmount discard --state {state_directory}' removes them for good"
        )


def find_removals(paths: Sequence[str], trees: Sequence[int]) -> tuple[Removal, ...]:
    """In the plain trees, by their descriptors; `paths` are their names for people."""
    return tuple(sorted(found for path, tree in zip(paths, trees, strict=False) for found in _in_tree(path, tree)))


def _in_tree(path: str, tree: int) -> list[Removal]:
    try:
        kept = os.open(KEPT_NAME, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=tree)
    except OSError:
        return []  # nothing was ever kept here
    try:
        if os.fstat(kept).st_uid != os.geteuid():
            return []  # nor did we make this one
        places = [match for name in os.listdir(kept) if (match := _PLACE.fullmatch(name))]
    finally:
        os.close(kept)
    return [Removal(path, int(match[1]), int(match[2]), int(match[3]), f"{path}/{KEPT_NAME}/{match[0]}") for match in places]

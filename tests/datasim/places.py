"""From cells of a tree to the marks that cover them, and what a set of marks on a disk covers."""

from collections.abc import Iterable

from tests.datasim import native
from tests.datasim.native import Mark, Marks
from tests.datasim.tree import HOLDING, Key

GRAINS = (0, 40)  # two of a chunk's 64 pieces stand for all
CHUNKS = (0, 1, 2)


class Covered:
    """Marks as they stand on a disk, for the oracle: read by the real reader, asked cell by cell."""

    def __init__(self, marks: Marks) -> None:
        self.everything, self.born = marks.everything, marks.born
        self.plain: set[tuple[int, int]] = set()
        self.tails: dict[int, int] = {}
        self.chunks: dict[tuple[int, int], int] = {}
        for kind, fid, index, grains in marks.each():
            if kind == native.TAIL:
                self.tails[fid] = index
            elif kind == native.CHUNK:
                self.chunks[fid, index] = grains
            else:
                self.plain.add((kind, fid))

    def covers(self, cell: Key, born: int, directories: Iterable[int]) -> bool:
        """`born`: the lower of both nodes'. A new inode is looked at when a directory in which it has a name is."""
        kind, fid = cell[0], int(cell[1])
        if self.everything or fid == HOLDING:
            return True
        if kind == "e":
            return (native.ENTRIES, fid) in self.plain
        if kind == "i":
            return True  # the names behind which it is are asked for themselves
        if fid >= born and any((native.ENTRIES, directory) in self.plain for directory in directories):
            return True
        if kind == "a":
            return (native.ATTRIBUTES, fid) in self.plain
        chunk, grain = int(cell[2]), int(cell[3])
        return self.tails.get(fid, 1 << 60) <= chunk or bool(self.chunks.get((fid, chunk), 0) >> grain & 1)


def mark_of(cell: Key) -> Mark | None:
    """None: needs none of its own."""
    if cell[0] == "e":
        return native.entries(int(cell[1]))
    if cell[0] == "a":
        return native.attributes(int(cell[1]))
    if cell[0] == "d":
        return native.chunk(int(cell[1]), int(cell[2]), 1 << int(cell[3]))
    return None

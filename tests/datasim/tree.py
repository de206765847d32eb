"""One copy of the data, as cells that each hold a value and the version of the op that set it.

    ("e", directory, name)          the fid behind a name; 0: no such name
    ("i", fid)                      the inode's incarnation here; 0: there is none
    ("a", fid)                      its attributes
    ("d", fid, chunk, grain)        content, of this incarnation of the inode

Names, inodes and attributes go through a journal: a power cut leaves a prefix of what was not synced. Content does not: each piece
keeps any of the values it had since it was synced. Files of the directory HOLDING have lost their last name in a resync.
"""

import itertools
import random
from collections.abc import Iterator

Cell = tuple[str, int, int] | tuple[str, int] | tuple[str, int, int, int]
Key = tuple[int | str, ...]
Value = tuple[int, int]  # value, version
NOTHING: Value = (0, 0)
HOLDING = 0
_stamps = itertools.count()
DIRECTORIES = (1, 2, 3)


class State:
    """Cells, looked at in one way whether they are in memory or on the disk."""

    def __init__(self, cells: dict[Key, Value] | None = None) -> None:
        self.cells: dict[Key, Value] = cells if cells is not None else {}

    def get(self, cell: Key) -> Value:
        """A logical cell: content belongs to the inode that is there now."""
        if cell[0] == "d":
            incarnation = self.cells.get(("i", cell[1]), NOTHING)[0]
            return self.cells.get((*cell, incarnation), NOTHING) if incarnation else NOTHING
        return self.cells.get(cell, NOTHING)

    def is_alive(self, fid: int) -> bool:
        return self.cells.get(("i", fid), NOTHING)[0] != 0

    def listing(self, directory: int) -> dict[int, Value]:
        """Name → (fid, version), removed names too."""
        return {int(key[2]): value for key, value in self.cells.items() if key[0] == "e" and key[1] == directory}

    def names_of(self, fid: int) -> list[Key]:
        return [key for key, value in self.cells.items() if key[0] == "e" and value[0] == fid]

    def is_visible(self, fid: int) -> bool:
        """It has a name that a walk comes to."""
        return any(value[0] == fid and key[0] == "e" and key[1] != HOLDING for key, value in self.cells.items())

    def fids(self) -> list[int]:
        return [int(key[1]) for key, value in self.cells.items() if key[0] == "i" and value[0]]

    def content(self, fid: int) -> dict[tuple[int, int], Value]:
        incarnation = self.cells.get(("i", fid), NOTHING)[0]
        return {
            (int(key[2]), int(key[3])): value
            for key, value in self.cells.items()
            if key[0] == "d" and key[1] == fid and key[4] == incarnation
        }

    def visible(self) -> dict[Key, object]:
        """What a walk of the tree sees: equal trees have equal ones."""
        seen: dict[Key, object] = {}
        for key, (fid, _) in self.cells.items():
            if key[0] == "e" and fid and key[1] != HOLDING:
                content = {place: version for place, (_, version) in self.content(fid).items() if version}
                seen[key] = (fid, self.get(("a", fid))[1], tuple(sorted(content.items())))
        return seen


class Tree:
    """In memory, on the disk, and what lies between."""

    def __init__(self) -> None:
        self.now, self.disk = State(), State()
        self.journal: list[list[tuple[Key, Value]]] = []
        self.dirty: dict[Key, list[Value]] = {}
        self.changed: set[Key] = set()  # logical cells, for whoever compares
        self.incarnations = 0
        self.edits = next(_stamps)

    def copy(self) -> "Tree":
        tree = Tree()
        tree.now, tree.disk = State(dict(self.disk.cells)), State(dict(self.disk.cells))
        tree.incarnations = self.incarnations + 1000
        tree.changed = {key[:4] for key in tree.now.cells}
        return tree

    # ---- changing ---------------------------------------------------------------------------------------------------------------------

    def names(self, batch: list[tuple[Key, Value]]) -> None:
        """One step of the journal."""
        self.edits = next(_stamps)
        self.now.cells.update(batch)
        self.journal.append(batch)
        self.changed.update(key for key, _ in batch)

    def content(self, fid: int, chunk: int, grain: int, version: int) -> None:
        self.edits = next(_stamps)
        incarnation = self.now.cells.get(("i", fid), NOTHING)[0]
        key = ("d", fid, chunk, grain, incarnation)
        self.now.cells[key] = (version, version)
        self.dirty.setdefault(key, []).append((version, version))
        self.changed.add(("d", fid, chunk, grain))

    def new_inode(self, fid: int, version: int) -> tuple[Key, Value]:
        self.incarnations += 1
        return ("i", fid), (self.incarnations, version)

    # ---- the disk ---------------------------------------------------------------------------------------------------------------------

    def sync(self, fid: int | None = None) -> None:
        self.edits = next(_stamps)
        for batch in self.journal:
            self.disk.cells.update(batch)
        self.journal.clear()
        for key in [key for key in self.dirty if fid is None or key[1] == fid]:
            self.disk.cells[key] = self.dirty.pop(key)[-1]

    def lose_unsynced(self) -> None:
        """Read as written, and never written back."""
        self.edits = next(_stamps)
        self.journal.clear()
        self.dirty.clear()

    def drop_caches(self) -> None:
        """Read again what is really there: after a sync that failed, the two are not the same (and nothing else says so)."""
        self.changed.update(key[:4] for key in self.now.cells)
        self.now = State(dict(self.disk.cells))
        self.lose_unsynced()

    def power_cut(self, choose: random.Random) -> None:
        self.edits = next(_stamps)
        kept = choose.randint(0, len(self.journal)) if self.journal else 0
        for batch in self.journal[:kept]:
            self.disk.cells.update(batch)
        for key, values in self.dirty.items():
            if choose.random() >= 0.4:
                self.disk.cells[key] = choose.choice(values)
        self.changed.update(key[:4] for key in self.now.cells)
        self.now = State(dict(self.disk.cells))
        self.journal.clear()
        self.dirty.clear()
        self.incarnations += 1

    def unsynced(self, cell: Key) -> Iterator[Value]:
        """Values of between that a power cut could leave in this cell."""
        if cell[0] == "d":
            incarnation = self.now.cells.get(("i", cell[1]), NOTHING)[0]
            yield from self.dirty.get((*cell, incarnation), ())
        else:
            for batch in self.journal:
                for key, value in batch:
                    if key == cell:
                        yield value

"""The mutations: what an application asks for, the frame that says it to the peer, and its effect on a tree."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.datasim import native
from tests.datasim.native import Mark
from tests.datasim.places import CHUNKS, GRAINS
from tests.datasim.tree import DIRECTORIES, HOLDING, NOTHING, Key, State, Tree

NAMES = (1, 2, 3)
KINDS = ("write", "create", "unlink", "rename", "link", "setattr", "fsync")
WEIGHTS = (40, 14, 8, 10, 4, 8, 14)


@dataclass(frozen=True)
class Body:
    """One op as a frame says it: absolute, so that applying it twice is applying it once."""

    kind: str  # write create unlink rename link setattr fsync
    fid: int = 0
    pieces: tuple[tuple[int, int], ...] = ()  # of a write: chunk and grain
    directory: int = 0
    name: int = 0
    to_directory: int = 0
    to_name: int = 0
    version: int = 0

    def places(self) -> list[Mark]:
        """All that it may make different."""
        if self.kind == "write":
            return [native.chunk(self.fid, chunk, 1 << grain) for chunk, grain in self.pieces]
        if self.kind == "setattr":
            return [native.attributes(self.fid)]
        if self.kind == "rename":
            return [native.entries(directory) for directory in sorted({self.directory, self.to_directory})]
        return [] if self.kind == "fsync" else [native.entries(self.directory)]

    def cells(self) -> list[Key]:
        """What its acknowledgement promises."""
        if self.kind == "write":
            return [("d", self.fid, chunk, grain) for chunk, grain in self.pieces]
        if self.kind == "setattr":
            return [("a", self.fid)]
        if self.kind == "rename":
            return [("e", self.directory, self.name), ("e", self.to_directory, self.to_name)]
        return [] if self.kind == "fsync" else [("e", self.directory, self.name)]


@dataclass
class Op:
    """One op of the application, from its call to its only verdict."""

    body: Body
    number: int
    applied: bool = False
    lone: bool = False
    seq: int = 0
    is_acked: bool = False  # by the peer, in this session
    local_done: bool = True  # of an fsync: this disk has it
    dropped: bool = False  # it fails: the application is told so
    verdict: str = ""
    promised: dict[Key, int] = field(default_factory=dict)  # of an fsync


def choose(state: State, rng: random.Random, weights: Sequence[float] = WEIGHTS) -> Body | None:
    """Something that makes sense in this tree; the fid of a create comes later."""
    kind = rng.choices(KINDS, weights)[0]
    names = sorted((key, value[0]) for key, value in state.cells.items() if key[0] == "e" and value[0] and key[1] != HOLDING)
    free = [(d, n) for d in DIRECTORIES for n in NAMES if not state.get(("e", d, n))[0]]
    if kind == "create":
        if not free:
            return None
        directory, name = rng.choice(free)
        return Body("create", directory=directory, name=name)
    if not names:
        return None
    key, fid = rng.choice(names)
    directory, name = int(key[1]), int(key[2])
    if kind == "write":
        pieces = tuple((chunk, rng.choice(GRAINS)) for chunk in sorted(rng.sample(CHUNKS, rng.choice((1, 1, 2)))))
        return Body("write", fid, pieces=pieces)
    if kind == "rename":
        to_directory, to_name = rng.choice(DIRECTORIES), rng.choice(NAMES)
        same = state.get(("e", to_directory, to_name))[0] == fid
        return None if same else Body("rename", fid, directory=directory, name=name, to_directory=to_directory, to_name=to_name)
    if kind == "link":
        return Body("link", fid, directory=free[0][0], name=free[0][1]) if free else None
    return Body(kind, fid, directory=directory, name=name) if kind == "unlink" else Body(kind, fid)


def still_makes_sense(body: Body, state: State) -> bool:
    """Between its call and its turn others came: a real one would get ENOENT or EEXIST."""
    if body.kind in ("write", "setattr", "fsync"):
        return state.is_alive(body.fid)
    there = state.get(("e", body.directory, body.name))[0]
    if body.kind == "create":
        return there == 0
    if body.kind == "link":
        return there == 0 and state.is_alive(body.fid)
    return there == body.fid and (body.kind != "rename" or state.get(("e", body.to_directory, body.to_name))[0] != body.fid)


def _without_name(tree: Tree, fid: int, less: set[Key], version: int, hold: bool) -> list[tuple[Key, tuple[int, int]]]:
    """What becomes of an inode that loses these names."""
    if not fid or set(tree.now.names_of(fid)) - less:
        return []
    if hold:
        return [(("e", HOLDING, fid), (fid, version))]
    return [(("i", fid), (0, version))]


def apply(tree: Tree, body: Body, *, hold: bool, made_here: set[int] | None = None) -> None:
    """`hold`: a target in a resync destroys no inode. `made_here`: inodes that had to be made although they should have been there."""
    version, fid = body.version, body.fid
    batch: list[tuple[Key, tuple[int, int]]] = []
    if fid and body.kind not in ("create", "unlink", "fsync") and not tree.now.is_alive(fid):
        assert made_here is not None, f"{body} on an inode that is not here"
        made_here.add(fid)
        tree.names([tree.new_inode(fid, version), (("e", HOLDING, fid), (fid, version))])
    if body.kind == "write":
        for chunk, grain in body.pieces:
            tree.content(fid, chunk, grain, version)
        return
    if body.kind == "create":
        batch = [tree.new_inode(fid, version)] if not tree.now.is_alive(fid) else []
        batch += [(("a", fid), (0, version)), (("e", body.directory, body.name), (fid, version))]
    elif body.kind == "unlink":
        name: Key = ("e", body.directory, body.name)
        batch = [*_without_name(tree, tree.now.get(name)[0], {name}, version, hold), (name, (0, version))]
    elif body.kind == "rename":
        source, target = ("e", body.directory, body.name), ("e", body.to_directory, body.to_name)
        replaced = tree.now.get(target)[0]
        if replaced != fid:
            batch = _without_name(tree, replaced, {target}, version, hold)
        batch += [(source, (0, version)), (target, (fid, version))]
    elif body.kind == "link":
        batch = [(("e", body.directory, body.name), (fid, version))]
    elif body.kind == "setattr":
        batch = [(("a", fid), (0, version))]
    if batch:
        tree.names(batch)


# ---- resync: places as frames -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """One place as the source has it: a listing, attributes, a chunk, or a whole inode."""

    what: str  # entries attributes chunk whole
    fid: int
    listing: tuple[tuple[int, int, int, int], ...] = ()  # name, fid, version of the name, version of the attributes
    attributes: int = 0
    pieces: tuple[tuple[int, int, int], ...] = ()  # chunk, grain, version
    index: int = 0
    grains: int = 0
    is_tail: bool = False


def place_of(state: State, mark: Mark) -> Place | None:
    """What the source ships for a mark; None: the object is gone, its names say so."""
    kind, fid, index, grains = mark
    if kind == native.ENTRIES:
        listing = state.listing(fid)
        names = ((name, child, version, state.get(("a", child))[1]) for name, (child, version) in sorted(listing.items()))
        return Place("entries", fid, tuple(names))
    if not state.is_alive(fid):
        return None
    if kind == native.ATTRIBUTES:
        return Place("attributes", fid, attributes=state.get(("a", fid))[1])
    pieces = tuple((chunk, grain, version) for (chunk, grain), (_, version) in sorted(state.content(fid).items()))
    if kind == native.TAIL:
        return Place("chunk", fid, pieces=tuple(piece for piece in pieces if piece[0] >= index), index=index, is_tail=True)
    wanted = tuple(piece for piece in pieces if piece[0] == index and grains >> piece[1] & 1)
    return Place("chunk", fid, pieces=wanted, index=index, grains=grains)


def whole(state: State, fid: int) -> Place | None:
    """An inode with all that belongs to it."""
    if not state.is_alive(fid):
        return None
    pieces = tuple((chunk, grain, version) for (chunk, grain), (_, version) in sorted(state.content(fid).items()))
    return Place("whole", fid, attributes=state.get(("a", fid))[1], pieces=pieces)


def apply_place(tree: Tree, place: Place, made_here: set[int], *, hold: bool) -> list[int]:
    """Make it equal. Returns the inodes of a listing that were not here: they are to be sent whole."""
    if place.what == "entries":
        return _apply_listing(tree, place, made_here, hold)
    if not tree.now.is_alive(place.fid):
        return []
    if place.what in ("attributes", "whole"):
        tree.names([(("a", place.fid), (0, place.attributes))])
    if place.what == "attributes":
        return []
    wanted = {piece[:2]: piece[2] for piece in place.pieces}
    for chunk, grain in {*wanted, *((c, g) for c in CHUNKS for g in GRAINS)}:
        inside = place.what == "whole" or (chunk >= place.index if place.is_tail else chunk == place.index and place.grains >> grain & 1)
        if inside and tree.now.get(("d", place.fid, chunk, grain))[1] != wanted.get((chunk, grain), 0):
            tree.content(place.fid, chunk, grain, wanted.get((chunk, grain), 0))
    return []


def _apply_listing(tree: Tree, place: Place, made_here: set[int], hold: bool) -> list[int]:
    directory, missing = place.fid, []
    wanted = {name: (fid, version) for name, fid, version, _ in place.listing}
    for name in sorted({*wanted, *tree.now.listing(directory)}):
        key: Key = ("e", directory, name)
        fid, version = wanted.get(name, NOTHING)
        had = tree.now.get(key)
        batch: list[tuple[Key, tuple[int, int]]] = []
        if had[0] and had[0] != fid:
            batch += _without_name(tree, had[0], {key}, version, hold)
        if fid and not tree.now.is_alive(fid):
            batch.append(tree.new_inode(fid, version))
            made_here.add(fid)
        if had != (fid, version):
            batch.append((key, (fid, version)))
        if batch:
            tree.names(batch)
        if fid in made_here:
            missing.append(fid)
    return missing


def purge_holding(tree: Tree) -> None:
    """After END: what has no other name goes."""
    for fid, (held, version) in sorted(tree.now.listing(HOLDING).items()):
        if held:
            batch: list[tuple[Key, tuple[int, int]]] = [(("e", HOLDING, fid), (0, version))]
            if len(tree.now.names_of(fid)) == 1:
                batch.append((("i", fid), (0, version)))
            tree.names(batch)

"""The configurations that were applied on this node, numbered, and which of them counts.

    trees/DIGEST/     the files of one, which never change once they are there. hactld reads its configuration and runs scripts here
    history.json      which there were, oldest first: the last one is applied. Replacing this file is the switch from one to the next
    prepared.json     one that this node has promised to apply when its coordinator says so (config_apply.py)

Whatever is durable is a whole: a tree is made beside its place and renamed, a file is replaced. So a node that dies at any moment has one
configuration or the other. A generation is known by the digest of its files; its number is for people, and rises.
"""

from __future__ import annotations

import json
import secrets
import shutil
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from orchestrator import config_archive
from rfs import exit_codes
from rfs.durably import sync_directory, write_durably
from rfs.errors import SaidNo
from rfs.foreign import from_json, moment
from rfs.pairing import Files

KEPT_MAX: Final = 20
KEPT_BYTES_MAX: Final = 32 << 20
COMMENT_CHARACTERS_MAX: Final = 500
THROUGH: Final = 0o711


@dataclass(frozen=True, slots=True)
class Generation:
    """One configuration that was applied, or is to be. Wall time is for people; nothing is decided by it."""

    number: int
    digest: str
    base: str  # the digest of the one that it replaced; empty: there was none
    transaction: str  # of the apply that made it; both nodes have the same
    who: str = ""
    wall_s: float = 0.0
    comment: str = ""

    def as_json(self) -> dict[str, Any]:
        """As it is kept, sent and shown."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A promise: this generation is applied as soon as the coordinator says that it is, and nothing else is until then."""

    generation: Generation
    coordinator: str
    held: tuple[str, ...] = ()  # modules that must stay stopped until it is known what became of it


@dataclass(frozen=True, slots=True)
class Past:
    """The history: what is applied, and what was before."""

    generations: tuple[Generation, ...] = ()
    laid_out: bool = True  # the files that people edit are those of the applied one, or were edited since

    @property
    def applied(self) -> Generation | None:
        """What counts."""
        return self.generations[-1] if self.generations else None

    def has_transaction(self, transaction: str) -> bool:
        """Was it committed here?"""
        return any(each.transaction == transaction for each in self.generations)

    def numbered(self, number: int) -> Generation | None:
        """The one of this number, if it is still kept."""
        return next((each for each in self.generations if each.number == number), None)


@dataclass(slots=True)
class GenerationStore:
    """The directory. One process writes it: hactld (and `hactl cluster join` before there is one)."""

    root: Path
    past: Past = field(default_factory=Past)
    prepared: Prepared | None = None

    def read(self) -> None:
        """What is there; SaidNo when it cannot be trusted (blocking)."""
        history, promised = self._document("history.json"), self._document("prepared.json")
        try:
            generations = tuple(generation_from(entry) for entry in history["generations"]) if history else ()
            self.past = Past(generations, bool(history.get("laid_out", True)) if history else True)
            self.prepared = prepared_from(promised) if promised else None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._damaged(f"its history cannot be understood ({error})") from error
        applied = self.past.applied
        if applied is not None and config_archive.digest(self._gathered(applied.digest)) != applied.digest:
            raise self._damaged(f"the files of generation {applied.number} are not what they were")

    def _document(self, name: str) -> dict[str, Any]:
        try:
            found = from_json((self.root / name).read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._damaged(f"{name}: {error}") from error
        if not isinstance(found, dict):
            raise self._damaged(f"{name} is no JSON object")
        return found

    def _damaged(self, what: str) -> SaidNo:
        return SaidNo(f"{self.root}: {what}; {self.way_out}", exit_codes.CONFIGURATION_INVALID)

    @property
    def way_out(self) -> str:
        """For who cannot start with what is kept here."""
        return f"move {self.root} away, and hactld begins anew with the files that people edit"

    def tree(self, digest: str) -> Path:
        """Where the files of a generation are."""
        return self.root / "trees" / digest

    def files_of(self, digest: str) -> Files:
        """The same in memory (blocking); SaidNo when it is not kept any more, or damaged."""
        found = self._gathered(digest)
        if config_archive.digest(found) != digest:
            raise SaidNo(f"{self.tree(digest)}: is not kept any more, or damaged", exit_codes.FAILED)
        return found

    def _gathered(self, digest: str) -> Files:
        return config_archive.gather(self.tree(digest))

    def keep(self, files: Files) -> str:
        """Durable when it returns the digest (blocking). A tree that nothing refers to goes at the next `sweep`."""
        digest = config_archive.digest(files)
        place = self.tree(digest)
        if place.exists():
            if config_archive.digest(config_archive.gather(place)) == digest:
                for name, (mode, _) in files.items():  # who may read them is no part of the digest
                    (place / name).chmod(config_archive.kept_mode(name, mode))
                return digest
            shutil.rmtree(place)
        self.make_place()
        new = place.with_name(f".{digest[:16]}.{secrets.token_hex(4)}")
        try:
            config_archive.write_tree(files, new)
            new.rename(place)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            raise
        sync_directory(place.parent)
        return digest

    def make_place(self) -> None:
        """It holds what was in the configuration at any time, passwords perhaps, and scripts that run as other users. So others come
        through it, find nothing listed, and may do with a file what its own permissions say (blocking)."""
        trees = self.root / "trees"
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        trees.mkdir(mode=0o700, exist_ok=True)
        if not all(stat.S_IMODE(place.stat().st_mode) == THROUGH for place in (self.root, trees)):
            for path in trees.rglob("*"):  # of a hactld that relied on the closed directory
                if path.is_file():
                    path.chmod(path.stat().st_mode & 0o700)
            trees.chmod(THROUGH)
            self.root.chmod(THROUGH)
        sync_directory(self.root)
        sync_directory(self.root.parent)

    def prepare(self, prepared: Prepared) -> None:
        """A promise, durable when it returns; its tree is kept already (blocking)."""
        assert self.tree(prepared.generation.digest).exists(), "a promise without what it promises"
        document = {"generation": prepared.generation.as_json(), "coordinator": prepared.coordinator, "held": list(prepared.held)}
        write_durably(self.root / "prepared.json", json.dumps(document).encode())
        self.prepared = prepared

    def release(self) -> None:
        """The promise is over (blocking)."""
        (self.root / "prepared.json").unlink(missing_ok=True)
        if self.root.exists():
            sync_directory(self.root)
        self.prepared = None

    def commit(self, generation: Generation, *, laid_out: bool = False) -> None:
        """The switch: from here on this is what counts (blocking). Its tree is kept already."""
        assert self.tree(generation.digest).exists(), "a generation without files"
        past = Past((*self.past.generations, generation), laid_out)
        self._write_past(past)
        if self.prepared is not None and self.prepared.generation.transaction == generation.transaction:
            self.release()
        self.sweep()

    def note_laid_out(self) -> None:
        """The files that people edit are those of the applied generation (blocking)."""
        if not self.past.laid_out:
            self._write_past(replace(self.past, laid_out=True))

    def take_name(self, theirs: Generation) -> None:
        """The same files are a generation of a higher number on the other node: it is that one here from now on (blocking)."""
        assert self.past.applied is not None and theirs.digest == self.past.applied.digest
        self._write_past(replace(self.past, generations=(*self.past.generations, theirs)))

    def forget(self) -> None:
        """Nothing is applied: the next hactld begins with the files that it finds (blocking)."""
        for name in ("history.json", "prepared.json"):
            (self.root / name).unlink(missing_ok=True)
        self.past, self.prepared = Past(), None

    def _write_past(self, past: Past) -> None:
        document = {"generations": [each.as_json() for each in past.generations], "laid_out": past.laid_out}
        write_durably(self.root / "history.json", json.dumps(document).encode())
        self.past = past

    def sweep(self) -> None:
        """What is too old or too much goes, and what nothing refers to (blocking). A disk that refuses keeps it a while longer."""
        with suppress(OSError):
            sizes = {each.digest: size_of(self.tree(each.digest)) for each in self.past.generations}
            kept = newest_within(self.past.generations, sizes)
            if kept != self.past.generations:
                self._write_past(replace(self.past, generations=kept))
            needed = {each.digest for each in kept} | ({self.prepared.generation.digest} if self.prepared else set())
            for place in (self.root / "trees").iterdir():
                if place.name not in needed:
                    shutil.rmtree(place, ignore_errors=True)


def newest_within(generations: Sequence[Generation], sizes: Mapping[str, int]) -> tuple[Generation, ...]:
    """The newest that fit; always the applied one and the one before it."""
    kept: list[Generation] = []
    counted: set[str] = set()
    left = KEPT_BYTES_MAX
    for generation in reversed(generations):
        left -= 0 if generation.digest in counted else sizes.get(generation.digest, 0)
        counted.add(generation.digest)
        if len(kept) >= 2 and (len(kept) >= KEPT_MAX or left < 0):
            break
        kept.append(generation)
    return tuple(reversed(kept))


def size_of(tree: Path) -> int:
    """In bytes (blocking)."""
    return sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())


def generation_from(entry: Mapping[str, Any]) -> Generation:
    """As `as_json` wrote it; ValueError or KeyError for what it did not."""
    number, wall_s = entry["number"], entry.get("wall_s", 0.0)
    words = [entry["digest"], entry.get("base", ""), entry.get("transaction", ""), entry.get("who", ""), entry.get("comment", "")]
    if type(number) is not int or number < 1 or not isinstance(wall_s, int | float) or not all(isinstance(word, str) for word in words):
        raise ValueError("not a generation")
    digest, base, transaction, who, comment = words
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ValueError("not a digest")
    return Generation(number, digest, base, transaction, who, moment(wall_s), comment[:COMMENT_CHARACTERS_MAX])


def prepared_from(entry: Mapping[str, Any]) -> Prepared:
    """The same of a promise."""
    return Prepared(generation_from(entry["generation"]), str(entry["coordinator"]), tuple(str(name) for name in entry["held"]))

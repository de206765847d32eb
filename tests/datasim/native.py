"""csrc/marks.c and csrc/intent_log.c as a Python module of their own, for tests: built once, kept under its sources' hash."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from cffi import FFI

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
HEADERS = ("marks.h", "intent_log.h")
SOURCES = ("marks.c", "intent_log.c", "crc32c.c")
MODULE = "_marks"


def _declarations() -> str:
    texts = [(CSRC / header).read_text() for header in HEADERS]
    return "\n".join(text.split("/* cffi: begin */")[1].split("/* cffi: end */")[0] for text in texts)


def _hash() -> str:
    digest = hashlib.sha256(sys.version.encode())
    for name in (*HEADERS, *SOURCES, "wire.h"):
        digest.update((CSRC / name).read_bytes())
    return digest.hexdigest()[:16]


def _build(directory: Path) -> None:
    builder = FFI()
    builder.cdef(_declarations())
    builder.set_source(
        MODULE,
        "".join(f'#include "{header}"\n' for header in HEADERS),
        include_dirs=[str(CSRC)],
        sources=[str(CSRC / name) for name in SOURCES],
        extra_compile_args=["-std=c11", "-O2", "-g", "-D_GNU_SOURCE", "-pthread"],
    )
    builder.compile(tmpdir=str(directory))


def _load() -> ModuleType:
    directory = ROOT / "build" / f"datasim-{_hash()}"
    if not list(directory.glob(f"{MODULE}*.so")):
        directory.mkdir(parents=True, exist_ok=True)
        _build(directory)
    found = next(directory.glob(f"{MODULE}*.so"))
    spec = importlib.util.spec_from_file_location(MODULE, found)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_module = _load()
ffi: Any = _module.ffi
lib: Any = _module.lib

ENTRIES, ATTRIBUTES, TAIL, CHUNK = (int(getattr(lib, f"MARK_{kind}")) for kind in ("ENTRIES", "ATTRIBUTES", "TAIL", "CHUNK"))
ANY = ENTRIES | ATTRIBUTES | TAIL | CHUNK
MAX_U64 = (1 << 64) - 1

Mark = tuple[int, int, int, int]  # kind, fid, index, grains


def entries(directory: int) -> Mark:
    return (ENTRIES, directory, 0, 0)


def attributes(fid: int) -> Mark:
    return (ATTRIBUTES, fid, 0, 0)


def chunk(fid: int, index: int, grains: int) -> Mark:
    return (CHUNK, fid, index, grains)


def tail(fid: int, index: int) -> Mark:
    return (TAIL, fid, index, 0)


class Marks:
    """The marks of one process."""

    def __init__(self) -> None:
        self.c = ffi.gc(lib.marks_new(), lib.marks_free)
        self._mark = ffi.new("rfs_mark *")

    def _c(self, mark: Mark) -> Any:
        self._mark.kind, self._mark.fid, self._mark.index, self._mark.grains = mark
        return self._mark

    def touch(self, mark: Mark) -> bool:
        return bool(lib.marks_touch(self.c, self._c(mark)))

    def is_hot(self, mark: Mark) -> bool:
        return bool(lib.marks_is_hot(self.c, self._c(mark)))

    def add(self, mark: Mark) -> None:
        if lib.marks_add(self.c, self._c(mark)) < 0:
            raise MemoryError

    def add_everything(self) -> None:
        lib.marks_add_everything(self.c)

    @property
    def everything(self) -> bool:
        return bool(lib.marks_everything(self.c))

    def is_new(self, fid: int) -> bool:
        return bool(lib.marks_is_new(self.c, fid))

    def covers_new(self, fid: int) -> bool:
        return bool(lib.marks_covers_new(self.c, fid))

    @property
    def born(self) -> int:
        return int(lib.marks_born(self.c))

    def set_born(self, born: int) -> None:
        lib.marks_set_born(self.c, born)

    def widen_born(self, born: int) -> None:
        lib.marks_widen_born(self.c, born)

    def forget(self) -> None:
        lib.marks_forget(self.c)

    def checkpoint_begin(self, next_fid: int) -> int:
        return int(lib.marks_checkpoint_begin(self.c, next_fid))

    def checkpoint_end(self, number: int) -> None:
        lib.marks_checkpoint_end(self.c, number)

    def all_to_do(self) -> None:
        lib.marks_all_to_do(self.c)

    def set_to_do(self, mark: Mark) -> None:
        lib.marks_set_to_do(self.c, self._c(mark))

    def is_to_do(self, fid: int, kinds: int) -> bool:
        return bool(lib.marks_is_to_do(self.c, fid, kinds))

    def take(self, fid: int, kinds: int) -> Mark | None:
        mark = lib.marks_take(self.c, fid, kinds)
        return (mark.kind, mark.fid, mark.index, mark.grains) if mark.kind else None

    def next_to_do(self, kinds: int) -> int:
        """An object of which one of these is to do; 0: none."""
        return next((fid for _, fid, _, _ in self.each() if self.is_to_do(fid, kinds)), 0)

    def each(self) -> list[Mark]:
        cursor, mark, found = ffi.new("rfs_marks_cursor *"), ffi.new("rfs_mark *"), []
        while lib.marks_each(self.c, cursor, mark):
            found.append((mark.kind, mark.fid, mark.index, mark.grains))
        return found

    def count(self) -> Any:
        return lib.marks_count(self.c)

    @property
    def is_empty(self) -> bool:
        return not self.everything and not self.count().places


class Log:
    """The intent log's bytes: what to write where."""

    def __init__(self, nonce: int) -> None:
        self.c = ffi.gc(lib.log_new(nonce), lib.log_free)
        self._write = ffi.new("rfs_log_write *")
        self._mark = ffi.new("rfs_mark *")

    def load(self, first: bytes, second: bytes, marks: Marks) -> int:
        a, b = ffi.new("uint8_t[]", bytes(first)), ffi.new("uint8_t[]", bytes(second))
        return int(lib.log_load(self.c, a, len(first), b, len(second), marks.c))

    def note(self, mark: Mark) -> None:
        self._mark.kind, self._mark.fid, self._mark.index, self._mark.grains = mark
        assert lib.log_note(self.c, self._mark) == 0

    def note_opened(self) -> None:
        assert lib.log_note_opened(self.c) == 0

    def note_everything(self) -> None:
        lib.log_note_everything(self.c)

    def _taken(self) -> tuple[int, int, bytes]:
        return int(self._write.file), int(self._write.offset), bytes(ffi.buffer(self._write.data, self._write.bytes))

    def batch(self) -> tuple[int, int, bytes] | None:
        """File, offset, bytes; None when nothing was noted."""
        return self._taken() if lib.log_batch(self.c, self._write) else None

    def written(self) -> None:
        lib.log_written(self.c)

    def not_written(self) -> None:
        lib.log_not_written(self.c)

    def compact(self, marks: Marks, *, clean: bool = False) -> tuple[int, int, bytes]:
        assert lib.log_compact(self.c, marks.c, clean, self._write) == 0
        return self._taken()

    @property
    def end(self) -> int:
        return int(lib.log_end(self.c))

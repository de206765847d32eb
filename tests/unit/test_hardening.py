"""The engine as it was built: what the flags of csrc/build_engine.py promise is in the file."""

from __future__ import annotations

import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import rfs._engine

LOAD, DYNAMIC, GNU_STACK, GNU_RELRO = 1, 2, 0x6474E551, 0x6474E552
EXECUTE, WRITE = 1, 2
NEEDED_END, STRINGS, SYMBOLS, TEXT_RELOCATIONS, RPATH, FLAGS, RUNPATH, FLAGS_1 = 0, 5, 6, 22, 15, 30, 29, 0x6FFFFFFB
BIND_NOW, NOW = 8, 1
SYMBOL = struct.Struct("<IBBHQQ")
ENDBR64 = bytes.fromhex("f30f1efa")


@dataclass(frozen=True)
class Segment:
    """One program header."""

    kind: int
    flags: int
    offset: int
    address: int
    bytes: int


class Elf:
    """As much of a 64-bit little-endian ELF file as is asked for here."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        assert self.data[:6] == b"\x7fELF\x02\x01"
        (first,), (size, count) = struct.unpack_from("<Q", self.data, 32), struct.unpack_from("<HH", self.data, 54)
        self.segments = [self._segment(first + size * number) for number in range(count)]
        self.dynamic = list(self._pairs(self.of_kind(DYNAMIC)[0]))

    def _segment(self, at: int) -> Segment:
        kind, flags, offset, address, _, size = struct.unpack_from("<IIQQQQ", self.data, at)
        return Segment(kind, flags, offset, address, size)

    def of_kind(self, kind: int) -> list[Segment]:
        return [segment for segment in self.segments if segment.kind == kind]

    def _pairs(self, segment: Segment) -> Iterator[tuple[int, int]]:
        for tag, value in struct.iter_unpack("<QQ", self.data[segment.offset : segment.offset + segment.bytes]):
            if tag == NEEDED_END:
                return
            yield tag, value

    def values(self, tag: int) -> list[int]:
        return [value for known, value in self.dynamic if known == tag]

    def at(self, address: int) -> int:
        """The place in the file."""
        return next(
            address - segment.address + segment.offset for segment in self.of_kind(LOAD) if 0 <= address - segment.address < segment.bytes
        )

    def symbols(self) -> dict[str, int]:
        """The dynamic ones with their addresses; 0: another library's. Their table ends where their names begin."""
        symbols, strings = self.at(self.values(SYMBOLS)[0]), self.at(self.values(STRINGS)[0])
        found = {}
        for name, _, _, _, value, _ in SYMBOL.iter_unpack(self.data[symbols : strings - (strings - symbols) % SYMBOL.size]):
            end = self.data.index(b"\0", strings + name)
            found[self.data[strings + name : end].decode()] = value
        return found


@pytest.fixture(scope="module")
def engine() -> Elf:
    return Elf(Path(rfs._engine.__file__))


def test_all_relocations_are_made_before_it_runs_and_then_read_only(engine: Elf) -> None:
    assert engine.of_kind(GNU_RELRO), "RELRO"
    assert any(value & BIND_NOW for value in engine.values(FLAGS)) or any(value & NOW for value in engine.values(FLAGS_1)), "BIND_NOW"


def test_nothing_can_be_written_and_executed(engine: Elf) -> None:
    assert not [segment for segment in engine.of_kind(LOAD) if segment.flags & EXECUTE and segment.flags & WRITE]
    (stack,) = engine.of_kind(GNU_STACK)
    assert not stack.flags & EXECUTE


def test_it_lies_anywhere_and_looks_for_libraries_nowhere_else(engine: Elf) -> None:
    assert not engine.values(TEXT_RELOCATIONS), "position-independent throughout"
    assert not engine.values(RPATH) and not engine.values(RUNPATH)


def test_stacks_are_watched(engine: Elf) -> None:
    assert "__stack_chk_fail" in engine.symbols()


def test_what_has_a_size_is_watched(engine: Elf) -> None:
    """-D_FORTIFY_SOURCE: calls into memory whose size is known go through those that look at it."""
    checked = {name for name in engine.symbols() if name.endswith("_chk")}
    assert {"__memcpy_chk", "__snprintf_chk", "__pread_chk"} <= checked


def test_assertions_stay_on(engine: Elf) -> None:
    assert "__assert_fail" in engine.symbols()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="another processor has another way")
def test_jumps_land_where_they_may(engine: Elf) -> None:
    """-fcf-protection. (The note beside it is missing where the C library's own files have none, as on Debian 12.)"""
    start = engine.at(engine.symbols()["PyInit__engine"])
    assert engine.data[start : start + 4] == ENDBR64

"""The record on the disk: whatever happens to its two slots, what is read is a whole record of before, or a clear refusal."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import msgpack
import pytest

from rfs.record import (
    MAX_NAMES,
    MAX_TEXT_BYTES,
    MAX_U64,
    SLOT_BYTES,
    BadRecord,
    DataState,
    Record,
    Role,
    choose,
    decode,
    encode,
    from_wire,
    to_wire,
)
from rfs.record_file import RecordDamaged, RecordFile

SOME = Record(
    cluster="plant7", module="pg", node="node1", node_id=7, number=5, generation=0x9F3C, base=0x11, history=(0x11, 0x12), term=3, owner=7,
    data=DataState.UPTODATE, role=Role.PRIMARY, running=True, clean=False, boot="b-1", incarnation=99, backing="8:1", used=True,
    peer_id=8, peer_confirmed_number=4, tried=(0x9F3C, 0x77),
)  # fmt: skip
NEWER = replace(SOME, number=6, term=4)


def test_a_slot_holds_what_was_put_in() -> None:
    assert decode(encode(SOME)) == SOME
    assert len(encode(SOME)) == SLOT_BYTES


def test_the_largest_record_fits_into_a_slot() -> None:
    text, names = "x" * MAX_TEXT_BYTES, tuple(MAX_U64 - index for index in range(MAX_NAMES))
    whole = {field.name: MAX_U64 for field in fields(Record) if field.type is int}
    texts = {field.name: text for field in fields(Record) if field.type is str}
    record = Record(**{**whole, **texts, "node_bit": 1, "generation": 5, "base": 0, "history": names, "tried": names})  # type: ignore[arg-type]
    assert decode(encode(record)) == record


@pytest.mark.parametrize("length", [0, 1, 7, 8, 23, 24, 200, 511, 512, SLOT_BYTES - 1, SLOT_BYTES + 1])
def test_a_slot_of_another_length_is_none(length: int) -> None:
    assert decode((encode(SOME) + b"\0")[:length]) is None


def test_every_truncation_reads_as_torn() -> None:
    slot = encode(SOME)
    used = len(slot.rstrip(b"\0"))
    for length in range(used):
        assert decode(slot[:length].ljust(SLOT_BYTES, b"\0")) is None, length


def test_every_bit_flip_is_seen() -> None:
    slot = bytearray(encode(SOME))
    for position in range(SLOT_BYTES * 8):
        slot[position // 8] ^= 1 << position % 8
        assert decode(bytes(slot)) is None, position
        slot[position // 8] ^= 1 << position % 8


@pytest.mark.parametrize("sector_bytes", [1, 16, 512])
def test_a_torn_mix_of_two_slots_is_one_of_them_or_none(sector_bytes: int) -> None:
    """The disk may have written the first part of the new slot, or the last part first."""
    old, new = encode(SOME), encode(NEWER)
    for cut in range(0, SLOT_BYTES + 1, sector_bytes):
        for mixed in (new[:cut] + old[cut:], old[:cut] + new[cut:]):
            assert decode(mixed) == {old: SOME, new: NEWER}.get(mixed)


def test_choose_takes_the_newest_that_is_whole() -> None:
    old, new, torn, empty = encode(SOME), encode(NEWER), encode(NEWER)[:100].ljust(SLOT_BYTES, b"\0"), bytes(SLOT_BYTES)
    assert choose(old, new) == choose(new, old) == NEWER
    assert choose(old, torn) == choose(torn, old) == choose(empty, old) == SOME
    assert choose(torn, empty) is None


def test_another_version_is_not_read_as_ours() -> None:
    slot = bytearray(encode(SOME))
    assert slot[:8] == b"LSTPREC\x01"
    slot[7] = 2
    assert decode(bytes(slot)) is None


# ---- the wire form -----------------------------------------------------------------------------------------------------------------------


def test_the_wire_form_survives_msgpack() -> None:
    assert from_wire(msgpack.unpackb(msgpack.packb(to_wire(SOME)))) == SOME


BAD_FIELDS: list[tuple[str, object]] = [
    ("data", "SPLENDID"), ("data", 3), ("data", ["UPTODATE"]), ("role", "UPTODATE"), ("role", None), ("number", MAX_U64 + 1),
    ("number", True), ("number", "5"), ("number", 1.0), ("running", 1), ("running", None), ("cluster", b"plant7"), ("cluster", 5),
    ("cluster", "x" * (MAX_TEXT_BYTES + 1)), ("boot", "\ud800" * 500), ("history", "abc"), ("history", [0]), ("history", [1, "2"]),
    ("history", [True]), ("history", [MAX_U64 + 1]), ("history", {1: 2}), ("history", list(range(1, MAX_NAMES + 2))), ("history", [5, 5]),
    ("history", [0x9F3C]), ("tried", None), ("tried", [-1]), ("base", 0x99), ("node_id", 0), ("node_bit", 2),
    ("generation", 0), ("number", -1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD_FIELDS, ids=lambda part: repr(part)[:30])
def test_a_wrong_field_is_a_bad_record(name: str, value: object) -> None:
    with pytest.raises(BadRecord):
        from_wire({**to_wire(SOME), name: value})


@pytest.mark.parametrize("plain", [None, 5, [], "record", {}, {"cluster": "x"}, {**to_wire(SOME), "more": 1}])
def test_what_is_not_a_record_is_a_bad_record(plain: object) -> None:
    with pytest.raises(BadRecord):
        from_wire(plain)


@pytest.mark.parametrize("name", sorted(to_wire(SOME)))
def test_a_missing_field_is_a_bad_record(name: str) -> None:
    with pytest.raises(BadRecord):
        from_wire({key: value for key, value in to_wire(SOME).items() if key != name})


# ---- the file ----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path)


def _reopened(directory: str) -> Record | None:
    file = RecordFile(directory)
    try:
        return file.read()
    finally:
        file.close()


def _spoil(directory: str, index: int, length: int = 100) -> None:
    with open(os.path.join(directory, "record"), "r+b") as file:
        file.seek(index * SLOT_BYTES + 30)
        file.write(b"\xff" * length)


def test_nothing_written_is_none(directory: str) -> None:
    assert _reopened(directory) is None
    assert os.path.getsize(os.path.join(directory, "record")) == 2 * SLOT_BYTES


def test_writes_alternate_and_count_up(directory: str) -> None:
    file = RecordFile(directory)
    written = replace(SOME, number=0)
    for expected in range(1, 6):
        before = [os.pread(os.open(file.path, os.O_RDONLY), SLOT_BYTES, index * SLOT_BYTES) for index in (0, 1)]
        written = file.write(written)
        after = [os.pread(os.open(file.path, os.O_RDONLY), SLOT_BYTES, index * SLOT_BYTES) for index in (0, 1)]
        assert written.number == expected
        assert sum(old != new for old, new in zip(before, after, strict=True)) == 1
        assert choose(*after) == written
    file.close()
    assert _reopened(directory) == written


def test_a_torn_write_leaves_the_record_of_before(directory: str) -> None:
    file = RecordFile(directory)
    first = file.write(replace(SOME, number=0))
    second = file.write(first)
    file.close()
    _spoil(directory, second.number % 2)
    assert _reopened(directory) == first
    file = RecordFile(directory)
    found = file.read()
    assert found is not None
    third = file.write(replace(found, term=9))  # goes over the torn one
    file.close()
    assert third.number == 2
    assert _reopened(directory) == third


def test_numbers_go_up_even_from_an_older_record(directory: str) -> None:
    file = RecordFile(directory)
    first = file.write(SOME)
    assert file.write(SOME).number == first.number + 1
    file.close()


def test_without_reading_first_the_newest_is_not_overwritten(directory: str) -> None:
    file = RecordFile(directory)
    file.write(replace(SOME, number=0))
    newest = file.write(replace(SOME, number=0))
    file.close()
    file = RecordFile(directory)
    later = file.write(replace(SOME, number=0, term=8))
    file.close()
    assert later.number == newest.number + 1
    assert _reopened(directory) == later


def test_both_damaged_is_one_sentence(directory: str) -> None:
    file = RecordFile(directory)
    file.write(file.write(SOME))
    file.close()
    _spoil(directory, 0)
    _spoil(directory, 1)
    with pytest.raises(RecordDamaged) as damaged:
        _reopened(directory)
    sentence = str(damaged.value)
    assert "record" in sentence and "--replace-data" in sentence and "\n" not in sentence


def test_a_file_that_was_cut_off_is_seen(directory: str) -> None:
    file = RecordFile(directory)
    file.write(file.write(SOME))
    file.close()
    os.truncate(os.path.join(directory, "record"), 64)
    with pytest.raises(RecordDamaged):
        _reopened(directory)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    at = tmp_path / "disk"
    at.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(at)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as failure:
        pytest.skip(f"no tmpfs can be mounted here: {failure}")
    try:
        yield str(at)
    finally:
        subprocess.run(["umount", str(at)], check=True)


@pytest.mark.mount
def test_a_full_disk_takes_a_record(small_disk: str) -> None:
    file = RecordFile(small_disk)
    with open(os.path.join(small_disk, "filler"), "wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(bytes(4096))
    written = SOME
    for _ in range(4):
        written = file.write(written)
    file.close()
    assert _reopened(small_disk) == written

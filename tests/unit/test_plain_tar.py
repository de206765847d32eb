"""Tars of plain files: ours are read, and nothing else is followed, made or believed."""

from __future__ import annotations

import io
import tarfile

import pytest

from orchestrator import plain_tar


def packed(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=form) as tar:
        for entry, data in entries:
            entry.size = len(data) or entry.size
            tar.addfile(entry, io.BytesIO(data) if data else None)
    return output.getvalue()


def made(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname = kind, mode, name[:9]
    return entry


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_plain_files(form: int) -> None:
    raw = (
        packed((made("a"), b""), (made("d/ü", mode=0o755), b"x" * 513), form=form)
        if form != tarfile.PAX_FORMAT
        else packed((made("a"), b"b"), form=form)
    )
    found = list(plain_tar.read(raw))
    assert found[0].name == "a" and not found[0].executable
    if form != tarfile.PAX_FORMAT:
        assert found[1] == plain_tar.Entry("d/ü", True, b"x" * 513)


def test_a_long_name_has_its_beginning_elsewhere() -> None:
    name = "d" * 90 + "/" + "f" * 90
    assert [entry.name for entry in plain_tar.read(packed((made(name), b"x")))] == [name]


KINDS = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CONTTYPE,
         tarfile.GNUTYPE_SPARSE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_plain_file(kind: bytes) -> None:
    header = made("a", kind).tobuf(tarfile.USTAR_FORMAT)
    with pytest.raises(plain_tar.NotPlain):
        list(plain_tar.read(header + bytes(1024)))


def with_sum(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize(
    "size", [b"\xff" * 12, b"\x80" + b"\0" * 10 + b"\1", b"-0000000001\0", b"0000000_1\0\0\0", b"77777777777\0", b"00000000009\0"]
)
def test_sizes_that_are_none(size: bytes) -> None:
    header = bytearray(made("a").tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = size
    with pytest.raises(plain_tar.BadTar):
        list(plain_tar.read(with_sum(header) + bytes(1024)))


def test_what_is_damaged() -> None:
    raw = packed((made("a"), b"content"))
    broken = [raw[:300], raw[:512], raw[:515], b"", bytes([raw[0] ^ 1]) + raw[1:], raw[:1024]]
    for each in broken:
        with pytest.raises(plain_tar.BadTar):
            list(plain_tar.read(each))

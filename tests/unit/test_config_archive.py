"""The bytes of a configuration: what counts, how it travels, and how people's files become those of a generation."""

from __future__ import annotations

import os
from pathlib import Path

import msgpack
import pytest

from orchestrator import config_archive
from orchestrator.config_archive import digest, gather, lay_out, pack, unpack, write_tree
from rfs.errors import SaidNo
from rfs.pairing import Files

FILES: Files = {
    "cluster.toml": (0o644, b"name = 'c'\n"),
    "modules/pg.toml": (0o644, b"mode = 'mirror'\n"),
    "modules/pg/start_prim": (0o755, b"#!/bin/sh\n"),
}


def put(directory: Path, files: Files) -> Path:
    for name, (mode, data) in files.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        target.chmod(mode)
    return directory


def test_leftovers_and_keys_are_no_configuration(tmp_path: Path) -> None:
    put(tmp_path, FILES)
    others = ("keys/own.pem", "modules/.pg.toml.swp", "modules/pg.toml~", "modules/pg.toml.before-apply", "notes.txt", "modules/.git/x")
    put(tmp_path, dict.fromkeys(others, (384, b"x")))
    (tmp_path / "modules/link.toml").symlink_to("/etc/passwd")
    assert gather(tmp_path) == FILES


def test_a_name_that_is_not_utf_8_is_refused_with_its_place(tmp_path: Path) -> None:
    put(tmp_path, FILES)
    (tmp_path / "modules" / "pg" / os.fsdecode(b"caf\xe9")).touch()
    with pytest.raises(SaidNo, match=r"modules/pg/caf\\xe9: its name is not UTF-8"):
        gather(tmp_path)


def test_the_digest_is_of_names_contents_and_what_may_be_executed() -> None:
    assert digest(FILES) == digest(dict(reversed(FILES.items())))
    other = {**FILES, "cluster.toml": (0o600, FILES["cluster.toml"][1])}
    assert digest(other) == digest(FILES), "who may read a file is this node's affair"
    for changed in (
        {**FILES, "modules/pg/start_prim": (0o644, b"#!/bin/sh\n")},
        {**FILES, "cluster.toml": (0o644, b"name = 'd'\n")},
        {**FILES, "modules/x.toml": (0o644, b"")},
        {"cluster.tom": FILES["cluster.toml"], **{name: file for name, file in FILES.items() if name != "cluster.toml"}},
    ):
        assert digest(changed) != digest(FILES)


def test_what_is_packed_is_unpacked() -> None:
    assert unpack(pack(FILES)) == FILES


@pytest.mark.parametrize(
    "sent",
    [
        None, b"", b"nonsense", pack(FILES)[:-3],
        config_archive.zlib.compress(msgpack.packb({"a": 1})),
        config_archive.zlib.compress(msgpack.packb([["../etc/passwd", False, b""]])),
        config_archive.zlib.compress(msgpack.packb([["keys/own.pem", False, b""]])),
        config_archive.zlib.compress(msgpack.packb([["modules/x", False, "text"]])),
        config_archive.zlib.compress(msgpack.packb([[5, False, b""]])),
        config_archive.zlib.compress(b"\0" * (config_archive.BYTES_MAX * 3)),
    ],
)  # fmt: skip
def test_what_is_no_configuration_is_refused(sent: object) -> None:
    with pytest.raises(SaidNo):
        unpack(sent)


def test_what_does_not_fit_into_a_question_is_refused() -> None:
    import random

    with pytest.raises(SaidNo, match="KiB"):
        pack({"modules/big": (0o644, random.Random(1).randbytes(2 << 20))})


def test_a_tree_is_what_was_written(tmp_path: Path) -> None:
    write_tree(FILES, tmp_path / "tree")
    assert gather(tmp_path / "tree") == FILES


def test_files_are_laid_out_and_work_of_others_is_kept_aside(tmp_path: Path) -> None:
    before: Files = {**FILES, "modules/old.toml": (0o644, b"old"), "modules/was.toml": (0o644, b"was")}
    put(tmp_path, before)
    put(tmp_path, {"modules/was.toml": (0o600, b"edited"), "modules/mine.toml": (0o644, b"mine"), "cluster.toml": (0o640, b"edited")})
    wanted: Files = {**FILES, "modules/pg.toml": (0o644, b"new"), "modules/more/x": (0o755, b"x")}
    changed = lay_out(wanted, before, tmp_path)
    assert changed == ["cluster.toml", "modules/mine.toml", "modules/more/x", "modules/old.toml", "modules/pg.toml", "modules/was.toml"]
    assert digest(gather(tmp_path)) == digest(wanted)
    assert (tmp_path / "cluster.toml").stat().st_mode & 0o777 == 0o640, "who may read it stays"
    assert (tmp_path / "modules/more/x").stat().st_mode & 0o777 == 0o755
    aside = {path.name: path.read_bytes() for path in tmp_path.rglob("*.before-apply")}
    assert aside == {"was.toml.before-apply": b"edited", "mine.toml.before-apply": b"mine", "cluster.toml.before-apply": b"edited"}
    assert lay_out(wanted, before, tmp_path) == [], "done twice is done once"

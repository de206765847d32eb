"""The bytes of a configuration: what counts, how it travels, and how people's files become those of a generation."""

from __future__ import annotations

import os
from pathlib import Path

import msgpack
import pytest

from orchestrator import config_archive
from orchestrator.config_archive import digest, gather, lay_out, pack, signature, unpack, write_tree
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
    (tmp_path / "modules/.#pg.toml").symlink_to("ann@node1.4711")  # of Emacs: it leads nowhere
    assert gather(tmp_path) == FILES


def test_a_link_is_the_file_to_which_it_leads(tmp_path: Path) -> None:
    """Modules and scripts are read through it: without it, what is applied would be another configuration than what was checked."""
    put(tmp_path / "etc", {**FILES, "../elsewhere/web": (0o750, b"web")})
    for name in ("modules/web.toml", "modules/pg/stop_prim"):
        (tmp_path / "etc" / name).symlink_to(tmp_path / "elsewhere/web")
    found = gather(tmp_path / "etc")
    assert found == {**FILES, "modules/web.toml": (0o750, b"web"), "modules/pg/stop_prim": (0o750, b"web")}
    before = signature(tmp_path / "etc")
    (tmp_path / "elsewhere/web").write_bytes(b"another")
    assert signature(tmp_path / "etc") != before
    (tmp_path / "etc/cluster.toml").rename(tmp_path / "elsewhere/cluster")
    (tmp_path / "etc/cluster.toml").symlink_to("../elsewhere/cluster")
    assert gather(tmp_path / "etc")["cluster.toml"] == FILES["cluster.toml"]


@pytest.mark.parametrize("target", ["nowhere", ".", "/", "modules/loop", "/dev/null"])
def test_a_link_to_anything_else_is_named(tmp_path: Path, target: str) -> None:
    put(tmp_path, FILES)
    (tmp_path / "modules/loop").symlink_to(target if target != "modules/loop" else "loop")
    before = signature(tmp_path)
    with pytest.raises(SaidNo, match="modules/loop: a symbolic link"):
        gather(tmp_path)
    (tmp_path / "modules/loop").unlink()
    assert signature(tmp_path) != before and gather(tmp_path) == FILES


def test_a_link_is_laid_out_as_a_file_and_its_target_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path / "etc", FILES)
    (tmp_path / "real").write_bytes(b"real")
    (tmp_path / "etc/modules/web.toml").symlink_to("../../real")
    before = gather(tmp_path / "etc")
    assert lay_out(before, before, tmp_path / "etc") == [] and (tmp_path / "etc/modules/web.toml").is_symlink()
    wanted: Files = {**before, "modules/web.toml": (0o644, b"new")}
    assert lay_out(wanted, before, tmp_path / "etc") == ["modules/web.toml"]
    assert gather(tmp_path / "etc") == wanted and (tmp_path / "real").read_bytes() == b"real"


@pytest.mark.parametrize("name", [b"caf\xe9.txt", b"a\nb", b"1/2/3/4/5", b"1/2/3/4/5/6/7/8"], ids=ascii)
def test_a_name_that_cannot_travel_is_named(tmp_path: Path, name: bytes) -> None:
    put(tmp_path, FILES)
    path = os.fsencode(tmp_path / "modules/pg") + b"/" + name
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(os.fsdecode(path)).touch()
    with pytest.raises(SaidNo, match=r"modules/pg/(caf\\xe9.txt|a\\nb|1/2/3/4/5|1/2/3/4)\b.*: cannot be") as refusal:
        gather(tmp_path)
    assert refusal.value.sentence.isprintable()


def test_what_is_too_much_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, FILES)
    with (tmp_path / "modules/big").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SaidNo, match="3 MiB"):
        gather(tmp_path)
    (tmp_path / "modules/big").unlink()
    monkeypatch.setattr(config_archive, "FILES_MAX", 2)
    with pytest.raises(SaidNo, match="more than 2 files"):
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
    assert gather(tmp_path / "tree") == {**FILES, **{name: (0o600, FILES[name][1]) for name in ("cluster.toml", "modules/pg.toml")}}


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

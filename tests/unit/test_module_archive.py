"""A module as one file: the same bytes for the same module, and nothing that a stranger's file could do."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.modules import archive
from orchestrator.modules.archive import BadArchive, gather, pack, secrets_in, unpack
from orchestrator.sentence import Sentence

TEXT = '# mine\nmode = "mirror"\n'
SCRIPTS = {"start_prim": (True, b"#!/bin/sh\n"), "lib/words.sh": (False, b"say() { :; }\n")}


def packed() -> bytes:
    return pack("pg", "mirror", "1.0", TEXT, SCRIPTS)


def written(tmp_path: Path, data: bytes) -> Path:
    file = tmp_path / "given.tar.gz"
    file.write_bytes(data)
    return file


def test_there_and_back(tmp_path: Path) -> None:
    found = unpack(written(tmp_path, packed()))
    assert (found.name, found.version, found.text, dict(found.scripts)) == ("pg", "1.0", TEXT, SCRIPTS)


def test_the_same_module_is_the_same_file() -> None:
    assert packed() == pack("pg", "mirror", "1.0", TEXT, dict(reversed(SCRIPTS.items())))
    with tarfile.open(fileobj=io.BytesIO(packed())) as tar:
        entries = tar.getmembers()
    assert [entry.name for entry in entries] == ["manifest.json", "module.toml", "scripts/lib/words.sh", "scripts/start_prim"]
    assert {(entry.mtime, entry.uid, entry.gid, entry.uname) for entry in entries} == {(0, 0, 0, "")}
    assert entries[-1].mode == 0o755 and entries[-2].mode == 0o644


# ---------------------------------------------------------------------------------------------- what goes in


def module_in(tmp_path: Path, text: str = TEXT) -> Path:
    file = tmp_path / "pg.toml"
    file.write_text(text)
    home = tmp_path / "pg"
    (home / "lib").mkdir(parents=True)
    for name, (executable, data) in SCRIPTS.items():
        (home / name).write_bytes(data)
        (home / name).chmod(0o755 if executable else 0o644)
    return file


def test_what_editors_leave_behind_stays_here(tmp_path: Path) -> None:
    file = module_in(tmp_path)
    for name in ("start_prim~", ".start_prim.swp", "old.bak", "start_prim.before-join"):
        (tmp_path / "pg" / name).write_text("x")
    (tmp_path / "pg" / "__pycache__").mkdir()
    (tmp_path / "pg" / "__pycache__" / "x.pyc").write_text("x")
    assert gather(file) == (TEXT, dict(sorted(SCRIPTS.items())))


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/shadow"), lambda path: os.mkfifo(path)])
def test_links_and_devices_are_not_packed(make: Callable[[Path], None], tmp_path: Path) -> None:
    file = module_in(tmp_path)
    make(tmp_path / "pg" / "odd")
    with pytest.raises(Sentence, match="neither a file nor a directory"):
        gather(file)


@pytest.mark.parametrize(
    ("row", "is_one"),
    [
        ('environment = { PGPASSWORD = "hunter2" }', True),
        ('environment = { DB_PASSWORD = "hunter2" }', True),
        ("export API_TOKEN=abc", True),
        ("url=https://ann:hunter2@example.org/", True),
        ("-----BEGIN RSA PRIVATE KEY-----", True),
        ("# PGPASSWORD=… comes from the file", False),
        ("PGPASSWORD=$(cat /root/.secret) psql", False),
        ('environment = { PGPASSFILE = "/root/.pgpass" }', False),
        ("curl https://example.org/", False),
        ("monkey = 3", False),
        ("DB_PASS=hunter2222", True),
        ("mysql -phunter2222 db", True),
        ("# PGPASSWORD=hunter2222", True),
        ("echo root:hunter2222 | chpasswd", True),
        ("redis-cli -a hunter2222 ping", True),
        ("# DB_PASS=<yours>, or xxx: PGPASS=xxx", False),
        ('DB_PASS="$(cat /root/.secret)"', False),
        ("mount -o credentials=/root/.smb //nas/x /mnt", False),
        ("bypass=1", False),
        ("mysql -p$PASS db", False),
    ],
)
def test_what_looks_like_a_secret(row: str, is_one: bool) -> None:
    assert list(secrets_in(f"a = 1\n{row}\n", {})) == (["module.toml:2"] if is_one else [])
    assert list(secrets_in("", {"start": (True, row.encode())})) == (["scripts/start:1"] if is_one else [])


# ---------------------------------------------------------------------------------------------- what a stranger may send


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for entry, data in entries:
            entry.size = len(data) if entry.isreg() else 0
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(raw.getvalue())


def entry(name: str, kind: bytes = tarfile.REGTYPE, leads_to: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, leads_to
    return made


def manifest(**changes: Any) -> bytes:
    files = [{"path": "module.toml", "sha256": hashlib.sha256(TEXT.encode()).hexdigest(), "bytes": len(TEXT), "executable": False}]
    document = {"schema": archive.SCHEMA, "name": "pg", "mode": "mirror", "lockstep": "1.0", "files": files}
    return json.dumps(document | changes).encode()


def with_entries(*more: tuple[tarfile.TarInfo, bytes], listing: bytes | None = None) -> bytes:
    return tar_of((entry("manifest.json"), listing if listing is not None else manifest()), (entry("module.toml"), TEXT.encode()), *more)


LISTED = {"path": "scripts/x", "sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1, "executable": False}
OWN = json.loads(manifest())["files"][0]
HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not gzip"),
    "damaged-gzip": (packed()[:40] + b"\xff" * 40 + packed()[80:], "damaged"),
    "no-gzip": (b"PK\x03\x04 and so on", "not gzip"),
    "no-tar": (gzip.compress(b"hello" * 200), "damaged"),
    "cut-short": (packed()[:-20], "cut short"),
    "followed": (packed() + packed(), "something follows"),
    "too-large": (os.urandom(archive.PACKED_BYTES_MAX + 1), "larger than 4 MiB"),
    "bomb": (gzip.compress(bytes(archive.BYTES_MAX + 1)), "unpacks to more than 16 MiB"),
    "parent": (with_entries((entry("scripts/../../evil"), b"x")), "no name that a package may hold"),
    "absolute": (with_entries((entry("/etc/cron.d/evil"), b"x")), "no name that a package may hold"),
    "elsewhere": (with_entries((entry("evil"), b"x")), "no name that a package may hold"),
    "hidden": (with_entries((entry("scripts/.bashrc"), b"x")), "no name that a package may hold"),
    "dot": (with_entries((entry("scripts/./x"), b"x")), "no name that a package may hold"),
    "newline": (with_entries((entry("scripts/a\nb"), b"x")), "no name that a package may hold"),
    "deep": (with_entries((entry("scripts/" + "d/" * 9 + "x"), b"x")), "no name that a package may hold"),
    "symlink": (with_entries((entry("scripts/x", tarfile.SYMTYPE, "/etc/shadow"), b"")), "no plain file"),
    "hardlink": (with_entries((entry("scripts/x", tarfile.LNKTYPE, "module.toml"), b"")), "no plain file"),
    "device": (with_entries((entry("scripts/x", tarfile.CHRTYPE), b"")), "no plain file"),
    "directory": (with_entries((entry("scripts", tarfile.DIRTYPE), b"")), "no plain file"),
    "twice": (with_entries((entry("module.toml"), TEXT.encode())), "is in it twice"),
    "file-and-directory": (with_entries((entry("scripts/x"), b"x"), (entry("scripts/x/y"), b"x")), "lies in another file"),
    "many": (with_entries(*((entry(f"scripts/n{number}"), b"") for number in range(archive.FILES_MAX + 5))), "more than 200 files"),
    "unlisted": (with_entries((entry("scripts/x"), b"x")), "does not list what is in it ('scripts/x')"),
    "missing": (with_entries(listing=manifest(files=[OWN, LISTED])), "does not list what is in it ('scripts/x')"),
    "listed-twice": (with_entries(listing=manifest(files=[OWN, OWN])), "does not list what is in it"),
    "changed": (with_entries((entry("scripts/x"), b"y"), listing=manifest(files=[OWN, LISTED])), "'scripts/x' is not what"),
    "made-executable": (with_entries(listing=manifest(files=[OWN | {"executable": True}])), "'module.toml' is not what"),
    "no-manifest": (tar_of((entry("module.toml"), TEXT.encode())), "it has no manifest.json"),
    "no-module": (tar_of((entry("manifest.json"), manifest(files=[]))), "it has no module.toml"),
    "newer": (with_entries(listing=manifest(schema="lockstep.module/2")), "is a lockstep.module/2, and this release reads"),
    "other-schema": (with_entries(listing=manifest(schema="other/1")), "its manifest.json is none"),
    "no-json": (with_entries(listing=b"{"), "its manifest.json is none"),
    "deep-json": (with_entries(listing=b"[" * 100_000), "its manifest.json is none"),
    "odd-json": (with_entries(listing=b"[1]"), "its manifest.json is none"),
    "odd-files": (with_entries(listing=manifest(files=[{"path": ["x"]}])), "its manifest.json is none"),
    "odd-path": (with_entries(listing=manifest(files=[OWN | {"path": ["x"]}])), "its manifest.json is none"),
    "odd-name": (with_entries(listing=manifest(name=7)), "its manifest.json is none"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_with_its_reason(case: str, tmp_path: Path) -> None:
    data, reason = HOSTILE[case]
    with pytest.raises(BadArchive) as refusal:
        unpack(written(tmp_path, data))
    assert reason in str(refusal.value) and str(refusal.value).endswith("nothing was installed")
    assert refusal.value.code == 6


def test_text_that_is_none(tmp_path: Path) -> None:
    data = b"\xff\xfe"
    files = [{"path": "module.toml", "sha256": hashlib.sha256(data).hexdigest(), "bytes": 2, "executable": False}]
    file = written(tmp_path, tar_of((entry("manifest.json"), manifest(files=files)), (entry("module.toml"), data)))
    with pytest.raises(BadArchive, match="not UTF-8"):
        unpack(file)


RAW = gzip.decompress(packed())


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, len(RAW) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_damage_is_refused_or_harmless(changes: list[tuple[int, int]], tmp_path: Path) -> None:
    """Whatever bytes are changed inside: one sentence, or what was packed."""
    raw = bytearray(RAW)
    for place, value in changes:
        raw[place] = value
    try:
        found = unpack(written(tmp_path, gzip.compress(bytes(raw), 1)))
    except BadArchive:
        return
    assert (found.text, dict(found.scripts)) == (TEXT, SCRIPTS)

"""What people write, and what comes in one piece from elsewhere: TOML, terms of failover rules, patterns, packages of modules, a
configuration that another node sends, a part of a snapshot. Nothing of it is believed, and what is refused is refused with a sentence."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zlib

import msgpack

from orchestrator import config_archive
from orchestrator.config_errors import ConfigError
from orchestrator.config_files import read_cluster, read_modules
from orchestrator.config_text import parse_config_text
from orchestrator.core.rules_language import BadTerm, parse
from orchestrator.modules import archive
from orchestrator.modules.archive import BadArchive
from orchestrator.snapshot import bundle
from orchestrator.units import parse_duration_s
from rfs import patterns
from rfs.errors import SaidNo
from tests.fuzz.place import own_place

DIRECTORY = own_place()
(DIRECTORY / "modules").mkdir()
CLUSTER = """\
name = "plant7"
[[node]]
name = "node1"
addresses = { lan = "192.0.2.1", repl = "198.51.100.1" }
[[node]]
name = "node2"
addresses = { lan = "192.0.2.2", repl = "198.51.100.2" }
"""
MODULE = """\
[[replicated]]
directory = "/srv/pg"
exclude = ["*.tmp"]
[[vip]]
address = "192.0.2.100/24"
[[service]]
unit = "postgresql.service"
[[checker]]
type = "tcp"
name = "db"
to = "127.0.0.1:5432"
action = "restart"
interval = "10s"
[[rule]]
name = "far"
all = ["tcp.db is down", "remote.tcp.db is up"]
action = "swap"
"""
(DIRECTORY / "cluster.toml").write_text(CLUSTER)


def told(error: ConfigError) -> None:
    """Each complaint is a sentence with a place."""
    assert all(complaint.sentence for complaint in error.complaints)


def toml(data: bytes) -> None:
    """As text alone."""
    try:
        parse_config_text(DIRECTORY / "x.toml", data.decode(errors="replace"))
    except ConfigError as error:
        told(error)


def module(data: bytes) -> None:
    """A module's file."""
    (DIRECTORY / "modules" / "pg.toml").write_bytes(data)
    try:
        read_modules(DIRECTORY, CLUSTER_READ)
    except ConfigError as error:
        told(error)


def cluster(data: bytes) -> None:
    """The cluster's."""
    directory = DIRECTORY / "other"
    directory.mkdir(exist_ok=True)
    (directory / "cluster.toml").write_bytes(data)
    try:
        read_cluster(directory)
    except ConfigError as error:
        told(error)


def words(data: bytes) -> None:
    """A rule's term, a pattern, a time."""
    text = data.decode(errors="replace")
    try:
        term = parse(text)
        assert parse(str(term)) == term
    except BadTerm as bad:
        assert str(bad)
    if patterns.reason_against(text) is None:
        assert patterns.parts_of(text) > 0
    try:
        assert parse_duration_s(text) >= 0
    except ValueError:
        pass


def package_file(data: bytes) -> None:
    """Bytes that are said to be a package."""
    path = DIRECTORY / "x.module"
    path.write_bytes(data)
    try:
        packed = archive.unpack(path)
    except BadArchive as bad:
        assert "nothing was installed" in str(bad)
        return
    for name in packed.scripts:
        assert not name.startswith("/") and ".." not in name.split("/") and name.isprintable()


def package_tar(data: bytes) -> None:
    """What is in the gzip."""
    package_file(gzip.compress(data, 1, mtime=0))


def package_manifest(data: bytes) -> None:
    """A manifest, beside a module and a script."""
    files = {"manifest.json": data, "module.toml": MODULE.encode(), "scripts/start": b"#!/bin/sh\n"}
    package_tar(tar_of(files))


def configuration(data: bytes) -> None:
    """What another node sends to be applied."""
    for packed in (data, zlib.compress(data, 1)):
        try:
            files = config_archive.unpack(packed)
        except SaidNo as refusal:
            assert refusal.sentence
            continue
        for name in files:
            assert not name.startswith("/") and ".." not in name.split("/") and len(name.split("/")) <= config_archive.DEPTH_MAX
        assert config_archive.unpack(config_archive.pack(files)) == files


def part(data: bytes) -> None:
    """A node's part of a snapshot: the tar, and the file."""
    for packed in (data, gzip.compress(data, 1, mtime=0)):
        whole = bundle.Bundle("plant7")
        try:
            whole.add_part("node2", packed)
        except bundle.BadPart as bad:
            assert str(bad)
            continue
        whole.manifest(version="1", began=1.5, anonymised=False)


PARSERS = {
    "toml": toml,
    "module": module,
    "cluster": cluster,
    "words": words,
    "package file": package_file,
    "package tar": package_tar,
    "package manifest": package_manifest,
    "configuration": configuration,
    "part": part,
}
CLUSTER_READ = read_cluster(DIRECTORY)


def tar_of(files: dict[str, bytes], odd: tarfile.TarInfo | None = None) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        if odd is not None:
            tar.addfile(odd)
    return packed.getvalue().rstrip(b"\0") + bytes(1024)


def odd_entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def long_names(count: int) -> bytes:
    """A header that is about the next one, which is about the next one, and so on."""
    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 0
    return entry.tobuf(tarfile.GNU_FORMAT) * count


def negative_size() -> bytes:
    """A size below nothing, as GNU's tar writes numbers that do not fit."""
    header = bytearray(tarfile.TarInfo("scripts/a").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) * 2


def large_and_sparse() -> bytes:
    """A file of a terabyte, all of it a hole."""
    entry = tarfile.TarInfo("logs/a")
    entry.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"20000000000\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


def seeds() -> dict[str, dict[str, bytes]]:
    """By parser."""
    whole = archive.pack("pg", "mirror", "1", MODULE, {"start": (True, b"#!/bin/sh\n")})
    plain = gzip.decompress(whole)
    files = {"module.toml": MODULE.encode(), "scripts/start": b"#!/bin/sh\n"}
    listed = [
        {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "executable": False} for path, data in files.items()
    ]
    manifest = {"schema": archive.SCHEMA, "name": "pg", "mode": "mirror", "lockstep": "1", "files": listed}
    entries = [["cluster.toml", False, CLUSTER.encode()], ["modules/pg.toml", False, MODULE.encode()], ["modules/pg/start", True, b"#!"]]
    listing = {
        "MANIFEST.json": json.dumps({"removed": 1, "took_s": 2, "left_out": [{"name": "a", "why": "b"}]}).encode(),
        "logs/a": b"text",
    }
    odd = {
        "link to itself": tar_of(listing, odd_entry("a", tarfile.SYMTYPE, "a")),
        "negative": negative_size(),
        "sparse": large_and_sparse(),
        "device": tar_of(listing, odd_entry("d", tarfile.CHRTYPE)),
    }
    return {
        "toml": {
            "module": MODULE.encode(),
            "deep": b"a = " + b"[" * 1500,
            "wide": b"a." * 600 + b"b = 1\n",
            "digits": b"a = " + b"9" * 5000,
            "dates": b"a = 1979-05-27T07:32:00Z\nb = inf\nc = '''x'''\n",
        },
        "module": {
            "one": MODULE.encode(),
            "none": b"",
            "farm": b'mode = "light"\n[[vip]]\naddress = "192.0.2.7"\n',
            "wrong": b'mode = 5\nvip = [{}]\nreplicated = "x"\n',
        },
        "cluster": {
            "one": CLUSTER.encode(),
            "witness": CLUSTER.encode()
            + b'[witness]\netcd = ["http://192.0.2.9:2379"]\nping = ["192.0.2.254"]\n'
            + b'[health]\nlisten = "lan:80"\n[access]\nadmin = ["ann", "%dba"]\n',
        },
        "words": {
            "term": b"remote.tcp.db is not up",
            "all": b"tcp.* is down",
            "pattern": b"cache/**/[a-z]*",
            "time": b"1h30m",
            "size": b"10s",
        },
        "package file": {"one": whole, "two members": whole + whole, "long names": gzip.compress(long_names(1500), mtime=0)},
        "package tar": {"one": plain, **odd},
        "package manifest": {"one": json.dumps(manifest).encode(), "deep": b"[" * 2000, "odd": b'{"schema":"lockstep.module/2","files":5}'},
        "configuration": {"one": msgpack.packb(entries), "map": msgpack.packb({"abc": 1}), "deep": b"\x91" * 900 + b"\1"},
        "part": {
            "one": tar_of(listing),
            "long names": gzip.compress(long_names(1500), mtime=0),
            "odd list": tar_of({"MANIFEST.json": b'{"removed":"x","left_out":true}'}),
            "facts": tar_of({**listing, "doctor/facts.json": b"[" * 2000}),
            **odd,
        },
    }

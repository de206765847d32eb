"""A module as one file, to be carried to another cluster: `pack` and `unpack`.

The file is a gzipped tar: `manifest.json`, `module.toml`, `scripts/…`. The same module makes the same bytes, whenever and wherever: names
are sorted, times and owners are left out. It holds no state, no keys, and no passwords: what looks like one is refused, with its place.

A file that somebody gives to an administrator may be made by anyone. So `unpack` believes nothing: its size is bounded packed and
unpacked, every entry is a regular file of a plain name, the manifest lists exactly what is there with its SHA-256, and nothing is written
before all of that has been seen. (What the scripts do nobody can check: whoever installs a module runs them as root.)
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator import plain_tar, secret_words
from orchestrator.modules.place import Files
from orchestrator.sentence import Sentence
from rfs import exit_codes
from rfs.foreign import from_json

SCHEMA = "lockstep.module/1"
MANIFEST, MODULE = "manifest.json", "module.toml"
PACKED_BYTES_MAX = 4 << 20
BYTES_MAX = 16 << 20
FILES_MAX = 200
DEPTH_MAX = 6
GZIP = b"\x1f\x8b"
_NAME = re.compile(r"(?!\.)[A-Za-z0-9._@+-]{1,100}")
_LEFT_OUT = re.compile(r".*~|\..*|.*\.(swp|bak|before-join|pyc)|__pycache__")
# Of what looks like a secret: a place that is left open in a comment, or a file that has it.
_PLACEHOLDER = re.compile(r"[.…*#]+|[xX]{3,}|<.*|/[\w./-]+")


class BadArchive(Sentence):
    """No file of ours, or one that was changed on its way."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file}: {reason}; nothing was installed", exit_codes.REFUSED)


@dataclass(frozen=True, slots=True)
class Packed:
    """What such a file holds."""

    name: str
    version: str  # of the Lockstep that packed it
    text: str
    scripts: Files


# ---------------------------------------------------------------------------------------------- packing


def gather(module_file: Path) -> tuple[str, Files]:
    """A module's text and its scripts: regular files, no links, without what editors leave behind."""
    home = module_file.with_suffix("")
    scripts: dict[str, tuple[bool, bytes]] = {}
    for path in sorted(home.rglob("*")):
        relative = path.relative_to(home)
        if any(_LEFT_OUT.fullmatch(part) for part in relative.parts):
            continue
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise Sentence(f"{path} is neither a file nor a directory: only those are packed", exit_codes.REFUSED)
        if path.is_file():
            if len(relative.parts) > DEPTH_MAX or not all(_NAME.fullmatch(part) for part in relative.parts):
                raise Sentence(f"{path}: a name that may stand in a package has letters, digits and . _ @ + - only", exit_codes.REFUSED)
            scripts[relative.as_posix()] = (bool(path.stat().st_mode & 0o100), path.read_bytes())
    if len(scripts) > FILES_MAX or sum(len(data) for _, data in scripts.values()) > BYTES_MAX:
        raise Sentence(
            f"{home}: more than {FILES_MAX} files or {BYTES_MAX >> 20} MiB: a package is configuration and scripts", exit_codes.REFUSED
        )
    return module_file.read_text(encoding="utf-8"), scripts


def secrets_in(text: str, scripts: Files) -> Iterator[str]:
    """Places that look like a password, a token or a private key."""
    texts = {MODULE: text, **{f"scripts/{name}": data.decode("utf-8", "replace") for name, (_, data) in scripts.items()}}
    for name, content in texts.items():
        for number, row in enumerate(content.splitlines(), start=1):
            if holds_secret(row):
                yield f"{name}:{number}"


def holds_secret(row: str) -> bool:
    """In a comment as well: who was to type it wrote it there."""
    if secret_words.PRIVATE_KEY.search(row) or secret_words.TOKENS.search(row):
        return True
    found = (match for pattern in secret_words.VALUES for match in pattern.finditer(row))
    return any(secret_words.is_secret(each) and not _PLACEHOLDER.fullmatch(secret_words.bare(each["value"])) for each in found)


def pack(name: str, mode: str, version: str, text: str, scripts: Files) -> bytes:
    """The file's bytes."""
    files = {MODULE: (False, text.encode()), **{f"scripts/{path}": entry for path, entry in sorted(scripts.items())}}
    listed = [
        {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "executable": executable}
        for path, (executable, data) in files.items()
    ]
    manifest = {"schema": SCHEMA, "name": name, "mode": mode, "lockstep": version, "files": listed}
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path, (executable, data) in {MANIFEST: (False, (json.dumps(manifest, indent=1) + "\n").encode()), **files}.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o755 if executable else 0o644
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


# ---------------------------------------------------------------------------------------------- unpacking


def unpack(file: Path) -> Packed:
    """Everything that is in it, or BadArchive with the first thing that is wrong."""
    with file.open("rb") as opened:
        squeezed = opened.read(PACKED_BYTES_MAX + 1)
    if len(squeezed) > PACKED_BYTES_MAX:
        raise BadArchive(file, f"it is larger than {PACKED_BYTES_MAX >> 20} MiB")
    entries = _entries(file, _unsqueezed(file, squeezed))
    manifest = _manifest(file, entries.pop(MANIFEST, None))
    _compare(file, manifest, entries)
    try:
        text = entries.pop(MODULE)[1].decode("utf-8")
    except KeyError:
        raise BadArchive(file, f"it has no {MODULE}") from None
    except UnicodeDecodeError:
        raise BadArchive(file, f"its {MODULE} is not UTF-8 text") from None
    return Packed(manifest["name"], manifest["lockstep"], text, {path.removeprefix("scripts/"): entry for path, entry in entries.items()})


def _unsqueezed(file: Path, squeezed: bytes) -> bytes:
    """One gzip member, of bounded size whatever its header says."""
    decompressor = zlib.decompressobj(wbits=31)
    if not squeezed.startswith(GZIP):
        raise BadArchive(file, "it is no module package (not gzip)")
    try:
        raw = decompressor.decompress(squeezed, BYTES_MAX + 1)
    except zlib.error:
        raise BadArchive(file, "it is damaged (not gzip throughout)") from None
    if len(raw) > BYTES_MAX:
        raise BadArchive(file, f"it unpacks to more than {BYTES_MAX >> 20} MiB")
    if not decompressor.eof or decompressor.unused_data:
        raise BadArchive(file, "it is cut short, or something follows it")
    return raw


def _entries(file: Path, raw: bytes) -> dict[str, tuple[bool, bytes]]:
    found: dict[str, tuple[bool, bytes]] = {}
    try:
        for entry in plain_tar.read(raw):
            shown = entry.name[:80]
            if len(found) > FILES_MAX:
                raise BadArchive(file, f"it holds more than {FILES_MAX} files")
            if not _is_plain(entry.name):
                raise BadArchive(file, f"'{shown}' is no name that a package may hold")
            if entry.name in found:
                raise BadArchive(file, f"'{shown}' is in it twice")
            found[entry.name] = (entry.executable, entry.data)
    except plain_tar.NotPlain as entry:
        raise BadArchive(file, f"'{str(entry)[:80]}' is no plain file (a link, a device, a directory)") from None
    except plain_tar.BadTar:
        raise BadArchive(file, "it is no module package (the archive is damaged)") from None
    for name in found:
        if any(parent.as_posix() in found for parent in PurePosixPath(name).parents):
            raise BadArchive(file, f"'{name}' lies in another file")
    return found


def _is_plain(name: str) -> bool:
    """One of the two at the top, or a script's."""
    path = PurePosixPath(name)
    if name in (MANIFEST, MODULE):
        return True
    inside = path.parts[:1] == ("scripts",) and 2 <= len(path.parts) <= DEPTH_MAX + 1
    return inside and path.as_posix() == name and all(_NAME.fullmatch(part) for part in path.parts)


def _manifest(file: Path, entry: tuple[bool, bytes] | None) -> Mapping[str, Any]:
    if entry is None:
        raise BadArchive(file, f"it is no module package (it has no {MANIFEST})")
    try:
        document = from_json(entry[1])
        schema = document["schema"]
        if schema != SCHEMA and str(schema).startswith("lockstep.module/"):
            raise BadArchive(file, f"it is a {str(schema)[:40]}, and this release reads {SCHEMA}: update Lockstep here")
        whole = all(isinstance(document[key], str) for key in ("name", "mode", "lockstep")) and isinstance(document["files"], list)
        listed = [(each["path"], each["sha256"], each["bytes"], each["executable"]) for each in document["files"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadArchive(file, f"its {MANIFEST} is none") from None
    if schema != SCHEMA or not whole or not all(isinstance(path, str) for path, *_ in listed):
        raise BadArchive(file, f"its {MANIFEST} is none")
    found: Mapping[str, Any] = document
    return found


def _compare(file: Path, manifest: Mapping[str, Any], entries: Mapping[str, tuple[bool, bytes]]) -> None:
    listed = {each["path"]: each for each in manifest["files"]}
    if len(listed) != len(manifest["files"]) or set(listed) != set(entries):
        odd = sorted(set(listed) ^ set(entries))
        raise BadArchive(file, f"its {MANIFEST} does not list what is in it" + (f" ('{odd[0][:80]}')" if odd else ""))
    for path, (executable, data) in entries.items():
        told = listed[path]
        if told["sha256"] != hashlib.sha256(data).hexdigest() or told["bytes"] != len(data) or told["executable"] is not executable:
            raise BadArchive(file, f"'{path}' is not what its {MANIFEST} says: it was changed or damaged")

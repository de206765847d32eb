"""The bytes of a configuration: `cluster.toml` and what lies below `modules/` (module files, scripts), and no keys.

What counts is the names, the contents and which files may be executed: the digest is over these, and over nothing that differs between two
nodes which were given the same. What an editor leaves (`.pg.toml.swp`, `pg.toml~`) and what was kept aside is no part of it.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePath, PurePosixPath

import msgpack

from orchestrator.config import CLUSTER_FILE, MODULES_DIR
from rfs.durably import sync_directory
from rfs.errors import SaidNo
from rfs.pairing import Files

FILES_MAX = 500
BYTES_MAX = 3 << 20
PACKED_BYTES_MAX = 900 << 10  # it travels in one question of the call channel
DEPTH_MAX = 6
BEFORE_JOIN, BEFORE_APPLY = ".before-join", ".before-apply"
LEFTOVERS = (BEFORE_JOIN, BEFORE_APPLY, "~", ".swp", ".dpkg-old", ".dpkg-dist", ".dpkg-new")


def gather(config_dir: Path) -> Files:
    """Every file of the configuration, by its path below the directory (blocking). SaidNo when that is too much to be one."""
    found: Files = {}
    for path in (config_dir / CLUSTER_FILE, *sorted((config_dir / MODULES_DIR).rglob("*"))):
        if path.is_file() and not path.is_symlink() and is_configuration(path.relative_to(config_dir)):
            if (shown := os.fsencode(path).decode(errors="backslashreplace")) != str(path):  # neither hashed nor sent, and never taken
                raise SaidNo(f"{shown}: its name is not UTF-8, and no other node can be given it; rename it, or move it elsewhere")
            found[path.relative_to(config_dir).as_posix()] = (path.stat().st_mode & 0o777, path.read_bytes())
    if len(found) > FILES_MAX or sum(len(data) for _, data in found.values()) > BYTES_MAX:
        raise SaidNo(f"{config_dir}: more than {FILES_MAX} files or 3 MiB: what lies below modules/ is to be configuration and scripts")
    return found


def is_configuration(path: PurePath) -> bool:
    """Is it meant, or was it left by somebody who worked on it?"""
    return not path.name.endswith(LEFTOVERS) and not any(part.startswith(".") for part in path.parts)


def signature(config_dir: Path) -> tuple[object, ...]:
    """Differs whenever `gather` may find something else; costs no reading (blocking)."""
    paths = (config_dir / CLUSTER_FILE, *sorted((config_dir / MODULES_DIR).rglob("*")))
    return tuple(entry for path in paths if (entry := _signature_of(path)) is not None)


def _signature_of(path: Path) -> tuple[object, ...] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return str(path), found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def checked(name: str) -> PurePosixPath:
    """The path of a file that another node sends; SaidNo for what is no part of a configuration."""
    path = PurePosixPath(name)
    allowed = name == CLUSTER_FILE or (path.parts[:1] == (MODULES_DIR,) and 1 < len(path.parts) <= DEPTH_MAX)
    if not allowed or path.is_absolute() or ".." in path.parts or path.as_posix() != name or not name.isprintable():
        raise SaidNo(f"the other node sends a file '{name[:80]}', which is no part of a configuration")
    return path


def may_be_executed(mode: int) -> bool:
    """By anybody."""
    return bool(mode & 0o111)


def digest(files: Files) -> str:
    """Equal exactly when the configurations are."""
    found = hashlib.sha256()
    for name, (mode, data) in sorted(files.items()):
        found.update(f"{name}\0{int(may_be_executed(mode))}\0{len(data)}\0".encode())
        found.update(data)
    return found.hexdigest()


def pack(files: Files) -> bytes:
    """For the call channel; SaidNo when it would not fit."""
    entries = [[name, may_be_executed(mode), data] for name, (mode, data) in sorted(files.items())]
    packed = zlib.compress(msgpack.packb(entries), 6)
    if len(packed) > PACKED_BYTES_MAX:
        raise SaidNo(f"the configuration has {len(packed) >> 10} KiB even when compressed; {PACKED_BYTES_MAX >> 10} KiB may be applied")
    return packed


def unpack(packed: object) -> Files:
    """What another node sent; SaidNo for anything that `pack` does not make."""
    if not isinstance(packed, bytes):
        raise SaidNo("the other node sends no configuration")
    try:
        unpacker = zlib.decompressobj()
        plain = unpacker.decompress(packed, BYTES_MAX * 2)
        if unpacker.unconsumed_tail or not unpacker.eof:
            raise ValueError("too long")
        entries = msgpack.unpackb(plain, raw=False)
        files = {_text(name): (0o755 if executable is True else 0o644, _bytes(data)) for name, executable, data in entries}
    except (zlib.error, ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise SaidNo(f"the other node sends something that is no configuration ({error})") from error
    for name in files:
        checked(name)
    if len(files) > FILES_MAX or sum(len(data) for _, data in files.values()) > BYTES_MAX:
        raise SaidNo("the other node sends more than a configuration may be")
    return files


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a name that is no text")
    return value


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a content that is no bytes")
    return value


def write_tree(files: Mapping[str, tuple[int, bytes]], directory: Path, *, durably: bool = True) -> None:
    """All of it below a new directory (blocking)."""
    directory.mkdir(mode=0o755)
    (directory / MODULES_DIR).mkdir(mode=0o755)
    made = {directory, directory / MODULES_DIR}
    for name, (mode, data) in files.items():
        target = directory / checked(name)
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        made |= {parent for parent in target.parents if parent.is_relative_to(directory)}
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o755 if may_be_executed(mode) else 0o644)
            file.flush()
            if durably:
                os.fsync(file.fileno())
    for parent in made if durably else ():
        sync_directory(parent)


def lay_out(files: Files, before: Files, config_dir: Path) -> list[str]:
    """Make the files below `config_dir` those of `files` (blocking); the names of those that changed.

    Each is replaced whole, and whoever is interrupted does it again. What was there and is neither what is to be nor what was `before` is
    somebody's work: it is kept beside, as `NAME.before-apply`. A file that is there already keeps its owner, and who may read it."""
    changed, there = [], gather(config_dir)
    for name, (mode, data) in files.items():
        target = config_dir / checked(name)
        if name in there and there[name][1] == data and may_be_executed(there[name][0]) == may_be_executed(mode):
            continue
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if name in there and there[name][1] not in (data, content_of(before, name)):
            _set_aside(target)
        readable = there[name][0] & 0o666 if name in there else 0o644
        _replace(target, data, readable | ((readable & 0o444) >> 2 if may_be_executed(mode) else 0))
        changed.append(name)
    for name in there.keys() - files.keys():
        if there[name][1] != content_of(before, name):
            _set_aside(config_dir / name)
        (config_dir / name).unlink(missing_ok=True)
        changed.append(name)
    return sorted(changed)


def content_of(files: Files, name: str) -> bytes | None:
    """Of one file, if it is there."""
    return files[name][1] if name in files else None


def _set_aside(path: Path) -> None:
    path.with_name(path.name + BEFORE_APPLY).write_bytes(path.read_bytes())


def _replace(target: Path, data: bytes, mode: int) -> None:
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)
        if target.exists():
            owner = target.stat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.flush()
        os.fsync(file.fileno())
    new.replace(target)
    sync_directory(target.parent)

"""The bytes of a configuration: `cluster.toml` and what lies below `modules/` (module files, scripts), and no keys.

What counts is the names, the contents and which files may be executed: the digest is over these, and over nothing that differs between two
nodes which were given the same. What an editor leaves (`.pg.toml.swp`, `pg.toml~`) and what was kept aside is no part of it. A symbolic
link counts as the file to which it leads; what cannot be told apart from a mistake (it leads nowhere, or to a directory) is refused.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath

import msgpack

from orchestrator.config import CLUSTER_FILE, MODULES_DIR
from orchestrator.ownership import complaint_of_all
from orchestrator.security import KEYS_DIR
from rfs import exit_codes
from rfs.durably import sync_directory, write_durably
from rfs.errors import SaidNo
from rfs.foreign import from_msgpack
from rfs.pairing import Files

FILES_MAX = 500
BYTES_MAX = 3 << 20
PACKED_BYTES_MAX = 900 << 10  # it travels in one question of the call channel
DEPTH_MAX = 6
BEFORE_JOIN, BEFORE_APPLY = ".before-join", ".before-apply"
LEFTOVERS = (BEFORE_JOIN, BEFORE_APPLY, "~", ".swp", ".dpkg-old", ".dpkg-dist", ".dpkg-new")


def gather(config_dir: Path) -> Files:
    """Every file of the configuration, by its path below the directory (blocking). SaidNo when that is too much, or nothing to be one."""
    found: Files = {}
    left = BYTES_MAX
    for number, path in enumerate(_listed(config_dir)):
        name = path.relative_to(config_dir).as_posix()
        if not _may_belong(name):
            reason = f"at most {DEPTH_MAX - 1} levels below modules/, and names of printable UTF-8"
            raise SaidNo(f"{_shown(path)}: cannot be a file of the configuration: {reason}; rename it, or take it away")
        if (file := _look_at(path)) is None:
            continue
        if path.is_symlink() and path.resolve().is_relative_to((config_dir / KEYS_DIR).resolve()):
            raise SaidNo(f"{path}: a symbolic link to a key, and keys are no part of the configuration; remove it")
        mode, size_bytes = file
        if number >= FILES_MAX or size_bytes > left:  # what is too much is not read
            raise _too_much(config_dir)
        with path.open("rb") as opened:
            data = opened.read(left + 1)
        left -= len(data)
        if left < 0:  # it grew
            raise _too_much(config_dir)
        found[name] = (mode, data)
    return found


def check_ownership(config_dir: Path) -> None:
    """SaidNo when others than root could change what hactld is going to run (blocking)."""
    directories = [Path(place) for place, _, _ in islice(os.walk(config_dir / MODULES_DIR), FILES_MAX)]  # an empty one, too
    if (complaint := complaint_of_all((config_dir, *directories, *islice(_listed(config_dir), FILES_MAX)))) is not None:
        raise SaidNo(complaint, exit_codes.CONFIGURATION_INVALID)


def _too_much(config_dir: Path) -> SaidNo:
    return SaidNo(f"{config_dir}: more than {FILES_MAX} files or 3 MiB: what lies below modules/ is to be configuration and scripts")


def _listed(config_dir: Path) -> Iterator[Path]:
    """What may belong to it, always in the same order: all but directories, and those as well that lie too deep."""
    yield config_dir / CLUSTER_FILE
    for place, directories, names in os.walk(config_dir / MODULES_DIR, onerror=_refuse):  # which follows no link
        depth = len(Path(place).relative_to(config_dir).parts)
        leaves = [*names, *(name for name in directories if depth >= DEPTH_MAX or Path(place, name).is_symlink())]
        directories[:] = sorted(name for name in directories if name not in leaves and not name.startswith("."))
        yield from (path for name in sorted(leaves) if is_configuration((path := Path(place, name)).relative_to(config_dir)))


def _refuse(error: OSError) -> None:
    """A directory that cannot be read is not an empty one."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _look_at(path: Path) -> tuple[int, int] | None:
    """Who may do what with a file, and its size; none: it is not there, or no file (a socket, say)."""
    try:
        found = path.stat()
    except FileNotFoundError:
        found = None
    except OSError as error:
        if not path.is_symlink():
            raise
        raise SaidNo(f"{path}: a symbolic link that leads nowhere ({error.strerror}); remove it, or correct it") from error
    if found is not None and stat.S_ISREG(found.st_mode):
        return found.st_mode & 0o777, found.st_size
    if path.is_symlink():
        what = "leads nowhere" if found is None else "does not lead to a file"
        raise SaidNo(f"{path}: a symbolic link that {what}; link single files, or put them there")
    return None


def _shown(path: Path) -> str:
    """As text that can be written anywhere."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def is_configuration(path: PurePath) -> bool:
    """Is it meant, or was it left by somebody who worked on it?"""
    return not path.name.endswith(LEFTOVERS) and not any(part.startswith(".") for part in path.parts)


def signature(config_dir: Path) -> tuple[object, ...]:
    """Differs whenever `gather` may find something else; costs no reading (blocking)."""
    return tuple((str(path), _facts(path, follow=False), _facts(path, follow=True)) for path in islice(_listed(config_dir), FILES_MAX + 1))


def _facts(path: Path, *, follow: bool) -> tuple[int, ...]:
    try:
        found = path.stat(follow_symlinks=follow)
    except OSError:
        return ()
    return found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def checked(name: str) -> PurePosixPath:
    """The path of a file that another node sends; SaidNo for what is no part of a configuration."""
    if not _may_belong(name):
        raise SaidNo(f"the other node sends a file {ascii(name[:80])}, which is no part of a configuration")
    return PurePosixPath(name)


def _may_belong(name: str) -> bool:
    path = PurePosixPath(name)
    allowed = name == CLUSTER_FILE or (path.parts[:1] == (MODULES_DIR,) and 1 < len(path.parts) <= DEPTH_MAX)
    return allowed and not path.is_absolute() and ".." not in path.parts and path.as_posix() == name and name.isprintable()


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
        entries = from_msgpack(plain)
        files = {_text(name): (0o755 if executable is True else 0o644, _bytes(data)) for name, executable, data in entries}
    except (zlib.error, ValueError, TypeError) as error:
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
            os.fchmod(file.fileno(), kept_mode(name, mode))
            file.flush()
            if durably:
                os.fsync(file.fileno())
    for parent in made:
        parent.chmod(0o755)  # whatever the umask is
        if durably:
            sync_directory(parent)


def kept_mode(name: str, mode: int) -> int:
    """Of a file of a tree, which belongs to root: others may do with it what they may with people's own; but hactld alone reads TOML."""
    executable, path = may_be_executed(mode), PurePosixPath(name)
    others = 0 if name == CLUSTER_FILE or (path.suffix == ".toml" and len(path.parts) == 2) else mode & 0o007
    return 0o600 | (0o044 if others & 0o004 else 0) | ((0o111 if others & 0o005 else 0o100) if executable else 0)


def as_open_here(files: Files, config_dir: Path) -> Files:
    """The same, for a tree of this node: no file is more open to others than the one that is there for people (blocking)."""
    found: Files = {}
    for name, (mode, data) in files.items():
        with suppress(FileNotFoundError, NotADirectoryError):
            there = (config_dir / checked(name)).stat().st_mode
            mode = (there & 0o666) | (0o100 | (there & 0o011) | (there & 0o044) >> 2 if may_be_executed(mode) else 0)
        found[name] = (kept_mode(name, mode), data)
    return found


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
    """Durable before the other content takes its place."""
    write_durably(path.with_name(path.name + BEFORE_APPLY), path.read_bytes(), path.stat().st_mode & 0o777)


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

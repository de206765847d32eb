"""`--replace-data`: what lies in the directories goes to STATEDIR/kept/, and the peer's data takes its place. Nothing is ever deleted.

Each time has its own kept/<number>/<directory's position>/. Within one file system the entries are renamed; otherwise they are copied with
everything they carry, checked to fit before the first byte moves, and removed after. An interruption leaves each top-level entry in
one place or the other, and the next attempt (with the next number) takes what is left.

The mark `copy-begun` tells, for a copy that was never complete, that what lies in the directories is the peer's already: without it
a new secondary that holds files is never overwritten.
"""

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from rfs import exit_codes
from rfs.directory_checks import NOT_CONTENT
from rfs.durably import sync_directory
from rfs.errors import SaidNo

_MARK = "copy-begun"


def has_begun_copy(state_directory: str) -> bool:
    """Do the directories hold (a part of) the peer's data?"""
    return os.path.exists(os.path.join(state_directory, _MARK))


def note_copy_begun(state_directory: str) -> None:
    """From here on what they hold is the peer's."""
    descriptor = os.open(os.path.join(state_directory, _MARK), os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    sync_directory(state_directory)


def forget_copy_begun(state_directory: str) -> None:
    """What they hold is this node's own again."""
    Path(state_directory, _MARK).unlink(missing_ok=True)
    sync_directory(state_directory)


def set_aside(trees: Sequence[int], state_directory: str) -> str:
    """Move every entry of the trees away; returns where they went."""
    kept = _next_place(Path(state_directory, "kept"))
    for index, tree in enumerate(trees):
        destination = kept / str(index)
        destination.mkdir(parents=True)
        source = Path(f"/proc/self/fd/{tree}")
        names = sorted(name for name in os.listdir(tree) if name not in NOT_CONTENT)
        for position, name in enumerate(names):
            try:
                os.rename(name, destination / name, src_dir_fd=tree)
            except OSError as failure:
                if failure.errno != errno.EXDEV:
                    raise
                _refuse_without_room(source, names[position:], destination)
                for left in names[position:]:
                    _copy_away(source / left, destination / left)
                break
        os.fsync(tree)
    os.sync()
    return str(kept)


def _next_place(kept: Path) -> Path:
    kept.mkdir(mode=0o700, exist_ok=True)
    numbers = [int(entry.name) for entry in os.scandir(kept) if entry.name.isdigit()]
    return kept / str(max(numbers, default=0) + 1)


def _refuse_without_room(source: Path, names: Sequence[str], destination: Path) -> None:
    needed_bytes = sum(_size_bytes(source / name) for name in names)
    free_bytes = shutil.disk_usage(destination).free
    if needed_bytes > free_bytes * 0.95:
        raise SaidNo(
            f"{destination}: {needed_bytes >> 20} MiB of data to set aside do not fit into {free_bytes >> 20} MiB; make room",
            exit_codes.REFUSED,
        )


def _size_bytes(path: Path) -> int:
    total_bytes = path.lstat().st_blocks * 512
    if path.is_dir() and not path.is_symlink():
        total_bytes += sum(_size_bytes(Path(entry.path)) for entry in os.scandir(path))
    return total_bytes


def _copy_away(source: Path, destination: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, destination, symlinks=True, copy_function=_copy_file)
        _copy_owner(source, destination)
        shutil.rmtree(source)
    else:
        _copy_file(str(source), str(destination))
        source.unlink()


def _copy_file(source: str, destination: str) -> str:
    information = os.lstat(source)
    if os.path.isfile(source) or os.path.islink(source):
        shutil.copy2(source, destination, follow_symlinks=False)
    else:
        os.mknod(destination, information.st_mode, information.st_rdev)
    _copy_owner(Path(source), Path(destination))
    return destination


def _copy_owner(source: Path, destination: Path) -> None:
    information = source.lstat()
    os.chown(destination, information.st_uid, information.st_gid, follow_symlinks=False)
    shutil.copystat(source, destination, follow_symlinks=False)

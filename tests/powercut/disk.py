"""Disks that forget: images served by disk_server.py, so that every write to them is in one log."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.powercut.log import Clock, LogReader

SIZE_BYTES = 64 << 20
DIRECTORIES = ("data", "wal")
STATE = "state"


class CannotRunHere(Exception):
    """The machine lacks what this needs; a test skips with this sentence."""


def check_machine() -> None:
    """Root, FUSE, loop devices and mkfs, or CannotRunHere."""
    if os.geteuid() != 0:
        raise CannotRunHere("needs root")
    for path in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(path):
            raise CannotRunHere(f"there is no {path}")
    if shutil.which("mkfs.ext4") is None:
        raise CannotRunHere("there is no mkfs.ext4")
    if subprocess.run(["losetup", "--find"], capture_output=True, check=False).returncode != 0:
        raise CannotRunHere("no loop device can be had")


def workplace() -> str | None:
    """Memory where there is enough of it (the images are copied thousands of times); else wherever temporary files go."""
    try:
        there = os.statvfs("/dev/shm")
    except OSError:
        return None
    return "/dev/shm" if there.f_bavail * there.f_frsize > 2 << 30 else None


def tool(*command: str) -> str:
    """A command's output; its complaint as ours."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def copy_sparse(source: Path, target: Path) -> None:
    """What is a hole stays one: most of an image is."""
    with source.open("rb") as reading, target.open("wb") as writing:
        size, at = os.fstat(reading.fileno()).st_size, 0
        os.ftruncate(writing.fileno(), size)
        while at < size:
            try:
                at = os.lseek(reading.fileno(), at, os.SEEK_DATA)
            except OSError:
                return  # nothing but a hole is left
            end = os.lseek(reading.fileno(), at, os.SEEK_HOLE)
            os.lseek(writing.fileno(), at, os.SEEK_SET)
            while at < end:
                at += os.sendfile(writing.fileno(), reading.fileno(), at, end - at)


def make_file_system(image: Path, kind: str, *, filled: bool) -> None:
    """A fresh one, and in it the directories that a node mirrors and the one where it remembers. No discard: it would not be logged.

    Those of the first primary hold a file each: an empty directory is refused as a source, and rightly so.
    """
    with image.open("wb") as file:
        os.ftruncate(file.fileno(), SIZE_BYTES if kind == "ext4" else 5 * SIZE_BYTES)
    if kind == "ext4":
        tool("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", str(image))
    elif shutil.which("mkfs.xfs") is None:
        raise CannotRunHere("there is no mkfs.xfs")
    else:
        tool("mkfs.xfs", "-q", "-f", "-K", str(image))
    place = image.with_suffix(".mnt")
    place.mkdir()
    try:
        tool("mount", "-o", "loop", str(image), str(place))
    except OSError as failure:
        raise CannotRunHere(f"{kind} cannot be mounted here: {failure}") from failure
    for name in (*DIRECTORIES, STATE):
        (place / name).mkdir(mode=0o700)
        if filled and name in DIRECTORIES:
            (place / name / "first").write_text("was here before\n")
    tool("umount", str(place))
    place.rmdir()


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk: what a loop device is put on, and the image as it was before the first entry."""

    number: int
    path: Path
    base: Path


class Disks:
    """All of them, and their log. Use as a context manager."""

    def __init__(self, directory: Path) -> None:
        self._images, self._mount, self._bases = directory / "images", directory / "disks", directory / "bases"
        for path in (self._images, self._mount, self._bases):
            path.mkdir()
        self.log_path = directory / "log"
        self._errors = (directory / "disks.err").open("wb")
        self._made = 0

    def __enter__(self) -> Disks:
        command = [
            "setpriv",
            "--pdeathsig=KILL",
            sys.executable,
            "-m",
            "tests.powercut.disk_server",
            *map(str, (self._images, self.log_path, self._mount)),
        ]
        self._server = subprocess.Popen(command, stderr=self._errors)
        deadline = time.monotonic() + 20
        while not os.path.ismount(self._mount):
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise CannotRunHere(f"the disks cannot be served: {Path(self._errors.name).read_text()[-300:]}")
            time.sleep(0.02)
        self.clock = Clock(self.log_path)
        self.log = LogReader(self.log_path)
        return self

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + 30
        while str(self._mount) in tool("losetup", "--list", "--noheadings", "--output", "BACK-FILE") and time.monotonic() < deadline:
            time.sleep(0.05)
        subprocess.run(["umount", str(self._mount)], capture_output=True, check=False)
        try:
            self._server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self.log.close()
        self._errors.close()

    def new(self, base: Path) -> Disk:
        """A disk that holds what `base` holds; `base` is kept as it is."""
        number, self._made = self._made, self._made + 1
        kept = self._bases / f"{number}.img"
        copy_sparse(base, kept)
        copy_sparse(base, self._images / f"{number}.img")
        return Disk(number, self._mount / f"{number}.img", kept)

"""Does a write go through the mirror to both disks and come back? A small file is written, synced, read and removed in each directory.

A mirror that is frozen hangs whoever writes into it, also after a SIGKILL: the kernel waits for the answer to what it has handed over. So a
child process writes. At the deadline it is killed and left to the kernel, and while it is still there no other one is started: whatever
hangs, there is one process of it and no thread, however often the checker's window opens and closes meanwhile.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from orchestrator.checkers.checker import Finding
from orchestrator.checkers.probe import OTHER_DEVICE
from orchestrator.effects import processes
from rfs.mount_table import MountEntry, read_mount_table, stack_at

PROBE = Path(__file__).with_name("probe.py")
ENVIRONMENT = {"LANG": "C.UTF-8"}
_left: dict[str, subprocess.Popen[bytes]] = {}  # what hangs, by directory, which is one module's: each window has a checker of its own


class WriteChecker:
    """Up while what is written in each of the directories comes back."""

    def __init__(self, directories: Sequence[str], node: str) -> None:
        self.directories, self.name = directories, f".lockstep-probe.{node}"

    async def look(self) -> Finding:
        """In one directory after the other: they are one mirror."""
        took = []
        for directory in self.directories:
            up, text = await self._write(directory)
            if not up:
                return Finding(False, f"{directory} {text}")
            took.append(text)
        return Finding(True, f"written through the mirror and read back in {', '.join(took)} ms")

    async def changed(self) -> None:
        """Nobody tells."""
        await trio.sleep_forever()

    async def _write(self, directory: str) -> tuple[bool, str]:
        device = mirror_device(directory, read_mount_table())
        if device is None:
            return False, "is not mounted: there is no mirror to write through"
        left = _left.get(directory)
        if left is not None and left.poll() is None:
            with_whom = processes.find(left.pid)
            return False, f"does not answer: {processes.describe(with_whom) if with_whom else left.pid} still waits for the last write"
        _left.pop(directory, None)
        words = [sys.executable, "-I", "-S", str(PROBE), directory, str(device), self.name]
        child = await trio.to_thread.run_sync(_spawn, words)
        try:
            await _ended(child.pid)
            code, said = child.wait(), _said(child)
        finally:
            if child.poll() is None:
                assert child.stdout is not None
                child.stdout.close()
                child.send_signal(signal.SIGKILL)
                _left[directory] = child
        if code == OTHER_DEVICE:
            return False, "was unmounted just now"
        return code == 0, said if code == 0 else f"cannot be written to: {said or f'exit code {code}'}"


def mirror_device(directory: str, table: list[MountEntry]) -> int | None:
    """The device number of the mirror that lies over it; None: there is none."""
    path = os.path.join(os.path.realpath(Path(directory).parent), Path(directory).name)
    stack = stack_at(path, table)
    if not stack or not stack[-1].is_ours:
        return None
    major, _, minor = stack[-1].device.partition(":")
    return os.makedev(int(major), int(minor))


def _spawn(words: Sequence[str]) -> subprocess.Popen[bytes]:
    """Of itself a session, `/` its directory (blocking for the moment of fork and exec)."""
    return subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/", env=ENVIRONMENT, start_new_session=True
    )


async def _ended(pid: int) -> None:
    process = processes.find(pid)
    if process is not None:
        await processes.wait_dead(process)


def _said(child: subprocess.Popen[bytes]) -> str:
    """A few words: they were in the pipe before it ended."""
    assert child.stdout is not None
    with child.stdout as said:
        return said.read().decode(errors="replace").strip()

"""What has to happen for an rfsmount to come to a step. Each leaves the case to the operator as soon as a process has died of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from rfs.errors import SaidNo
from tests.faults import application
from tests.faults.cold import ColdFiles
from tests.faults.scene import ALLOWED_ENDS, COLD, DEADLINE_S, FaultNode, Scene, wait_until

NOT_ALL, ALL, ANY = ("nothing", "marks"), ("everything",), ("nothing", "marks", "everything")
PRIMARY, SECONDARY = "primary", "secondary"  # as they are when the case begins


def _asks(node: FaultNode, method: str, **params: object) -> None:
    """A command that may be cut off by what it provokes."""
    try:
        node.call(method, **params)
    except SaidNo:
        pass


def _promotes(node: FaultNode) -> None:
    try:
        node.promote()
    except SaidNo:
        pass


def work(scene: Scene, primary: FaultNode, secondary: FaultNode) -> None:
    """The application alone."""


def lose_secondary(scene: Scene, primary: FaultNode, secondary: FaultNode) -> None:
    """It dies; the operator lets the primary go on."""
    secondary.kill()
    wait_until(lambda: not primary.is_alive() or primary.shown().get("needs_grant"), "the primary wants a grant")
    _promotes(primary)


def lose_primary(scene: Scene, primary: FaultNode, secondary: FaultNode) -> None:
    """It dies; the operator promotes the secondary."""
    primary.kill()
    wait_until(lambda: secondary.shown().get("link") == "connecting", "the secondary notices that its peer is gone")
    _promotes(secondary)


def rejoin(scene: Scene, primary: FaultNode, secondary: FaultNode) -> None:
    """The secondary was away while the application went on."""
    lose_secondary(scene, primary, secondary)
    scene.application.wait_more()
    secondary.start()


def lose_link(scene: Scene, primary: FaultNode, secondary: FaultNode) -> None:
    """A pause that is longer than the link's timeout, and nothing else."""
    pid = secondary.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: primary.shown().get("mode") == "frozen", "the primary notices the pause")
    finally:
        os.kill(pid, signal.SIGCONT)


def touch_cold(scene: Scene, primary: FaultNode, secondary: FaultNode) -> None:
    """Writes to what the last checkpoint has left without a mark."""
    place, end = primary.directories[0] / COLD, time.monotonic() + DEADLINE_S
    scene.cold = ColdFiles()
    failure = scene.cold.touch_while(place, lambda: primary.is_alive() and time.monotonic() < end)
    assert failure is None or failure.errno in ALLOWED_ENDS, failure


def _is_marked(node: FaultNode) -> bool:
    counters = node.call("stats")
    return bool(counters["marked_places"] or counters["marked_everything"])


def rejoin_idle(scene: Scene, primary: FaultNode, secondary: FaultNode) -> None:
    """The secondary was away, nothing was written meanwhile, and the last checkpoint has left no mark."""
    scene.application.stop()
    wait_until(lambda: not _is_marked(primary) and not _is_marked(secondary), "a checkpoint leaves no mark on either node")
    secondary.kill()
    secondary.start()


def leave(scene: Scene, primary: FaultNode, secondary: FaultNode) -> None:
    _asks(secondary, "unmount")


def swap(scene: Scene, primary: FaultNode, secondary: FaultNode) -> None:
    _asks(primary, "demote")
    if primary.is_alive() and secondary.is_alive():
        wait_until(lambda: not secondary.is_alive() or secondary.shown().get("consent"), "the secondary may be promoted")
        _asks(secondary, "promote", granted=False)


def add_directory(scene: Scene, primary: FaultNode, secondary: FaultNode) -> None:
    """To both, while the application works; the operator asks again what has not been heard (see Scene.revive)."""
    scene.make_directory(primary)
    for node in (secondary, primary):
        if primary.is_alive() and secondary.is_alive():
            _asks(node, "add_directories", directories=[str(node.directories[-1])])


def _fail_fsync(scene: Scene, victim: FaultNode) -> None:
    """Its disk fails one fsync: strace is told to say so."""
    paths = [f"/{scene.application.below}/{application.JOURNAL}"]
    with tracing(victim.pid, "fsync,fdatasync:error=EIO", victim.steps.with_suffix(".strace"), paths):
        wait_until(lambda: not victim.is_alive() or victim.shown().get("data") == "FAILED", f"{victim.name} finds that its disk fails")


def fail_primary(scene: Scene, primary: FaultNode, secondary: FaultNode) -> None:
    _fail_fsync(scene, primary)


def fail_secondary(scene: Scene, primary: FaultNode, secondary: FaultNode) -> None:
    _fail_fsync(scene, secondary)


def come_back_failed(scene: Scene, primary: FaultNode, secondary: FaultNode) -> None:
    """A copy whose disk has failed is compared in full."""
    _fail_fsync(scene, secondary)
    secondary.kill()
    secondary.start()


def strace_options(injection: str, log: Path) -> list[str]:
    """Every thread and child, and which file is meant."""
    return ["-f", "-qq", "-y", "-o", str(log), "-e", f"trace={injection.partition(':')[0]}", "-e", f"inject={injection}"]


class tracing:  # noqa: N801 -- used as a statement
    """strace on every thread of a process, with one injection, until the end of the block. It counts calls (when=N) in each thread.

    `paths`: only calls on these files, as the engine has them: below the plain tree, which is a mount without a place.
    """

    def __init__(self, pid: int, injection: str, log: Path, paths: Sequence[str] = ()) -> None:
        self.log, self._pid = log, pid
        self._command = ["strace", "-p", str(pid), *strace_options(injection, log)]
        self._command += [word for path in paths for word in ("-P", path)]

    def __enter__(self) -> tracing:
        self.process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        tracer = Path(f"/proc/{self._pid}/status")
        wait_until(lambda: f"TracerPid:\t{self.process.pid}\n" in tracer.read_text() or self.process.poll() is not None, "strace attaches")
        assert self.process.poll() is None, f"strace: {self.process.communicate()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=1)
        except subprocess.TimeoutExpired:  # it waits for a thread of a process that was killed
            self.process.kill()
            self.process.communicate(timeout=10)


def may_trace() -> bool:
    """strace is installed and this place lets us use it."""
    if not shutil.which("strace"):
        return False
    probe = ["strace", "-qq", "-o", os.devnull, "-e", "inject=getppid:error=EIO", "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


needs_strace = pytest.mark.skipif(not may_trace(), reason="needs strace, and a place where it may trace")


@dataclass(frozen=True, slots=True)
class Case:
    """Who dies of which step, and by what it comes there."""

    step: str
    victim: str
    provoke: Callable[[Scene, FaultNode, FaultNode], None]
    visits: int = 1  # it dies at one of the first so many
    scopes: Sequence[str] = NOT_ALL  # what the session that follows may compare

    @property
    def name(self) -> str:
        return f"{self.step}-{self.victim}-{self.provoke.__name__}"


def _cases(
    victim: str, provoke: Callable[[Scene, FaultNode, FaultNode], None], *steps: str, visits: int = 1, scopes: Sequence[str] = NOT_ALL
) -> list[Case]:
    return [Case(step, victim, provoke, visits, scopes) for step in steps]


_ALONE = ("alone-before-mint", "alone-minted", "alone-thawed")
_SOURCE = (
    "state-sent", "verdict-sent", "source-renewed", "source-synced", "degrade-asked", "source-recorded", "source-attached",
    "source-drained", "end-promised", "end-sent", "adopted-heard", "source-paired",
)  # fmt: skip
_TARGET = (
    "state-sent", "verdict-sent", "target-renewed", "degrade-heard", "target-inconsistent", "target-attached", "end-received",
    "target-synced", "target-adopted", "adopted-sent", "target-paired",
)  # fmt: skip
_CHECKPOINT = (
    "checkpoint-begun", "checkpoint-peer-synced", "checkpoint-synced", "checkpoint-recorded", "marks-dropped", "checkpoint-told",
)  # fmt: skip

CASES = [
    *_cases(PRIMARY, lose_secondary, *_ALONE),
    *_cases(SECONDARY, lose_primary, "primary-durable", "primary-frozen", *_ALONE, "promoted-unmounted"),
    *_cases(PRIMARY, rejoin, *_SOURCE),
    *_cases(PRIMARY, rejoin, "resync-shipped", visits=20),
    *_cases(SECONDARY, rejoin, *_TARGET),
    *_cases(SECONDARY, rejoin, "resync-applied", visits=20),
    *_cases(PRIMARY, lose_link, "state-sent", "verdict-sent", "source-renewed", "resume-source"),
    *_cases(SECONDARY, lose_link, "state-sent", "verdict-sent", "target-renewed", "resume-target"),
    *_cases(SECONDARY, leave, "leave-durable", "leave-told", scopes=ANY),
    *_cases(PRIMARY, leave, "leave-heard", *_ALONE, scopes=ANY),
    *_cases(PRIMARY, swap, "demote-drained", "demote-synced", "demote-durable", "demote-agreed", "turn-heard", "turn-applied"),
    *_cases(SECONDARY, swap, "demoted-heard", "turn-durable", "turn-answered", "turn-done"),
    *_cases(PRIMARY, fail_primary, "fail-durable", "fail-told", "fenced", "stepped-down", scopes=ANY),
    *_cases(SECONDARY, fail_secondary, "fail-durable", "fail-told", scopes=ANY),
    *_cases(PRIMARY, work, "op-applied", "op-enqueued", "op-sent", "op-acknowledged", "sync-done-here", visits=40),
    *_cases(SECONDARY, work, "target-op-applied", "target-sync-done", visits=40),
    *_cases(PRIMARY, touch_cold, "mark-noted", "mark-written", "mark-durable", visits=20),
    *_cases(PRIMARY, work, *_CHECKPOINT, "compaction-written", "compaction-durable"),
    *_cases(SECONDARY, work, "target-checkpoint-synced", "checkpoint-heard", "marks-forgotten", "compaction-written", "compaction-durable"),
    *_cases(PRIMARY, rejoin_idle, "direct-source-recorded", "direct-open-sent", "direct-peer-paired"),
    *_cases(SECONDARY, rejoin_idle, "direct-target-recorded", "direct-paired-sent"),
    *_cases(SECONDARY, add_directory, "add-left", "add-recorded", "add-marked", "add-mounted"),
    *_cases(PRIMARY, add_directory, "add-recorded", "add-marked", "add-mounted"),
    *_cases(SECONDARY, come_back_failed, "new-again-noted", "new-again-recorded", scopes=ALL),
]

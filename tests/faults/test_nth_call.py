"""The N-th system call of a kind fails in one of the two processes, once or from then on; or the process is killed at it.

While an application does a row of operations, or while the secondary is resynced. Whatever happens: nothing hangs, no error becomes a
success, what was acknowledged is there, a copy whose fsync failed is FAILED until it is resynced, and in the end both trees are equal.
What fails on the secondary the application does not see at all.

strace counts the calls of each thread, so that N is the N-th in some thread: the same for the same seed up to who came first.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import re
import time
from dataclasses import dataclass

import pytest

from rfs.errors import SaidNo
from tests.faults.conftest import chosen
from tests.faults.provoke import lose_secondary, needs_strace, strace_options, tracing
from tests.faults.scene import FaultNode, Scene, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(240), needs_strace]

CALLS = {
    "write": "pwrite64", "sync": "fsync,fdatasync", "syncfs": "syncfs", "open": "openat", "make": "mkdirat,symlinkat,linkat",
    "remove": "unlinkat", "rename": "?renameat,renameat2", "handle": "open_by_handle_at,name_to_handle_at",
    "tag": "fsetxattr,fgetxattr", "attributes": "setxattr,?chmod,utimensat,fallocate,ftruncate", "read": "pread64,getdents64",
    "stat": "newfstatat", "link": "sendto,recvfrom", "answer": "writev",
}  # fmt: skip
# An answer that the kernel does not take, and a call that is interrupted for ever, are no faults that exist. What breaks on a socket would
# also break what wakes trio's own loop, and the operator's connection: links are cut elsewhere (tests/cluster).
NO_FAULTS = {"answer": ("error",), "link": ("error=EIO", "error=ENOSPC")}
FAULTS = (
    "error=EIO:when={n}",
    "error=EIO:when={n}+",
    "error=ENOSPC:when={n}",
    "error=ENOSPC:when={n}+",
    "error=EINTR:when={n}",
    "signal=KILL:when={n}",
)
SLICE, MOST_N, OPERATIONS = 8, 8, 64
HANG_S, TOGETHER_S = 40.0, 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """What fails, how, where and when."""

    victim: str
    phase: str
    call: str
    fault: str

    @property
    def name(self) -> str:
        return f"{self.victim}-{self.phase}-{self.call}-{self.fault.replace(':when={n}', '').replace('error=', '')}"


BY_NAME = {
    case.name: case
    for case in itertools.starmap(Case, itertools.product(("primary", "secondary"), ("working", "resync"), CALLS, FAULTS))
    if not case.fault.startswith(NO_FAULTS.get(case.call, "-"))
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case_name" in metafunc.fixturenames:
        metafunc.parametrize("case_name", chosen(metafunc.config, sorted(BY_NAME), SLICE))


def serve_the_application(scene: Scene, primary: FaultNode) -> None:
    """Until it has done its row. The operator lets a primary go on that has lost its peer."""
    deadline = time.monotonic() + HANG_S
    while not scene.application.has_ended():
        assert time.monotonic() < deadline, f"an operation of the application hangs: {scene.told()}"
        if primary.shown().get("needs_grant"):
            try:
                primary.call("promote", granted=True)
            except SaidNo:
                pass
        time.sleep(0.02)


def bring_together(scene: Scene) -> FaultNode | None:
    """What the operator does afterwards. None: no copy is whole any more, which both say."""
    deadline = time.monotonic() + TOGETHER_S
    while (primary := scene.primary()) is None:
        scene.revive()
        shown = [(node, node.shown()) for node in scene.nodes]
        if all(status and status["record"]["data"] in ("FAILED", "INCONSISTENT") for _, status in shown):
            return None
        for node, status in shown:
            if status and status["role"] == "secondary" and status["promotable"]:
                try:
                    node.call("promote", granted=False)
                except SaidNo:
                    pass
        assert time.monotonic() < deadline, f"no pair comes about: {scene.told()}"
        time.sleep(0.05)
    wait_until(lambda: answers(primary), "pyfuse3, which answers what is rare, has been started again")
    return primary


def answers(primary: FaultNode) -> bool:
    try:
        os.listxattr(primary.directories[0])
    except OSError:
        return False
    return True


def check_poison(victim: FaultNode, log_from: int, trace: str, died: bool) -> None:
    """A sync that failed makes the copy FAILED, and FAILED ends in a resync only."""
    log = (victim.state / "rfsmount.log").read_text()[log_from:]
    states = re.findall(r"record number=\d+ data=(\w+)", log)
    for before, after in itertools.pairwise(states):
        assert before != "FAILED" or after in ("FAILED", "INCONSISTENT"), f"{victim.name} was FAILED and became {after}"
    failed_syncs = [line for line in trace.splitlines() if re.search(r"sync(fs)?\(.*INJECTED", line) and "/state/" not in line]
    assert not failed_syncs or "FAILED" in states or died, f"a sync failed and the copy goes on: {failed_syncs[:2]}"


def test_the_nth_call_fails(scene: Scene, case_name: str, dice: random.Random) -> None:
    case = BY_NAME[case_name]
    primary = scene.begin()
    secondary = scene.other(primary)
    scene.application.stop()
    victim = primary if case.victim == "primary" else secondary
    injection = f"{CALLS[case.call]}:{case.fault.format(n=dice.randint(1, MOST_N))}"
    trace = victim.steps.with_suffix(".strace")
    trace.unlink(missing_ok=True)
    if case.phase == "resync":
        lose_secondary(scene, primary, secondary)
        scene.application.start(primary, OPERATIONS)
        serve_the_application(scene, primary)
    log_from, pid = (victim.state / "rfsmount.log").stat().st_size, victim.pid
    if case.phase == "resync" and victim is secondary:
        victim.prefix = ["strace", "-D", *strace_options(injection, trace)]
        victim.run("mount", *map(str, victim.directories), "--role", "secondary", *victim.options, "--timeout", "0.1")
        victim.prefix = []
        scene.application.start(primary, OPERATIONS)
        serve_the_application(scene, primary)
        pid = victim.pid
        wait_until(lambda: not victim.is_alive() or victim.shown().get("code") != "RESYNCING", "the resync ends")
        if victim.is_alive():
            victim.kill()  # with whom the injection ends
    else:
        with tracing(victim.pid, injection, trace):
            if case.phase == "resync":
                secondary.start()
            scene.application.start(primary, OPERATIONS)
            serve_the_application(scene, primary)
    scene.application.process = None
    errors = scene.application.errors()
    assert victim is primary or not errors, f"the application saw what failed on the secondary: {errors}"
    assert str(errno.ENOENT) not in {error.split()[0] for error in errors}
    died = not victim.is_alive() or victim.pid != pid
    together = bring_together(scene)
    check_poison(victim, log_from, trace.read_text() if trace.exists() else "", died)
    if together is None:
        scene.rebuild()
        return
    if victim is primary and errors:  # what was done and undone there has left its time on the directory, which the peer does not know
        os.utime(together.directories[0] / scene.application.below)
        for place in (together.directories[0] / scene.application.below).glob("directory*"):
            os.utime(place)
    scene.check(together)
    scene.application.start(together, OPERATIONS)
    serve_the_application(scene, together)
    scene.check(together)

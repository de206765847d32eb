"""The end of a service that does not end: freeze, kill, abort the mount, and the truth about what is left.

Frozen first, so that nothing forks away or writes half a state while it is killed. SIGKILL ends everything but what waits in the kernel
for an answer that does not come: an operation on the mirrored directory that rfsmount has taken and never answers. Only then is the
mount given up (`abandon`): its connection is aborted, every operation on it fails, and SIGKILL takes effect. What survives that too
waits for a disk; the error names each process and where it stands. Bounded by LONGEST_S.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

from orchestrator.effects import EffectFailed, processes
from orchestrator.effects.processes import Process

STROKE_S = 10.0  # to freeze and to kill; a fraction of a second where nothing is wrong with the machine
KILL_PATIENCE_S = 10.0
ABANDON_S = 10.0  # the mount's own end
LONGEST_S = STROKE_S + 2 * KILL_PATIENCE_S + ABANDON_S
LOOK_AGAIN_S = 0.1
FREEZE_ROUNDS = 10
DESCRIPTIONS_MAX = 4  # threads that may hang at a time

Log = Callable[[str, str], None]


class Members(Protocol):
    """All processes of a service, as far as this machine can tell."""

    async def alive(self) -> list[Process]:
        """Who is there now."""
        ...

    async def freeze(self) -> bool:
        """All at once; False where only signals can."""
        ...

    async def kill(self) -> bool:
        """All at once; False where only signals can."""
        ...


async def end(name: str, members: Members, abandon: Callable[[str], Awaitable[None]], log: Log) -> None:
    """Until nothing is left. EffectFailed, with a sentence about each process, when something survives everything."""
    began = trio.current_time()
    victims = await members.alive()
    if not victims:
        return
    log("service-kill", f"{name}: freezing and killing {_count(victims)}: {_names(victims)}")
    with trio.CancelScope(shield=True, deadline=began + STROKE_S):  # who is frozen must also be killed, whatever is ordered next
        if not await members.freeze():
            victims = await _stop_signal(members)
        await _kill(members)
    if await _ended(members):
        log("service-kill", f"{name}: nothing is left after {trio.current_time() - began:.1f} s")
        return
    stuck = await members.alive()
    limiter = trio.CapacityLimiter(DESCRIPTIONS_MAX)
    described = "; ".join([await _describe(process, limiter) for process in stuck])
    log("service-stuck", f"{name}: {_count(stuck)} survived SIGKILL for {KILL_PATIENCE_S:.0f} s: {described}")
    with trio.move_on_after(ABANDON_S):
        await abandon(f"processes of service {name} hang in it")
    await _kill(members)
    if await _ended(members):
        log("service-kill", f"{name}: nothing is left after {trio.current_time() - began:.1f} s, now that the mount is given up")
        return
    left = "; ".join([await _describe(process, limiter) for process in await members.alive()])
    advice = "they wait for a disk: look at it, or restart the node"
    raise EffectFailed(f"service {name}: processes survive SIGKILL and the end of the mount: {left}; {advice}")


async def _stop_signal(members: Members) -> list[Process]:
    """SIGSTOP for each, and again for who was forked meanwhile, until nobody new is found."""
    stopped: list[Process] = []
    for _ in range(FREEZE_ROUNDS):
        new = [process for process in await members.alive() if process not in stopped]
        if not new:
            break
        for process in new:
            processes.send_signal(process, signal.SIGSTOP)
        stopped += new
    return stopped


async def _kill(members: Members) -> None:
    """Who is killed by signals is looked for again by `_ended`."""
    if not await members.kill():
        for process in await members.alive():
            processes.send_signal(process, signal.SIGKILL)


async def _ended(members: Members) -> bool:
    with trio.move_on_after(KILL_PATIENCE_S):
        while left := await members.alive():
            for process in left:
                processes.send_signal(process, signal.SIGKILL)
            if not await processes.all_dead(left, KILL_PATIENCE_S):
                await trio.sleep(LOOK_AGAIN_S)
        return True
    return not await members.alive()


async def _describe(process: Process, limiter: trio.CapacityLimiter) -> str:
    """In a thread, and not for ever: the kernel may hold back even what it says about a process that hangs."""
    with trio.move_on_after(1.0):
        return await trio.to_thread.run_sync(processes.describe, process, abandon_on_cancel=True, limiter=limiter)
    return f"{process.pid} (cannot even be looked at)"


def _names(victims: Sequence[Process]) -> str:
    shown = ", ".join(f"{process.pid} {processes.name_of(process)}" for process in victims[:8])
    return shown + (" …" if len(victims) > 8 else "")


def _count(victims: Sequence[Process]) -> str:
    return f"{len(victims)} process{'' if len(victims) == 1 else 'es'}"

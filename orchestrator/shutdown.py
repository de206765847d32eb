"""When the whole machine goes down, hactld stops its modules in order before it ends: who serves hands over first, and nobody waits for a
silence. It is no wish of anybody's that they stay stopped, so what is remembered for the next boot stays as it was.

A hactld that is only restarted or upgraded leaves everything as it is. Which of the two it is, systemd knows (`SystemState`); where there
is no systemd it is always the latter. All of it lasts no longer than DEADLINE_S, a minute less than the unit's TimeoutStopSec.
"""

from __future__ import annotations

from collections.abc import Mapping

import trio

from orchestrator.core import events as ev
from orchestrator.core.states import State
from orchestrator.effects import systemd
from orchestrator.effects.notify import History
from orchestrator.effects.systemd import SystemdAway, SystemdRefused
from orchestrator.runner import Runner
from orchestrator.statefile import Memories

ASK_DEADLINE_S = 5.0
DEADLINE_S = 240.0


async def machine_goes_down(bus: str = systemd.SYSTEM_BUS) -> bool:
    """Does systemd stop everything? Who cannot be asked says no."""
    if not systemd.can_be_asked(bus):
        return False
    with trio.move_on_after(ASK_DEADLINE_S):
        try:
            async with systemd.connect(bus) as manager:
                ((_, state),) = await manager.call("Get", "ss", systemd.MANAGER, "SystemState", interface=systemd.PROPERTIES)
                return bool(state == "stopping")
        except (SystemdAway, SystemdRefused):
            return False
    return False


async def stop_modules(runners: Mapping[str, Runner], memories: Memories, history: History) -> None:
    """`runners`: by module. As `hactl stop` of each, all at the same time; returns when all are stopped or the time is over."""
    history.add("", "hactld", f"the machine goes down: stopping {', '.join(runners) or 'nothing'}")
    memories.machine_goes_down = True
    began = trio.current_time()

    async def stop(name: str, runner: Runner) -> None:
        await runner.ask(lambda now, request: ev.Stop(now, name, request))
        while runner.node.modules[name].shown[0] is not State.STOP:
            await runner.changed()

    with trio.move_on_after(DEADLINE_S) as deadline:
        async with trio.open_nursery() as nursery:
            for name, runner in runners.items():
                nursery.start_soon(stop, name, runner)
    left = [name for name, runner in runners.items() if runner.node.modules[name].shown[0] is not State.STOP]
    how = f"not stopped: {', '.join(left)}" if deadline.cancelled_caught else "all stopped"
    history.add("", "hactld", f"{how} after {trio.current_time() - began:.1f} s")

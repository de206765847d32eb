"""Which of the administrator's scripts is due: SafeKit's script points, as a pure function of what holds.

A point is entered by one script and left by another (states.Point). Which points belong to a state is a table, so no order of events can
forget a script: whatever happened, `due` compares what was entered with what should be, and says the next step. It leaves before it enters,
inside out; between the two it announces the new state (the script `transition`).

What waits for what:

    MODULE -> rfsmount -> BOTH -> services -> PRIM            and back: PRIM -> services -> BOTH -> rfsmount -> MODULE
    SECOND is left before the services start: what reads the copy on a secondary may use their port.

A start script that is no longer wanted is cut short by its stop script. When the role is lost already (`urgent`), stop scripts are called
with `force` only, and nothing waits for them.
"""

from __future__ import annotations

from typing import Final

from orchestrator.core.failover_rules import Goal
from orchestrator.core.states import Hold, Level, Module, Move, Point, Script, State

ANNOUNCEMENT: Final = "transition"
BY_STATE: Final[dict[State, frozenset[Point]]] = {
    State.STOP: frozenset(),
    State.WAIT: frozenset(),
    State.ALONE: frozenset({Point.BOTH, Point.SEC}),
    State.PRIM: frozenset({Point.BOTH}),
    State.SECOND: frozenset({Point.BOTH, Point.SECOND, Point.SEC}),
    State.UP: frozenset({Point.BOTH}),
}


def wanted(module: Module, state: State, goal: Goal) -> frozenset[Point]:
    """The points that belong to where the module is and goes."""
    if goal.level is Level.NOTHING:
        return frozenset({Point.MODULE}) if module.holds else frozenset()
    points = BY_STATE[state] | {Point.MODULE}
    if module.services_failed:  # given up: what holds stays, nothing is tried again
        return (points & (module.entered | {Point.MODULE})) - {Point.SEC}
    if goal.level is Level.SERVING:
        points |= {Point.BOTH}
        if not module.restarting and not module.light:
            points |= {Point.PRIM}
    if state is State.ALONE and Point.PRIM not in module.entered & points:
        points -= {Point.SEC}  # inside of PRIM
    return points


def may_enter(module: Module, point: Point) -> bool:
    """Is what comes before it there?"""
    match point:
        case Point.MODULE:
            return True
        case Point.PRIM:
            return Point.BOTH in module.entered and module.services is Hold.ON
        case Point.BOTH:
            return Point.MODULE in module.entered
        case _:
            return Point.BOTH in module.entered


def may_leave(module: Module, point: Point) -> bool:
    """Is what comes after it gone?"""
    match point:
        case Point.MODULE:
            return module.entered == {Point.MODULE} and not module.holds
        case Point.BOTH:
            return module.services is Hold.OFF
        case _:
            return True


def due(module: Module, state: State, goal: Goal) -> Script | None:
    """The next step, or nothing. What runs already is replaced only by what makes it pointless."""
    points, now = wanted(module, state, goal), module.script
    if now is not None and now.point is not None:
        lost = now.point not in points
        if lost and now.entering:
            return Script(now.point, False, state, goal.urgent)
        return Script(now.point, False, state, True) if lost and goal.urgent and not now.force else None
    for point in reversed(Point):
        if point in module.entered - points and may_leave(module, point):
            return Script(point, False, state, goal.urgent)
    if now is not None and (state is now.state or state is module.announced):
        return None  # an announcement holds up no leaving and gives way to a newer one
    if state not in (module.announced, State.STOP):
        return Script(None, True, state)
    for point in Point:
        if point in points - module.entered and may_enter(module, point):
            return Script(point, True, state)
    return None


def name_of(script: Script) -> str:
    """What is executed."""
    if script.point is None:
        return ANNOUNCEMENT
    return script.point.start_script if script.entering else script.point.stop_script


def move_of(module: Module, script: Script) -> Move:
    """What it is told. A module that is going down is told where to: that is what a stop script wants to know."""
    if script.point is None:
        return Move(module.announced.value, script.state.value, action_of(module, entering=not module.swapping))
    if script.entering:
        before = module.came_from if module.announced is script.state else module.announced
        return Move(before.value, script.state.value, action_of(module, entering=True))
    return Move(module.announced.value, destination(module, script.state).value, action_of(module, entering=False))


def destination(module: Module, state: State) -> State:
    """Where a module is going whose points are left."""
    if not module.runs:
        return State.WAIT if module.cycling else State.STOP
    if module.swapping:
        return State.SECOND
    return state


def action_of(module: Module, *, entering: bool) -> str:
    """Why, in SafeKit's words; swap and restart are ours."""
    if module.cycling:
        return "stopstart"
    if not module.wanted:
        return "stop"
    if module.swapping and not entering:  # what is entered begins, whether the peer has answered yet or not
        return "swap"
    if module.restarting:
        return "restart"
    return "start" if entering else "stopwait"

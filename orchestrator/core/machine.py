"""step(node, event) -> (node, actions): everything hactld decides.

A step has three parts, always in this order:

1. *Take note.* `observe` updates what all modules share (time, the peer's silence, ping); the TABLE row of the event, at the
   column of the module's state, says what the event means for the module. The table is total: every pair has its function,
   `ignore` and `refuse` included.
2. *Settle.* Nothing but facts matters now: see which failover rules hold (incidents.py), compare what is held with
   failover_rules.goal and order the next thing. A role is a scope. It is entered rfsmount -> address -> services and left in
   reverse; each rung waits until the one before is there (or gone). If the role is already lost (`urgent`), address and
   services go at once and together.
3. *Say it.* Name the state; tell the peer at once when what we say changed.

Because settling looks at facts and not at the way they came about, a lost event, a command in the middle of a transition,
a peer that comes back during a takeover or a restarted hactld need no code of their own: the next settling finds the right
next action. Two things keep history out: a completion counts only with the ticket of the newest action in its lane, and a
status only with the session of the rfsmount that runs now.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from orchestrator.core import actions as act
from orchestrator.core import events as ev
from orchestrator.core import failover_rules as rules
from orchestrator.core import incidents, points
from orchestrator.core import meanings as on
from orchestrator.core.states import Hold, Lane, Level, Module, Order, Point, State, Summary
from orchestrator.core.turn import FAILED, REFUSED, Node, Turn

# ---- the table --------------------------------------------------------------------------------------------------------

COLUMNS: Final = (State.STOP, State.WAIT, State.ALONE, State.PRIM, State.SECOND, State.UP)
ROWS: Final[dict[type[ev.Event], tuple[on.Handler, ...]]] = {
    #                      STOP                WAIT               ALONE         PRIM          SECOND             UP
    ev.Tick:              (on.look,            on.look,           on.look,      on.look,      on.look,           on.look),
    ev.Heartbeat:         (on.look,            on.look,           on.look,      on.look,      on.look,           on.look),
    ev.PeerTold:          (on.look,            on.look,           on.look,      on.look,      on.look,           on.look),
    ev.PingVerdict:       (on.look,            on.look,           on.look,      on.look,      on.look,           on.look),
    ev.Paused:            (on.ignore,          on.forget,         on.forget,    on.forget,    on.forget,         on.forget),
    ev.Found:             (on.adopt,           on.ignore,         on.ignore,    on.ignore,    on.ignore,         on.ignore),
    ev.Start:             (on.begin,           on.begin,          on.begin,     on.begin,     on.begin,          on.begin),
    ev.Stop:              (on.stopped_already, on.leave,          on.leave,     on.leave,     on.leave,          on.leave),
    ev.StopStart:         (on.begin,           on.cycle,          on.cycle,     on.cycle,     on.cycle,          on.cycle),
    ev.Switch:            (on.switch,          on.switch,         on.switch,    on.switch,    on.switch,         on.switch),
    ev.Count:             (on.count,           on.count,          on.count,     on.count,     on.count,          on.count),
    ev.Restart:           (on.refuse,          on.refuse,         on.restart,   on.restart,   on.refuse,         on.restart),
    ev.Swap:              (on.refuse,          on.swap,           on.swap,      on.swap,      on.refuse,         on.refuse),
    ev.Prim:              (on.claim,           on.claim,          on.insist,    on.insist,    on.claim,          on.refuse),
    ev.Second:            (on.follow,          on.follow,         on.refuse,    on.refuse,    on.already,        on.refuse),
    ev.PeerAskedPromote:  (on.refuse,          on.take_from_peer, on.already,   on.already,   on.take_from_peer, on.refuse),
    ev.PeerAskedOutdate:  (on.refuse,          on.step_aside,     on.refuse,    on.refuse,    on.step_aside,     on.refuse),
    ev.RfsStatus:         (on.ignore,          on.believe,        on.believe,   on.believe,   on.believe,        on.ignore),
    ev.RfsGone:           (on.ignore,          on.bury,           on.bury,      on.bury,      on.bury,           on.ignore),
    ev.ServiceDied:       (on.ignore,          on.mourn,          on.mourn,     on.mourn,     on.mourn,          on.mourn),
    ev.Checked:           (on.ignore,          on.hear_checker,   on.hear_checker, on.hear_checker, on.hear_checker, on.hear_checker),
    ev.AddressLost:       (on.ignore,          on.readdress,      on.readdress, on.readdress, on.readdress,      on.readdress),
    ev.Done:              (on.finish,          on.finish,         on.finish,    on.finish,    on.finish,         on.finish),
    ev.Failed:            (on.fail,            on.fail,           on.fail,      on.fail,      on.fail,           on.fail),
}  # fmt: skip
TABLE: Final = {(state, kind): handler for kind, row in ROWS.items() for state, handler in zip(COLUMNS, row, strict=True)}


# ---- settling ---------------------------------------------------------------------------------------------------------


def settle(turn: Turn) -> None:
    """Order the next thing that brings the module closer to its goal."""
    incidents.settle(turn)
    unwell = turn.module.services_failed or turn.module.barred
    if unwell and turn.module.runs and not turn.module.swapping and rules.may_hand_over(turn.module, turn.around, turn.peer):
        turn.set(swapping=True)
    settle_failback(turn)
    settle_cycle(turn)
    away = turn.module.view is not None and not turn.module.view.leads and not turn.module.unsynced
    if turn.module.swapping and turn.module.order is None and away:
        turn.set(swapping=False)  # the role went another way before it was handed over
    leads = turn.module.view is not None and turn.module.view.leads
    if turn.module.swapping and turn.module.order is None and leads and turn.around.peer_silent:
        turn.set(swapping=False, unsynced=False)  # nobody is there to take it: who waits for permission must be able to get it
    turn.set(current=rules.still_current(turn.module, turn.around, turn.peer))
    goal = rules.goal(turn.module, turn.around, turn.peer)
    if goal is not None:
        settle_scripts(turn, goal)
        settle_services(turn, goal)
    settle_address(turn, goal)
    settle_role(turn, goal)
    if goal is not None:
        settle_rfs(turn, goal)


def settle_failback(turn: Turn) -> None:
    """The role goes to the default primary when that is complete again."""
    if reason := rules.failback(turn.module, turn.around, turn.peer):
        turn.set(swapping=True, failbacks=(*turn.module.failbacks, turn.around.now)[-64:])
        turn.decided("failback", reason)


def settle_cycle(turn: Turn) -> None:
    """Everything is down: up again."""
    module = turn.module
    idle = module.order is None and module.script is None and not module.entered
    if module.cycling and not module.swapping and not module.holds and idle:
        turn.set(cycling=False)


def settle_scripts(turn: Turn, goal: rules.Goal) -> None:
    """One script at a time; what waits for it looks at what was entered."""
    state, _, _ = rules.describe(turn.module, turn.around, turn.peer)
    script = points.due(turn.module, state, goal)
    if script is None or (script.entering and turn.module.waits(Lane.SCRIPTS, turn.around.now)):
        return
    before, module = turn.module.script, turn.module
    if before is not None and before.point is not None and before.entering:
        turn.set(entered=module.entered | {before.point})  # cut short: half entered is to be left as well
    after = turn.module.entered | {script.point} if script.entering else turn.module.entered - {script.point}
    turn.set(script=script)
    entered = frozenset(point for point in after if point is not None)
    turn.order(act.RunScript, script=points.name_of(script), move=points.move_of(module, script), force=script.force, entered=entered)


def settle_services(turn: Turn, goal: rules.Goal) -> None:
    """Services run only above an address, on a primary."""
    module = turn.module
    if module.restarting and module.services is Hold.OFF:
        turn.set(restarting=False)
    should_run = goal.level is Level.SERVING and not module.restarting
    urgent = goal.urgent
    busy = module.script.point if module.script is not None else None
    left = Point.PRIM not in module.entered and busy is not Point.PRIM
    prepared = Point.BOTH in module.entered and Point.SECOND not in module.entered and busy not in (Point.BOTH, Point.SECOND)
    match module.services:
        case Hold.ON | Hold.COMING if not should_run and (urgent or (left and not module.waits(Lane.SERVICES, turn.around.now))):
            turn.set(services=Hold.GOING, urgent=urgent, partial=())
            turn.order(act.StopServices, kill=urgent)
        case Hold.ON if module.partial and should_run:
            turn.set(services=Hold.COMING, partial=())
            incidents.settle_windows(turn)  # now: they may be up again before anything else happens
            turn.order(act.RestartServices, services=module.partial)
        case Hold.GOING if urgent and not module.urgent:
            turn.set(urgent=True)
            turn.order(act.StopServices, kill=True)
        case Hold.OFF if should_run and prepared and module.address is Hold.ON and not module.waits(Lane.SERVICES, turn.around.now):
            turn.set(services=Hold.COMING)
            turn.order(act.StartServices)


def settle_address(turn: Turn, goal: rules.Goal | None) -> None:
    """The address comes before the services and goes after them; a role that is lost loses it at once."""
    module, around = turn.module, turn.around
    waits = module.waits(Lane.ADDRESS, around.now)
    alone_in_the_dark = around.isolated or (module.view is not None and module.view.witness_away)
    cut_off = goal is None and around.peer_silent and alone_in_the_dark  # frozen here, and the peer probably serves by now
    if (goal is not None and goal.level < Level.SERVING) or cut_off:
        may_go = cut_off or module.services is Hold.OFF or (goal is not None and goal.urgent)
        if module.address in (Hold.ON, Hold.COMING) and may_go and not waits:
            turn.set(address=Hold.GOING, handed=False)  # who takes it again takes it from nobody's hands
            turn.order(act.VipDown)
        elif module.address is Hold.ON and not may_go and module.view is not None and module.view.serves and not around.unsure:
            turn.actions.append(act.KeepVip(module.name))  # the services have time to end, and clients until then
    elif goal is not None and module.address is Hold.OFF and not waits:
        turn.set(address=Hold.COMING)
        turn.order(act.VipUp, granted=module.granted, handed=module.handed)
    elif module.address is Hold.ON and (module.light or (not around.unsure and module.view is not None and module.view.leads)):
        turn.actions.append(act.KeepVip(module.name))


def settle_role(turn: Turn, goal: rules.Goal | None) -> None:
    """Promote, demote, grant, fence: one at a time; only a fence interrupts."""
    module, around, peer = turn.module, turn.around, turn.peer
    if rules.outranked(module, around, peer) and module.order is not Order.FENCE and not module.waits(Lane.ROLE, around.now):
        turn.answer_peer(REFUSED, f"{around.node} was just fenced")
        turn.order_role(Order.FENCE, act.FenceRfs, reason=f"{around.peer} is primary under a higher term")
        turn.decided("fence", f"{around.peer} is primary under term {peer.term if peer else 0}")
        return
    if module.order in (Order.ASK_PROMOTE, Order.ASK_OUTDATE) and around.peer_silent:
        turn.set(swapping=False, unsynced=False)
        turn.forget_role()  # nobody is there to answer
    elif module.order is Order.ASK_OUTDATE and not rules.answer_counts(module):
        turn.forget_role()  # the need is gone: an answer that still comes is about another loss
    module = turn.module
    if module.order is None and module.unsynced and module.rfs is Hold.OFF:
        turn.order_role(Order.ASK_PROMOTE, act.AskPeerPromote, force=True)
        return
    if module.order is not None or module.rfs is not Hold.ON or module.waits(Lane.ROLE, around.now):
        return
    if module.swapping and module.view is not None and module.view.leads:
        if goal is not None and module.services is Hold.OFF and module.address is Hold.OFF:
            turn.order_role(Order.DEMOTE, act.DemoteRfs, alone=module.unsynced)
    elif module.recopy and module.view is not None and module.view.serves:
        turn.order_role(Order.RECOPY, act.RecopyRfs)
    elif (promotion := rules.promotion(module, around, peer)) is not None:
        turn.set(granted=promotion.granted, handed=not promotion.granted)
        turn.decided("takeover", promotion.reason)
        turn.actions.append(act.ProbeVip(module.name))
        turn.order_role(Order.PROMOTE, act.PromoteRfs, granted=promotion.granted, force=promotion.force, reason=promotion.reason)
    elif (permission := rules.permission(module, around, peer)) is not None:
        if permission.ask:
            turn.set(asked_under=module.view.generation if module.view else "")
            turn.order_role(Order.ASK_OUTDATE, act.AskPeerOutdate)
        else:
            turn.decided("grant", permission.reason)
            turn.order_role(Order.GRANT, act.GrantRfs, peer_outdated=False, reason=permission.reason)


def settle_rfs(turn: Turn, goal: rules.Goal) -> None:
    """rfsmount is started first and stopped last."""
    module = turn.module
    if module.light or module.waits(Lane.RFS, turn.around.now):
        return
    leaves = module.script is not None and module.script.point is Point.MODULE
    prepared = Point.MODULE in module.entered and not leaves and not module.unsynced
    if module.rfs is Hold.OFF and goal.level >= Level.MOUNTED and prepared:
        if (role := rules.start_role(module, turn.around, turn.peer)) is not None:
            on.start_rfs(turn, role)
        return
    bare = module.services is Hold.OFF and module.address is Hold.OFF and module.order in (None, Order.FENCE)
    bare = bare and module.entered <= {Point.MODULE} and module.script is None
    if module.rfs in (Hold.ON, Hold.COMING) and goal.level is Level.NOTHING and bare:
        turn.set(rfs=Hold.GOING, order=None)
        turn.order(act.StopRfs)


# ---- the step ---------------------------------------------------------------------------------------------------------


def observe(node: Node, event: ev.Event) -> Node:
    """What an event says about the surroundings of all modules."""
    around, detector, peer_modules = replace(node.around, now=max(event.now, node.around.now)), node.detector, node.peer_modules
    match event:
        case ev.Paused():
            detector = detector.thawed(event.now)
            if event.late_s > around.timeout_s - 1.0:  # the peer's patience may have ended; a shorter pause it cannot have noticed
                around = replace(around, long_pause_at=event.now)
            around = replace(around, unsure_until=event.now + around.timeout_s, unsure_after=event.pulses, ping_ok=False)
        case ev.Heartbeat() if detector.accepts(event.network, event.incarnation, event.counter):
            if detector.is_newest(event.incarnation, event.counter):
                peer_modules = event.modules
            detector = detector.heard(event.network, event.incarnation, event.counter, event.echo, event.now)
            answers_us = event.echo > around.unsure_after  # not one that lay in the socket while we stood still
            around = replace(around, peer_heard=True, peer_heard_at=event.now, unsure_until=0.0 if answers_us else around.unsure_until)
        case ev.PeerTold() if event.incarnation == detector.incarnation and detector.is_newest(event.incarnation, event.counter):
            peer_modules = {**peer_modules, **event.modules}
        case ev.PingVerdict():
            since = around.ping_ok_since if around.ping_ok else event.now
            around = replace(around, ping_ok=event.ok, ping_ok_since=since)
    around = replace(around, peer_silent=detector.silent(around.now))
    return replace(node, around=around, detector=detector, peer_modules=peer_modules)


def step(node: Node, event: ev.Event) -> tuple[Node, tuple[act.Action, ...]]:
    """The whole of it."""
    before, node = node, observe(node, event)
    names = [event.module] if isinstance(event, ev.ModuleEvent) else list(node.modules)
    actions: list[act.Action] = []
    for name in names:
        if name not in node.modules:
            assert isinstance(event, ev.Command), f"{type(event).__name__} for the unknown module {name}"
            actions.append(act.Reply(name, event.request, FAILED, f"there is no module {name} on {node.around.node}"))
            continue
        turn = Turn(node.modules[name], node.around, node.peer_modules.get(name), node.tickets)
        TABLE[turn.module.shown[0], type(event)](turn, event)
        settle(turn)
        node = conclude(node, turn)
        actions += turn.actions
        if turn.call_peer:
            actions.append(act.TellPeer(name, call=True))
    if says_otherwise(before, node):
        actions.append(act.TellPeer("", call=False))
    return node, tuple(actions)


def conclude(node: Node, turn: Turn) -> Node:
    """Name the state; write the turn back."""
    state, readiness, reason = rules.describe(turn.module, turn.around, turn.peer)
    if (state, readiness) != turn.module.shown:
        was, was_ready = turn.module.shown
        turn.note("transition", f"from={was.value} {was_ready.value} to={state.value} {readiness.value} cause={reason or '-'}")
        turn.set(shown=(state, readiness), since=turn.around.now)
    if turn.module == node.modules[turn.module.name] and reason == node.reasons.get(turn.module.name):
        return replace(node, tickets=turn.tickets)
    before = node.modules[turn.module.name]
    if before.found and turn.module.memory != before.memory:
        turn.actions.insert(0, act.Remember(turn.module.name, turn.module.memory))
    modules = {**node.modules, turn.module.name: turn.module}
    return replace(node, modules=modules, reasons={**node.reasons, turn.module.name: reason}, tickets=turn.tickets)


def says_otherwise(before: Node, node: Node) -> bool:
    """Is there something that the peer must learn at once? A new reason alone can wait for the next pulse."""
    changed = [name for name, module in node.modules.items() if module is not before.modules[name]]
    return any(said(before.modules[name]) != said(node.modules[name]) for name in changed)


def said(module: Module) -> Summary | None:
    """What the heartbeats say of it, apart from the reason."""
    return rules.summary(module, "") if module.found else None

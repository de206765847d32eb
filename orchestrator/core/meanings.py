"""What each event means for a module: the functions that machine.TABLE points to.

They take note and answer people; ordering the next action is settling's business (machine.settle), with two exceptions where
the next action belongs to the answer itself: what the peer asks for, and what follows from a finished order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.core import actions as act
from orchestrator.core import events as ev
from orchestrator.core import failover_rules as rules
from orchestrator.core import resources
from orchestrator.core.states import Hold, Lane, Order, Point, State, Wish
from orchestrator.core.turn import DONE, FAILED, REFUSED, Turn

Handler = Callable[[Turn, Any], None]


def look(turn: Turn, event: ev.Event) -> None:
    """Nothing new about the module itself: settling looks at the surroundings."""


def ignore(turn: Turn, event: ev.Event) -> None:
    """Means nothing in this state."""


def forget(turn: Turn, event: ev.Paused) -> None:
    """We stood still: ask rfsmount how it is before anything is believed."""
    if turn.module.rfs is Hold.ON:
        turn.set(view=None)
        turn.actions.append(act.RefreshRfs(turn.module.name))
        turn.note("paused", f"this process stood still for {event.late_s:.1f} s; everything is checked again")


def adopt(turn: Turn, event: ev.Found) -> None:
    """hactld starts: take over what is running, disturb nothing."""
    turn.set(found=True, wanted=event.wanted, has_record=event.has_record, holds_files=event.holds_files)
    turn.set(paused=event.paused, led=event.led, boot=event.boot, unchecked=event.unchecked)
    turn.set(entered=event.entered or points_of(turn.module.light, event), announced=event.announced)
    turn.set(services=Hold.ON if event.services_run else Hold.OFF, address=Hold.ON if event.address_held else Hold.OFF)
    if event.rfs_runs:
        start_rfs(turn, "secondary")


def points_of(light: bool, event: ev.Found) -> frozenset[Point]:
    """What runs and has nothing written down was started before scripts were: it is not prepared once more."""
    if event.services_run:
        return frozenset({Point.MODULE, Point.BOTH} | (set() if light else {Point.PRIM}))
    return frozenset({Point.MODULE}) if event.rfs_runs else frozenset()


def begin(turn: Turn, event: ev.Start) -> None:
    """An administrator starts the module: counters begin anew."""
    if event.checker:
        refuse(turn, event)
        return
    already = turn.module.wanted
    want(turn, True)
    turn.reply(event.request, DONE, f"{turn.module.name} is already started" if already else f"{turn.module.name} starts")


def leave(turn: Turn, event: ev.Stop) -> None:
    """Stop; a peer that could serve gets the role first."""
    if not counts(turn, event):
        return
    hand_over = gives_role_away(turn)
    want(turn, False, by=event)
    turn.set(swapping=turn.module.swapping or hand_over, yielded_at=None)
    turn.reply(event.request, DONE, f"{turn.module.name} stops" + (f"; {turn.around.peer} takes over" if hand_over else ""))


def cycle(turn: Turn, event: ev.StopStart) -> None:
    """Down and up again; a peer that could serve gets the role first and keeps it."""
    if event.checker and not turn.module.wanted:
        refuse(turn, event)  # somebody has stopped it: a checker that sees it going down does not bring it up again
        return
    if not counts(turn, event):
        return
    hand_over = gives_role_away(turn)
    want(turn, True, by=event)
    turn.set(cycling=True, swapping=turn.module.swapping or hand_over, yielded_at=None)
    turn.note("stopstart", "everything goes down and comes up again")
    turn.reply(event.request, DONE, f"{turn.module.name} stops and starts" + (f"; {turn.around.peer} takes over" if hand_over else ""))


def gives_role_away(turn: Turn) -> bool:
    """Does what goes down in order leave the role to the peer?"""
    leads = turn.module.view is not None and turn.module.view.leads
    return leads and not turn.module.paused and rules.ready_to_receive(turn.module.view, turn.around, turn.peer)


def switch(turn: Turn, event: ev.Switch) -> None:
    """A maintenance switch; it changes nothing that runs."""
    name, node = turn.module.name, turn.around.node
    match event.switch, event.value:
        case "failover", "off":
            turn.set(paused=True)
            said = f"automatic failover of {name} is paused on {node}"
        case "failover", "on":
            turn.set(paused=False)
            said = f"automatic failover of {name} is armed on {node}"
        case "checkers", "off":
            turn.set(unchecked=True)
            said = f"the checkers of {name} are off on {node}: what they find is noted, and nothing is done about it"
        case "checkers", "on":
            turn.set(unchecked=False)
            said = f"the checkers of {name} are on on {node}"
        case "boot", ("on" | "off" | "auto") as word:
            turn.set(boot=word)
            said = f"at boot {node} " + {"on": f"starts {name}", "off": f"leaves {name} stopped", "auto": f"starts {name} if it ran"}[word]
        case "boot", "config":
            turn.set(boot="")
            said = f"at boot {node} does with {name} what the configuration says"
        case _:
            turn.reply(event.request, REFUSED, f"there is no switch {event.switch} {event.value}")
            return
    turn.note("switch", said)
    turn.reply(event.request, DONE, said)
    if not turn.module.unchecked and turn.module.found_dead:
        act_on_death(turn, turn.module.found_dead)


def stopped_already(turn: Turn, event: ev.Stop) -> None:
    """Nothing runs; make sure that nothing starts."""
    want(turn, False, by=event)
    turn.reply(event.request, DONE, f"{turn.module.name} is already stopped")


def restart(turn: Turn, event: ev.Restart) -> None:
    """Only the services; roles and address stay."""
    if not counts(turn, event):
        return
    if not event.checker:
        turn.set(services_failed=False, restarts=(), problem="", retry_at={})
    turn.set(found_dead="")
    if event.services and turn.module.services is Hold.ON and not turn.module.services_failed:
        turn.set(partial=tuple(dict.fromkeys((*turn.module.partial, *event.services))))
        turn.reply(event.request, DONE, f"{' and '.join(event.services)} of {turn.module.name} restart")
        return
    turn.set(restarting=turn.module.services is not Hold.OFF)
    turn.reply(event.request, DONE, f"the services of {turn.module.name} restart")


def swap(turn: Turn, event: ev.Swap) -> None:
    """Hand the role to a peer that is in sync; by an administrator's explicit word also to one that is not. Also from a primary that shows
    WAIT, because a rule keeps it from serving; who waits for something else has no role to give."""
    if turn.module.view is None or not turn.module.view.leads:
        refuse(turn, event)
        return
    in_sync = rules.ready_to_receive(turn.module.view, turn.around, turn.peer)
    if not in_sync and not (event.nosync and rules.may_swap_unsynced(turn.module, turn.around, turn.peer)):
        peer = turn.around.peer
        reason = f"{peer} cannot serve now" if event.nosync else f"{peer} is not SECOND Ready: swap when 'hactl status' says so"
        turn.reply(event.request, REFUSED, reason)
        return
    if not counts(turn, event):
        return
    if not event.checker:
        turn.set(restarts=(), failbacks=())
    turn.set(swapping=True, unsynced=not in_sync)
    how = "" if in_sync else ", whose copy is not in sync, by an administrator's word"
    turn.note("swap", f"handing over to {turn.around.peer}{how}")
    turn.reply(event.request, DONE, f"{turn.module.name} moves to {turn.around.peer}")


def claim(turn: Turn, event: ev.Prim) -> None:
    """An administrator says: this node has the data."""
    if turn.module.light:
        refuse(turn, event)
        return
    if turn.peer is not None and turn.peer.serves and not turn.around.peer_silent:
        turn.reply(event.request, REFUSED, f"{turn.around.peer} serves {turn.module.name}: use 'hactl swap {turn.module.name}'")
        return
    if turn.module.view is not None and turn.module.view.linked and not turn.module.view.consent:
        turn.reply(event.request, REFUSED, f"the data are linked with {turn.around.peer}: use 'hactl swap {turn.module.name}'")
        return
    if turn.module.barred:
        off = f"'hactl checkers off {turn.module.name}' serves nevertheless"
        turn.reply(event.request, REFUSED, f"{turn.around.node} must not serve {turn.module.name}: {turn.module.barred}; {off}")
        return
    if not event.force and (reason := rules.why_not_by_word(turn.module, turn.around)):
        turn.reply(event.request, REFUSED, reason)
        return
    want(turn, True)
    turn.set(wish=Wish.PRIMARY_FORCE if event.force else Wish.PRIMARY, recopy=event.fullsync)
    turn.note("prim", "an administrator says that this node has the data")
    turn.reply(event.request, DONE, f"{turn.module.name} becomes primary here")


def follow(turn: Turn, event: ev.Second) -> None:
    """An administrator says: the data come from the peer."""
    if turn.module.light:
        refuse(turn, event)
        return
    if turn.module.view is not None and turn.module.view.serves:  # it shows WAIT, because a rule keeps it from serving
        name, node = turn.module.name, turn.around.node
        turn.reply(event.request, REFUSED, f"the data of {name} are taken from {node}: use 'hactl swap {name}'")
        return
    want(turn, True)
    turn.set(wish=Wish.SECONDARY_FULLSYNC if event.fullsync else Wish.SECONDARY)
    turn.reply(event.request, DONE, f"{turn.module.name} becomes secondary here")


def insist(turn: Turn, event: ev.Prim) -> None:
    """A primary that waits for permission gets it by an administrator's word."""
    turn.set(recopy=turn.module.recopy or event.fullsync)
    if turn.module.view is None or turn.module.view.serves:
        if event.fullsync:
            turn.reply(event.request, DONE, f"the whole copy of {turn.around.peer} is compared with {turn.around.node}'s")
        else:
            already(turn, event)
        return
    turn.set(wish=Wish.PRIMARY_FORCE if event.force else Wish.PRIMARY)
    turn.reply(event.request, DONE, f"{turn.module.name} goes on alone by your word")


def refuse(turn: Turn, event: ev.Command) -> None:
    """This command makes no sense in this state."""
    verb = type(event).__name__.lower()
    state = turn.module.shown[0].value
    turn.reply(event.request, REFUSED, f"{turn.module.name} is {state} on {turn.around.node}: '{verb}' is not possible here")


def already(turn: Turn, event: ev.Command) -> None:
    """It is so already."""
    turn.reply(event.request, DONE, f"{turn.module.name} is already {turn.module.shown[0].value} on {turn.around.node}")


def take_from_peer(turn: Turn, event: ev.PeerAskedPromote) -> None:
    """The peer gave the role up for us."""
    view = turn.module.view
    if view is not None and view.serves:
        already(turn, event)
        return
    if view is None or not turn.module.runs or turn.module.swapping or turn.module.order not in (None, Order.PROMOTE):
        turn.reply(event.request, REFUSED, f"{turn.around.node} is not ready to take {turn.module.name}")
        return
    turn.set(asked=(*turn.module.asked, event.request), granted=event.force, handed=not event.force)
    if turn.module.order is None:
        reason = f"{turn.around.peer} handed the role over" + (", whose newer data stay there" if event.force else "")
        turn.order_role(Order.PROMOTE, act.PromoteRfs, granted=event.force, force=event.force, reason=reason)


def step_aside(turn: Turn, event: ev.PeerAskedOutdate) -> None:
    """The peer's primary goes on without us; from then on this copy is old, and says so itself."""
    view = turn.module.view
    if view is None or view.leads or turn.module.order not in (None, Order.OUTDATE):
        turn.reply(event.request, REFUSED, f"{turn.around.node} is primary, becoming primary, or cannot say")
        return
    turn.set(asked=(*turn.module.asked, event.request))
    if turn.module.order is None:
        turn.order_role(Order.OUTDATE, act.OutdateRfs, reason=f"{turn.around.peer} goes on alone")


def believe(turn: Turn, event: ev.RfsStatus) -> None:
    """A status of the rfsmount that runs now."""
    if event.session != turn.module.rfs_session or turn.module.rfs not in (Hold.ON, Hold.COMING):
        return
    before = turn.module.view
    turn.set(view=event.view, yielded_at=None, has_record=True)
    if event.view.serves and not (before and before.serves):
        turn.note("serving", f"rfs serves: mode={event.view.mode} generation={event.view.generation} term={event.view.term}")
        turn.set(led=True)
        if turn.module.wish is not Wish.SECONDARY_FULLSYNC:
            turn.set(wish=None)
    elif before and before.linked and not event.view.linked and not event.view.leads and event.view.complete:
        turn.actions.append(act.ProbeVip(turn.module.name))  # done by the time at which the silence counts
    elif before and before.leads and not event.view.leads and not turn.module.swapping:
        turn.note("role-lost", f"rfs is no longer primary: {event.view.reason or event.view.code}")


def bury(turn: Turn, event: ev.RfsGone) -> None:
    """rfsmount ended without being asked. A primary leaves the role to a peer that can take it, at once."""
    if event.session != turn.module.rfs_session or turn.module.rfs not in (Hold.ON, Hold.COMING):
        return  # of one that was told to end this is no news, also when it comes after the word that it has
    view, peer = turn.module.view, turn.around.peer
    if view is None or not view.leads:
        what_now = ""
    elif turn.module.paused:
        what_now = "; automatic failover is paused: it starts again here"
    elif view.link != "paired":
        what_now = f"; {peer} cannot take over: its copy was not in sync (link {view.link})"
    elif turn.peer is None or not turn.peer.complete or turn.peer.paused or turn.around.peer_silent:
        paused = "is paused" if turn.peer is not None and turn.peer.paused else "does not say that its copy is complete"
        what_now = f"; {peer} cannot take over: it {'is silent' if turn.around.peer_silent else paused}"
    else:
        what_now = f"; {peer} takes over"
        turn.set(yielded_at=turn.around.now)
        turn.call_peer = True
    turn.answer_peer(FAILED, f"rfsmount on {turn.around.node} died")
    turn.set(rfs=Hold.OFF, view=None, order=None, swapping=False, unsynced=False, restarts=(*turn.module.restarts, turn.around.now))
    turn.set(has_record=event.has_record, holds_files=event.holds_files, problem=event.reason)
    turn.note("rfs-gone", event.reason + what_now)


def mourn(turn: Turn, event: ev.ServiceDied) -> None:
    """A service died: start again here while the limit allows, else give the role away or stay and say so."""
    if turn.module.services not in (Hold.ON, Hold.COMING):
        return
    turn.note("service-died", f"{event.service}: {event.reason}")
    if turn.module.restarting or turn.module.swapping or not turn.module.runs:
        return  # they are going down, perhaps by a stop script: one incident is counted once, and an order is none
    problem = f"service {event.service} died: {event.reason}"
    if turn.module.unchecked:
        turn.set(found_dead=problem, problem=f"{problem}; the checkers are off, 'hactl checkers on {turn.module.name}' acts on it")
    else:
        act_on_death(turn, problem, event.service)


def act_on_death(turn: Turn, problem: str, service: str = "") -> None:
    """What died is started again, with everything around it unless it may be alone, while the limit allows."""
    count_service_failure(turn, problem)
    turn.set(found_dead="")
    if turn.module.services is Hold.ON and service in turn.module.alone:
        turn.set(partial=() if turn.module.services_failed else tuple(dict.fromkeys((*turn.module.partial, service))))
    elif turn.module.services is Hold.ON:
        turn.set(restarting=not turn.module.services_failed)
    elif turn.module.services is Hold.COMING:  # it was up, and is dead before the start has ended, which would say that all are up
        turn.order(act.StopServices, kill=True)
        turn.set(services=Hold.GOING, urgent=True)


def hear_checker(turn: Turn, event: ev.Checked) -> None:
    """A verdict on a resource that is looked at. What was seen in an earlier window says nothing about this one."""
    before = turn.module.resources.get(event.resource)
    if before is None or event.window not in (None, before.window):
        return
    now = resources.spoken(before, event.state, event.text, turn.around.now)
    turn.set(resources=resources.with_word(turn.module, event.resource, now))
    if before.state is not now.state:
        turn.note("checked", f"{event.resource} is {event.state.value}" + (f": {event.text}" if event.text else ""))


def readdress(turn: Turn, event: ev.AddressLost) -> None:
    """Somebody took the address away: put it back the careful way."""
    if turn.module.address is Hold.ON:
        turn.note("address-lost", event.reason)
        turn.set(address=Hold.OFF, problem=event.reason, granted=False, handed=False)
        turn.pause(Lane.ADDRESS)


def finish(turn: Turn, event: ev.Done) -> None:
    """An action succeeded."""
    if turn.module.tickets.get(event.lane) != event.ticket:
        return
    match event.lane:
        case Lane.ADDRESS:
            turn.set(address=arrived(turn.module.address), problem="" if turn.module.address is Hold.COMING else turn.module.problem)
        case Lane.SERVICES:
            up = turn.module.services is Hold.COMING
            turn.set(services=arrived(turn.module.services), urgent=False, problem="" if up else turn.module.problem)
            turn.set(found_dead="" if not up else turn.module.found_dead)  # of services that are gone
            turn.note("services", "up" if up else "down")
        case Lane.RFS if turn.module.rfs is Hold.COMING:
            wish, carried = turn.module.wish, turn.module.replacing
            keep = wish in (Wish.PRIMARY, Wish.PRIMARY_FORCE) or (wish is Wish.SECONDARY_FULLSYNC and not carried)
            turn.set(rfs=Hold.ON, problem="", wish=wish if keep else None)
        case Lane.RFS:
            turn.set(rfs=Hold.OFF, view=None)
        case Lane.ROLE:
            finish_role(turn)
        case Lane.SCRIPTS:
            finish_script(turn)


def finish_script(turn: Turn) -> None:
    """A point was entered or left, or a state announced."""
    script = turn.module.script
    assert script is not None, "a script that nobody ordered"
    turn.set(script=None)
    if script.point is None:
        turn.set(announced=script.state, came_from=turn.module.announced)
    elif script.entering:
        turn.set(entered=turn.module.entered | {script.point})
    else:
        turn.set(entered=turn.module.entered - {script.point})
        if script.point is Point.MODULE:
            turn.set(announced=State.STOP)


def finish_role(turn: Turn) -> None:
    """What follows from a finished order in the ROLE lane."""
    order = turn.module.order
    turn.set(order=None, problem="")
    turn.answer_peer(DONE, f"{order.value if order else 'nothing'} done on {turn.around.node}")
    match order:
        case Order.DEMOTE:
            turn.set(led=not turn.module.wanted)  # who is stopped was the last to serve here; who swaps was not
            if not turn.module.unsynced:
                turn.order_role(Order.ASK_PROMOTE, act.AskPeerPromote)
        case Order.ASK_PROMOTE:
            turn.set(swapping=False, unsynced=False)
        case Order.RECOPY:
            turn.set(recopy=False)
        case Order.ASK_OUTDATE if rules.answer_counts(turn.module):
            turn.order_role(Order.GRANT, act.GrantRfs, peer_outdated=True, reason=f"{turn.around.peer} wrote OUTDATED")
        case Order.PROMOTE:
            turn.set(wish=None, decided=("", "", float("-inf")))


def fail(turn: Turn, event: ev.Failed) -> None:
    """An action failed. What was being taken is let go and tried again later; what was being given back is tried again."""
    if turn.module.tickets.get(event.lane) != event.ticket:
        return
    turn.set(problem=event.reason)
    turn.pause(event.lane)
    turn.note("failed", f"lane={event.lane.value} reason={event.reason}")
    match event.lane:
        case Lane.ADDRESS:
            turn.set(address=fell_back(turn.module.address), handed=False)
        case Lane.SERVICES if turn.module.services is Hold.COMING:
            count_service_failure(turn, event.reason)
            turn.order(act.StopServices, kill=True)  # whatever did start
            turn.set(services=Hold.GOING, urgent=True)
        case Lane.SERVICES:
            turn.set(services=fell_back(turn.module.services))
        case Lane.RFS:
            turn.set(rfs=fell_back(turn.module.rfs))
        case Lane.ROLE:
            turn.answer_peer(REFUSED if event.refused else FAILED, event.reason)
            wish = None if turn.module.order is Order.PROMOTE and event.refused else turn.module.wish
            recopy = turn.module.recopy and turn.module.order is not Order.RECOPY
            turn.set(order=None, swapping=False, unsynced=False, wish=wish, recopy=recopy)
        case Lane.SCRIPTS:
            fail_script(turn, event.reason)


def fail_script(turn: Turn, reason: str) -> None:
    """What a failing script means: one that prepares stands in the way of what it prepares, the others are noted."""
    script = turn.module.script
    assert script is not None, "a script that nobody ordered"
    if script.entering and script.point in (Point.MODULE, Point.BOTH):
        turn.set(script=None)  # not entered: it is due once more
    else:
        finish_script(turn)
    if script.entering and script.point in (Point.BOTH, Point.PRIM):
        count_service_failure(turn, reason)
        if script.point is Point.PRIM and not turn.module.services_failed:
            turn.set(restarting=True)  # its stop script, the services, and all of it once more


def want(turn: Turn, wanted: bool, *, by: ev.Command | None = None) -> None:
    """Durable. When a person spoke, all counters begin anew, and what is watched is looked at anew: what was found before somebody came
    and repaired it would only stop it again. A checker resets nothing."""
    turn.set(wanted=wanted, cycling=False, wish=None, recopy=False, found_dead="", retry_at={})
    turn.set(unsynced=turn.module.unsynced and turn.module.swapping)
    if by is None or not by.checker:
        turn.set(restarts=(), failbacks=(), services_failed=False, problem="", resources={}, incidents={})


def counts(turn: Turn, event: ev.Command) -> bool:
    """A checker's command counts as a failure; one too many, and the services are given up here instead (a ready peer takes over)."""
    if not event.checker:
        return True
    verb = type(event).__name__.lower()
    count_service_failure(turn, f"{event.checker} asked for '{verb}'")
    if not turn.module.services_failed:
        turn.note("checker", f"{event.checker} asked for '{verb}'")
        return True
    said = f"{event.checker} asked for '{verb}', after more than {turn.module.max_restarts} failures: {turn.module.name} is given up here"
    turn.note("checker", said)
    turn.reply(event.request, REFUSED, said)
    return False


def count(turn: Turn, event: ev.Count) -> None:
    """A script's own counting: incloop, checkloop, resetloop."""
    name, who = turn.module.name, event.checker or "a script"
    if event.what == "count":
        turn.set(restarts=(*turn.module.restarts, turn.around.now)[-64:])
        turn.note("checker", f"{who} counts a failure")
    elif event.what == "reset":
        turn.set(restarts=())
        turn.note("checker", f"{who} sets the count of failures back")
    recent = rules.recent_restarts(turn.module, turn.around.now)
    limit = rules.too_many_restarts(turn.module, turn.around.now)
    turn.reply(event.request, FAILED if limit else DONE, f"{recent} failures of {name}, {turn.module.max_restarts} are allowed")


def arrived(hold: Hold) -> Hold:
    """COMING has come, GOING is gone."""
    return {Hold.COMING: Hold.ON, Hold.GOING: Hold.OFF}.get(hold, hold)


def fell_back(hold: Hold) -> Hold:
    """What was coming did not come, what was going is still there."""
    return {Hold.COMING: Hold.OFF, Hold.GOING: Hold.ON}.get(hold, hold)


def start_rfs(turn: Turn, role: str) -> None:
    """A new rfsmount, or a new connection to the one that runs: statuses of the old one no longer count."""
    replace_data = turn.module.wish is Wish.SECONDARY_FULLSYNC
    turn.set(rfs=Hold.COMING, rfs_session=turn.module.rfs_session + 1, view=None, replacing=replace_data)
    turn.order(act.StartRfs, session=turn.module.rfs_session, role=role, replace_data=replace_data)


def count_service_failure(turn: Turn, problem: str) -> None:
    """One more failure of the services here."""
    turn.set(restarts=(*turn.module.restarts, turn.around.now)[-64:], problem=problem)
    turn.set(services_failed=rules.too_many_restarts(turn.module, turn.around.now))

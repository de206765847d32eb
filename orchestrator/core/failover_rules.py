"""The questions on which availability and safety hang, each one a pure function.

What is this module's goal here? May this node take the role, may its frozen primary go on alone, is it outranked, may its
rfsmount be started and as what? The answers rest on four kinds of evidence, in this order of trust:

1. our own rfsmount's status (it enforces the record's rules whatever we order);
2. the peer's word (its heartbeats and answers): "my rfsmount is dead", "I wrote OUTDATED", "I demoted, take it";
3. the peer's silence on every network *and* on the data link, which only the stated policy may turn into permission;
4. ping, a hint: a node that reaches none of its ping addresses suspects itself and neither takes over nor goes on alone.

Without a witness nothing here can tell a dead peer from an unreachable one when both still reach their ping addresses. With one nothing
here grants: what is permitted here is to ask it, which rfsmount does, and whatever the policy says both nodes may ask.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core import resources
from orchestrator.core.rules_language import ResourceState
from orchestrator.core.states import Hold, Level, Module, Point, Readiness, RfsView, State, Summary, Surroundings, Wish

FAILBACK_SETTLE_S = 5.0  # how long both must have been well before the role goes back to the default primary
NO_DATA_YET = "no node is known to have the data"
YIELD_PATIENCE_S = 10.0  # how long a node whose rfsmount died leaves the field to the peer before it starts again


@dataclass(frozen=True, slots=True)
class Goal:
    """The level to hold; `urgent`: what must go, goes at once and by force, because the role is lost already."""

    level: Level
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Promotion:
    """Permission to become primary."""

    granted: bool
    reason: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class Permission:
    """A frozen primary may go on alone; or (`ask`) the peer has to be asked to outdate itself first."""

    ask: bool
    reason: str


def goal(module: Module, around: Surroundings, peer: Summary | None) -> Goal | None:
    """The level at which the module belongs now; None: nobody can say, leave everything as it is."""
    if not module.runs and not module.swapping:
        return Goal(Level.NOTHING)
    if module.light:
        return Goal(Level.MOUNTED if module.services_failed or must_not_serve(module) else Level.SERVING)
    if module.unsynced and module.view is not None and not module.view.leads:
        return Goal(Level.NOTHING)  # until the peer has the role: a data side that met it now would settle everything anew
    if module.wish is Wish.SECONDARY_FULLSYNC and module.rfs in (Hold.ON, Hold.GOING):
        return Goal(Level.NOTHING)  # only a new rfsmount can replace the data
    if module.rfs in (Hold.OFF, Hold.GOING):
        return Goal(Level.MOUNTED, urgent=True)
    if module.view is None:
        return None  # connecting, or just thawed: its status will come
    if not module.view.leads:
        return Goal(Level.MOUNTED, urgent=not module.swapping)
    if outranked(module, around, peer):
        return Goal(Level.MOUNTED, urgent=True)
    if module.swapping:
        return Goal(Level.MOUNTED)
    if module.services_failed or must_not_serve(module):
        return Goal(Level.LEADING)
    if not module.view.serves or around.unsure:
        return None
    return Goal(Level.SERVING)


def must_not_serve(module: Module) -> bool:
    """Does a failover rule say so, or is one still to be heard of where nothing is served yet? See incidents.py."""
    return bool(module.barred) or (bool(module.awaited) and module.services is Hold.OFF and module.address is Hold.OFF)


def still_current(module: Module, around: Surroundings, peer: Summary | None) -> bool:
    """Is it certain that the peer has acknowledged nothing without this node since the two were in sync?

    Silence may be turned into permission only by a node that was there all the time. One that was cut off, stood still, or heard
    the peer serve alone has to assume that the peer went on and died later: its copy is old, and old data wait. Being in sync
    again makes it current again.
    """
    view = module.view
    if view is None:
        return module.current
    if view.link == "paired" and (view.complete or view.mode == "paired"):
        return around.now - around.long_pause_at >= around.timeout_s
    if around.now - around.long_pause_at < around.timeout_s or around.isolated:
        return False
    peer_went_on = peer is not None and peer.serves and peer.link == "alone" and not around.peer_silent
    return module.current and not peer_went_on


def may_trust_silence(module: Module, around: Surroundings) -> bool:
    """May this node act on the peer's silence? With a witness whether the peer went on without it is no longer its own guess."""
    return module.current or around.has_witness


def outranked(module: Module, around: Surroundings, peer: Summary | None) -> bool:
    """Does the peer serve, and under a higher term, while our data side has no session in which that was settled?

    One that serves outranks one that is frozen, whatever the terms: every start of a primary raises its term, also of one that
    comes back with old data. A frozen primary that holds nothing but its mount may stay: its data side will meet the peer's."""
    view = module.view
    if view is None or peer is None or around.peer_silent or view.linked or not view.leads or not peer.serves:
        return False
    if not view.serves:
        return module.services is not Hold.OFF or module.address is not Hold.OFF
    return (peer.term, around.peer) > (view.term, around.node)


def promotion(module: Module, around: Surroundings, peer: Summary | None) -> Promotion | None:
    """May a secondary become primary now?"""
    view = module.view
    if view is None or view.serves or not module.runs or module.swapping:
        return None
    peer_serves = peer is not None and peer.serves and not around.peer_silent
    by_word = module.wish in (Wish.PRIMARY, Wish.PRIMARY_FORCE)
    if by_word and not peer_serves and not view.linked:
        return Promotion(granted=True, reason="an administrator said so", force=module.wish is Wish.PRIMARY_FORCE)
    if view.role == "primary" or (module.paused and not by_word):
        return None
    if view.consent and not peer_serves:
        return Promotion(granted=False, reason=f"{around.peer} handed the role over")
    if view.linked or not view.complete or around.unsure or module.paused or must_not_serve(module):
        return None  # (what was handed over is taken even so, and not served: it has to be somewhere)
    if not around.peer_silent:
        if peer is not None and peer.yielded:
            return Promotion(granted=True, reason=f"rfsmount on {around.peer} is dead and will start only as secondary")
        return None
    if around.isolated or (around.policy == "consistency" and not around.has_witness) or not may_trust_silence(module, around):
        return None
    return Promotion(granted=True, reason=f"{around.peer} is silent on every network and on the data link")


def works(module: Module) -> bool:
    """May it serve here, or are services still there, which can end only if their writes do?"""
    return (module.runs and not must_not_serve(module)) or module.services is not Hold.OFF


def permission(module: Module, around: Surroundings, peer: Summary | None) -> Permission | None:
    """May a frozen primary go on alone?"""
    view = module.view
    if view is None or not (view.leads and view.needs_grant) or module.swapping or not works(module) or around.unsure:
        return None
    if around.peer_silent:
        if around.isolated or not may_trust_silence(module, around):
            return None
        return Permission(ask=False, reason=f"{around.peer} is silent on every network and on the data link")
    if not around.peer_heard or (peer is not None and peer.serves):
        return None
    if peer is not None and not peer.rfs_alive:
        if not may_trust_silence(module, around):
            return None  # it may have served alone before it died; once its rfsmount runs, its record tells
        return Permission(ask=False, reason=f"rfsmount on {around.peer} is dead")
    return Permission(ask=True, reason=f"the data link to {around.peer} is lost")


def failback(module: Module, around: Surroundings, peer: Summary | None) -> str:
    """Why the role goes to the peer by itself now; empty: it does not. No more often than services may be restarted: no to and fro."""
    if peer is None or module.paused or peer.paused or module.swapping or not module.runs or module.services_failed or peer.services_failed:
        return ""
    if module.default_primary == around.peer:
        reason = f"{around.peer} is the default primary, and its copy is complete"
    elif module.default_primary == "lastprim" and peer.led:
        reason = f"{around.peer} was primary before it stopped, and its copy is complete"
    else:
        return ""
    well = module.shown == (State.PRIM, Readiness.READY) and around.now - module.since >= FAILBACK_SETTLE_S
    often = sum(1 for at in module.failbacks if around.now - at < module.max_restarts_period_s) >= max(module.max_restarts, 1)
    return reason if well and not often and module.order is None and ready_to_receive(module.view, around, peer) else ""


def answer_counts(module: Module) -> bool:
    """Is the peer's "I wrote OUTDATED" about the loss that we wait for now? Since the question the two may have met again: then the
    answer is history, and believing it would make a fit peer an unfit one. They cannot meet without a resync (the peer was
    OUTDATED), which ends our need or, if that came and went unseen, changed our generation."""
    view = module.view
    return view is not None and view.leads and view.needs_grant and view.generation == module.asked_under


def too_many_restarts(module: Module, now: float) -> bool:
    """More deaths in the period than the administrator allows?"""
    return recent_restarts(module, now) > module.max_restarts


def recent_restarts(module: Module, now: float) -> int:
    """How many in the period."""
    return sum(1 for at in module.restarts if now - at < module.max_restarts_period_s)


def may_swap_unsynced(module: Module, around: Surroundings, peer: Summary | None) -> bool:
    """Could the role be given to a peer whose copy is not in sync, because an administrator wants that?"""
    view = module.view
    if view is None or not view.serves or peer is None or around.peer_silent:
        return False
    return peer.rfs_alive and not peer.serves and not peer.unfit


def start_role(module: Module, around: Surroundings, peer: Summary | None) -> str | None:
    """As what rfsmount may be started now; None: not yet (why_not_started says why)."""
    if why_not_started(module, around, peer):
        return None
    if not module.has_record and module.wish in (Wish.PRIMARY, Wish.PRIMARY_FORCE):
        return "primary"
    return "secondary"


def why_not_started(module: Module, around: Surroundings, peer: Summary | None) -> str:
    """One sentence, or nothing when rfsmount may be started."""
    name, other = module.name, around.peer
    if too_many_restarts(module, around.now):
        return f"rfsmount or the services died more than {module.max_restarts} times; see the log, then 'hactl start {name}'"
    peer_serves = peer is not None and peer.serves and not around.peer_silent
    if module.yielded_at is not None and not peer_serves and around.now - module.yielded_at < YIELD_PATIENCE_S:
        return f"rfsmount died here; {other} is taking over"
    if module.has_record or module.wish in (Wish.PRIMARY, Wish.PRIMARY_FORCE, Wish.SECONDARY_FULLSYNC):
        return ""
    if module.holds_files and (peer_serves or module.wish is Wish.SECONDARY):
        return f"the directories hold files of their own; 'hactl second --fullsync {name}' moves them aside and takes the data of {other}"
    if peer_serves or module.wish is Wish.SECONDARY:
        return ""
    return f"{NO_DATA_YET}; run 'hactl prim {name}' on the node that has them"


def ready_to_receive(view: RfsView | None, around: Surroundings, peer: Summary | None) -> bool:
    """Could the role be handed to the peer right now, in order?"""
    in_sync = view is not None and view.link == "paired" and view.mode == "paired"
    return in_sync and peer is not None and not around.peer_silent and peer.ready_second and not peer.unfit


def may_hand_over(module: Module, around: Surroundings, peer: Summary | None) -> bool:
    """The same, without a person's word."""
    return not why_not_handed_over(module, around, peer)


def why_not_handed_over(module: Module, around: Surroundings, peer: Summary | None) -> str:
    """Why the role is not given to the peer by itself, if this node had to be rid of it; empty: it is."""
    other = around.peer
    if peer is None or around.peer_silent:
        return f"{other} is not heard"
    if module.paused or peer.paused:
        return "automatic failover is paused"
    if peer.services_failed:
        return f"the services failed on {other}"
    if peer.unfit:
        return f"a rule on {other} stands against it"
    return "" if ready_to_receive(module.view, around, peer) else f"{other} is not SECOND Ready"


def describe(module: Module, around: Surroundings, peer: Summary | None) -> tuple[State, Readiness, str]:
    """The words for people: state, readiness, and one sentence unless everything is as it should be."""
    view, held = module.view, module.services is not Hold.OFF or module.address is not Hold.OFF
    if not module.wanted and not module.holds:
        if module.entered or module.script is not None:
            return State.WAIT, Readiness.TRANSIENT, module.problem or "stopping"
        return State.STOP, Readiness.NOT_READY, module.problem
    if module.light:
        return describe_light(module)
    if view is not None and view.leads and (view.serves or held):
        if module.runs and must_not_serve(module) and not held and not module.services_failed:
            return describe_barred(module)
        state = State.PRIM if view.linked else State.ALONE
        return state, *describe_leading(module, around, view, peer)
    if module.rfs is Hold.OFF and module.wanted and not held:
        reason = why_not_started(module, around, peer) or module.problem
        return State.WAIT, Readiness.NOT_READY if reason else Readiness.TRANSIENT, reason or "rfsmount is starting"
    if view is None:
        state = State.ALONE if held and module.rfs is not Hold.OFF else State.WAIT
        return state, Readiness.TRANSIENT, module.problem or "waiting for rfsmount's status"
    if not module.runs or held:
        return State.WAIT, Readiness.TRANSIENT, module.problem or "stopping"
    if view.linked:
        if view.link == "paired" and view.complete:
            if module.barred:
                return describe_barred(module)
            return State.SECOND, Readiness.TRANSIENT if module.awaited else Readiness.READY, awaiting(module) or module.unfit
        return State.SECOND, Readiness.TRANSIENT, view.reason or f"taking over the data of {around.peer}"
    return describe_waiting(module, around, view)


def describe_barred(module: Module) -> tuple[State, Readiness, str]:
    """A node that could serve and must not, by a failover rule; or that has to hear first how a resource is."""
    if module.barred:
        return State.WAIT, Readiness.NOT_READY, module.barred
    return State.WAIT, Readiness.TRANSIENT, awaiting(module)


def awaiting(module: Module) -> str:
    """What a node waits for that has just begun to look; empty: nothing."""
    return f"waiting for the first word about {module.awaited}" if module.awaited else ""


def describe_light(module: Module) -> tuple[State, Readiness, str]:
    """A module without data: it runs, or is on its way."""
    if module.services_failed and module.runs:
        return State.UP, Readiness.NOT_READY, f"{module.problem or 'the services failed'}; 'hactl restart {module.name}' tries again"
    if module.services is Hold.OFF and module.runs and must_not_serve(module):
        return describe_barred(module)
    if module.services is Hold.OFF:
        ready = Readiness.NOT_READY if module.problem and module.runs else Readiness.TRANSIENT
        return State.WAIT, ready, module.problem or ("starting" if module.runs else "stopping")
    whole = module.services is Hold.ON and module.address is Hold.ON and module.runs and not module.restarting and not module.barred
    return State.UP, Readiness.READY if whole else Readiness.TRANSIENT, module.problem or ("" if whole else "on its way")


def describe_leading(module: Module, around: Surroundings, view: RfsView, peer: Summary | None) -> tuple[Readiness, str]:
    """Readiness and reason of a node whose data side is primary."""
    if module.services_failed:
        return Readiness.NOT_READY, f"{module.problem or 'the services failed'}; 'hactl restart {module.name}' tries again"
    if not view.serves:
        waits = f"writes wait for {around.peer} or a permission to go on alone"
        if around.isolated:
            return Readiness.NOT_READY, f"{waits}: no ping address answers here, so this node may be the one that is cut off"
        if not may_trust_silence(module, around) and (around.peer_silent or (peer is not None and not peer.rfs_alive)):
            return (
                Readiness.NOT_READY,
                f"{waits}: {around.peer} may have served meanwhile; {prim_word(module, around, view)} goes on by your word",
            )
        return Readiness.NOT_READY, module.problem or view.reason or waits
    if module.barred:
        return Readiness.TRANSIENT, module.barred
    if module.services is Hold.ON and module.address is Hold.ON and Point.PRIM in module.entered and not module.swapping:
        return Readiness.READY, module.problem or view.reason
    return Readiness.TRANSIENT, module.problem or ("handing over" if module.swapping else "starting" if module.runs else "stopping")


def describe_waiting(module: Module, around: Surroundings, view: RfsView) -> tuple[State, Readiness, str]:
    """A secondary without a session: it waits, and says for what."""
    if module.paused and view.complete and not view.leads and (around.peer_silent or view.consent):
        words = f"{prim_word(module, around, view)} serves by your word, 'hactl resume {module.name}' arms it again"
        return State.WAIT, Readiness.NOT_READY, f"automatic failover is paused: {words}"
    if view.complete and not view.leads and module.barred:
        return describe_barred(module)
    if view.complete and not view.leads and view.link in ("connecting", "handshaking"):
        if around.peer_silent and around.isolated:
            reason = f"{around.peer} is silent, and no ping address answers here: this node may be the one that is cut off"
        elif around.peer_silent and around.policy == "consistency" and not around.has_witness:
            reason = f"{around.peer} is silent and the policy is consistency: 'hactl prim {module.name}' takes over by your word"
        elif around.peer_silent and not may_trust_silence(module, around):
            return State.WAIT, Readiness.NOT_READY, f"{around.peer} may hold newer data; 'hactl prim {module.name}' serves by your word"
        else:
            reason = awaiting(module) or module.problem or f"the data link to {around.peer} is lost"
        return State.SECOND, Readiness.TRANSIENT, reason
    waiting = f"waiting for {around.peer}, which may hold newer data"
    if view.data in ("CONSISTENT", "OUTDATED", "UPTODATE"):
        waiting += f"; {prim_word(module, around, view)} serves from this copy by your word"
    return State.WAIT, Readiness.NOT_READY, module.problem or view.reason or waiting


def why_not_by_word(module: Module, around: Surroundings) -> str:
    """Why an administrator's word without force is not enough for this copy; empty: it is, or rfsmount does not run and cannot say."""
    view = module.view
    if view is None or view.leads or view.complete or (around.has_witness and view.data == "CONSISTENT"):
        return ""
    if view.data == "INCONSISTENT":
        back = f"'hactl prim --force {module.name}' goes back to what was here before, if that was kept"
        return f"the copy on {around.node} is INCONSISTENT: bring {around.peer} back, which has the data, or {back}"
    return f"the copy on {around.node} is {view.data}: {prim_word(module, around, view)} serves it by your word, without what it lacks"


def prim_word(module: Module, around: Surroundings, view: RfsView) -> str:
    """The command that serves from this copy: without a witness rfsmount lets one that was not in sync in this run serve by force only."""
    may_ask = view.complete or (around.has_witness and view.data == "CONSISTENT")
    return f"'hactl prim {'' if may_ask else '--force '}{module.name}'"


def summary(module: Module, reason: str) -> Summary:
    """What the heartbeats say about this module."""
    view = module.view
    return Summary(
        state=module.shown[0],
        readiness=module.shown[1],
        data=view.data if view else "",
        generation=view.generation if view else "",
        role=("primary" if view.leads else "secondary") if view else "",
        term=view.term if view else 0,
        link=view.link if view else "",
        serves=view is not None and view.serves,
        rfs_alive=module.rfs is not Hold.OFF,
        yielded=module.rfs is Hold.OFF and module.yielded_at is not None,
        complete=view is not None and not view.leads and view.complete,
        services_failed=module.services_failed,
        paused=module.paused,
        led=module.led,
        service=module.services.value,
        reason=reason,
        catalogue=resources.catalogue_of(module.watched),
        up=resources.bits(module, ResourceState.UP),
        down=resources.bits(module, ResourceState.DOWN),
        unfit=bool(module.unfit),
    )

"""What a node knows about a module, about its peer and about itself.

All of it is frozen: a step makes a new value. Three words that look alike are kept apart:

- *state* (STOP WAIT ALONE PRIM SECOND) is what people read. It is computed from the rest, never stored as a wish.
- *hold* (OFF COMING ON GOING) says where one of the things that a role is made of (rfsmount, address, services) stands.
- *goal* is the level at which the module should be held, computed anew after every event (failover_rules.goal).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Literal

from orchestrator.core.rules_language import ResourceState, Rule


class State(Enum):
    """SafeKit's words; its users know them."""

    STOP = "STOP"
    WAIT = "WAIT"
    ALONE = "ALONE"
    PRIM = "PRIM"
    SECOND = "SECOND"
    UP = "UP"  # a light module that runs


class Readiness(Enum):
    """Blocked or stopped; on the way; stable."""

    NOT_READY = "NotReady"
    TRANSIENT = "Transient"
    READY = "Ready"


class Hold(Enum):
    """Where one thing that a role is made of stands."""

    OFF = "off"
    COMING = "coming"
    ON = "on"
    GOING = "going"


class Level(IntEnum):
    """How far up a module should be held; each level includes the ones below."""

    NOTHING = 0  # rfsmount does not run
    MOUNTED = 1  # rfsmount runs, as secondary or waiting
    LEADING = 2  # the data side is primary, but no address and no services (they failed too often)
    SERVING = 3  # address and services as well


class Lane(Enum):
    """Actions of one lane never overlap: a newer one replaces the older. Completions of a replaced one are ignored."""

    RFS = "rfs"
    ROLE = "role"
    ADDRESS = "address"
    SERVICES = "services"
    SCRIPTS = "scripts"


class Point(Enum):
    """What the administrator's scripts accompany: each is entered by its start script and left by its stop script. In the order in which
    they are entered; the services come between BOTH and PRIM, rfsmount between MODULE and BOTH."""

    MODULE = "module"  # from prestart to poststop
    BOTH = "both"  # PRIM, ALONE, SECOND, UP
    PRIM = "prim"  # PRIM, ALONE
    SECOND = "second"  # SECOND
    SEC = "sec"  # SECOND, ALONE

    @property
    def start_script(self) -> str:
        """What is run when it is entered."""
        return "prestart" if self is Point.MODULE else f"start_{self.value}"

    @property
    def stop_script(self) -> str:
        """What is run when it is left."""
        return "poststop" if self is Point.MODULE else f"stop_{self.value}"


@dataclass(frozen=True, slots=True)
class Script:
    """What runs in the SCRIPTS lane: a point that is entered or left; no point: the transition is announced to `state`."""

    point: Point | None
    entering: bool
    state: State
    force: bool = False  # a stop script that is not asked, only told


@dataclass(frozen=True, slots=True)
class Move:
    """What scripts are told, as SafeKit's are: the state now, the next one, and why (start, stop, stopstart, stopwait, swap, restart)."""

    current: str = ""
    next: str = ""
    action: str = ""


class Order(Enum):
    """What is under way in the ROLE lane."""

    PROMOTE = "promote"
    DEMOTE = "demote"
    GRANT = "grant"
    OUTDATE = "outdate"
    FENCE = "fence"
    RECOPY = "recopy"
    ASK_PROMOTE = "ask-promote"  # the peer is asked to promote
    ASK_OUTDATE = "ask-outdate"  # the peer is asked to write OUTDATED


class Wish(Enum):
    """An administrator's word that is still to be carried out."""

    PRIMARY = "primary"
    PRIMARY_FORCE = "primary --force"
    SECONDARY = "secondary"
    SECONDARY_FULLSYNC = "secondary --fullsync"


SERVING_MODES = frozenset({"unused", "alone", "resyncing", "paired"})


@dataclass(frozen=True, slots=True)
class RfsView:
    """The part of rfsmount's status that decisions use. Always a whole status: consumers are level-triggered."""

    role: Literal["primary", "secondary"] = "secondary"
    link: str = "connecting"
    mode: str = "idle"
    data: str = "INCONSISTENT"
    generation: str = "0"
    term: int = 0
    code: str = "CONNECTING"
    reason: str = ""
    needs_grant: bool = False
    consent: bool = False  # the peer demoted itself and agrees that we promote
    witness_away: bool = False  # there is one, and it does not answer
    resync: Mapping[str, object] | None = None

    @property
    def linked(self) -> bool:
        """A session with the peer's rfsmount is up."""
        return self.link in ("paired", "resyncing")

    @property
    def leads(self) -> bool:
        """The data side is primary here, perhaps frozen. (A record may say primary while the engine is not.)"""
        return self.role == "primary" and (self.mode == "frozen" or self.mode in SERVING_MODES)

    @property
    def serves(self) -> bool:
        """Writes are acknowledged here."""
        return self.leads and self.mode in SERVING_MODES

    @property
    def complete(self) -> bool:
        """This copy was in sync in this run of rfsmount, so it may serve when the peer is gone."""
        return self.data == "UPTODATE"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a node says about a module in every heartbeat."""

    state: State = State.STOP
    readiness: Readiness = Readiness.NOT_READY
    data: str = ""
    generation: str = ""
    role: str = ""
    term: int = 0
    link: str = ""
    serves: bool = False  # its data side acknowledges writes: primary, and not frozen
    rfs_alive: bool = False
    yielded: bool = False  # my rfsmount is dead and will start only as secondary: take over
    complete: bool = False  # my copy was in sync in this run and is not outdated: I could take over
    services_failed: bool = False  # do not hand over to me: the services failed here
    paused: bool = False  # no automatic failover here
    led: bool = False  # I served before I stopped or died
    service: str = "off"
    reason: str = ""
    catalogue: int = 0  # which resources `up` and `down` speak of, a bit each in the order of their names; 0: it does not say
    up: int = 0
    down: int = 0
    unfit: bool = False  # a rule of mine says that I should not serve: do not hand over to me

    @property
    def ready_second(self) -> bool:
        """That node could serve right now."""
        return self.state is State.SECOND and self.readiness is Readiness.READY


@dataclass(frozen=True, slots=True)
class Memory:
    """What of a module outlives hactld and the machine's boots."""

    wanted: bool = False
    paused: bool = False
    led: bool = False
    boot: str = ""
    unchecked: bool = False


@dataclass(frozen=True, slots=True)
class Resource:
    """What is known of something that a checker watches. It is there from the opening of the checker's window to its end (resources.py);
    `window`: which opening that was, so that a word of an earlier one is not believed."""

    state: ResourceState = ResourceState.INIT
    text: str = ""
    since: float = 0.0
    window: int = 0


@dataclass(frozen=True, slots=True)
class Incident:
    """A rule that holds, and has since then without a break; `acted`: what follows from it was ordered."""

    since: float
    acted: bool = False


@dataclass(frozen=True, slots=True)
class Module:
    """One module on this node."""

    name: str
    light: bool = False  # no data, no roles, no peer: services and scripts that run here or do not
    max_restarts: int = 3
    max_restarts_period_s: float = 86400.0
    default_primary: str = "alone"  # alone: whoever serves; lastprim: who served before it stopped; or a node's name
    rules: tuple[Rule, ...] = ()
    watched: Mapping[str, str] = field(default_factory=dict)  # resource -> in which states of the module its checker looks (`when`)
    alone: frozenset[str] = frozenset()  # services of which only the one that died is started again
    # What people asked for.
    wanted: bool = False
    cycling: bool = False  # it goes down as if stopped, and comes up again by itself
    wish: Wish | None = None
    paused: bool = False  # no automatic failover: the role moves by an administrator's word only
    boot: str = ""  # on, off, auto: an administrator's word instead of the configuration's
    led: bool = False  # this node served when it last ended or was stopped; a swap ends that
    unchecked: bool = False  # what the checkers find is noted and not acted on
    found_dead: str = ""  # what they found meanwhile: it counts as soon as they are on again
    # What was found running when hactld started, and what the disk says (Found, and again whenever rfsmount ends).
    found: bool = False
    has_record: bool = False
    holds_files: bool = False
    # What this node holds of the role.
    rfs: Hold = Hold.OFF
    replacing: bool = False  # the last start told rfsmount to replace the data
    rfs_session: int = 0  # counts rfsmount processes and connections: a status of an older one is not believed
    view: RfsView | None = None
    address: Hold = Hold.OFF
    services: Hold = Hold.OFF
    order: Order | None = None
    entered: frozenset[Point] = frozenset()
    script: Script | None = None  # what runs in the SCRIPTS lane
    announced: State = State.STOP  # the last state that the transition script was told
    came_from: State = State.STOP  # the one before it
    tickets: Mapping[Lane, int] = field(default_factory=dict)
    urgent: bool = False  # the services were told to die, not to stop
    asked_under: str = ""  # our generation when the peer was asked to outdate itself: see failover_rules.answer_counts
    asked: tuple[int, ...] = ()  # requests of the peer that wait for the order under way
    granted: bool = False  # the last promotion was a takeover: an answer of the peer's machine to our probe is overridden
    handed: bool = False  # the peer gave the role, and before it the address, in order
    # Why it is where it is.
    current: bool = False  # nothing can have been acknowledged without us since the pair was in sync: see failover_rules.still_current
    swapping: bool = False  # giving the role to the peer in order
    unsynced: bool = False  # the same though its copy is not in sync: our rfsmount is away until the peer has it
    recopy: bool = False  # once this node serves, the peer's copy is to be compared as a whole
    yielded_at: float | None = None  # our rfsmount died as primary and the peer was told to take over
    restarting: bool = False  # services go down to come up again
    partial: tuple[str, ...] = ()  # only these of them
    restarts: tuple[float, ...] = ()
    failbacks: tuple[float, ...] = ()  # when the role was given back to the default primary
    services_failed: bool = False
    retry_at: Mapping[Lane, float] = field(default_factory=dict)
    # What the checkers found, and what follows from it (resources.py, incidents.py).
    resources: Mapping[str, Resource] = field(default_factory=dict)
    windows: int = 0  # counts their openings
    incidents: Mapping[str, Incident] = field(default_factory=dict)  # by the rule's name
    barred: str = ""  # a rule says that this node must not serve: why
    awaited: str = ""  # the resource on which such a rule waits for its first word: what does not serve yet waits as well
    unfit: str = ""  # why the peer should not hand over to this node
    decided: tuple[str, str, float] = ("", "", float("-inf"))  # kind, text and time of the last decision that was told
    problem: str = ""  # the last failure, one sentence, shown until something succeeds
    since: float = 0.0  # when (state, readiness) last changed
    shown: tuple[State, Readiness] = (State.STOP, Readiness.NOT_READY)

    @property
    def runs(self) -> bool:
        """Should it be up now?"""
        return self.wanted and not self.cycling

    @property
    def memory(self) -> Memory:
        """What is written down of it."""
        return Memory(self.wanted, self.paused, self.led, self.boot, self.unchecked)

    @property
    def holds(self) -> bool:
        """Is there anything of it?"""
        return self.rfs is not Hold.OFF or self.services is not Hold.OFF or self.address is not Hold.OFF

    def waits(self, lane: Lane, now: float) -> bool:
        """Is this lane in its pause after a failure?"""
        return now < self.retry_at.get(lane, now)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is true for all modules of this node."""

    node: str
    peer: str
    policy: Literal["availability", "consistency"] = "availability"
    timeout_s: float = 3.0
    has_ping: bool = False
    has_witness: bool = False  # grants are the witness's: what is decided here is only whether to ask
    now: float = 0.0
    peer_silent: bool = False  # nothing heard on any network for timeout_s
    peer_heard: bool = False  # ever, since this hactld started
    peer_heard_at: float = 0.0  # the last time
    ping_ok: bool = False
    ping_ok_since: float = 0.0
    long_pause_at: float = float("-inf")  # when this process last stood still for so long that the peer may have acted on it
    unsure_after: int = 0  # our newest heartbeat counter at that pause
    unsure_until: float = 0.0  # after a pause of this process: nothing is climbed before this, or before the peer is heard

    @property
    def unsure(self) -> bool:
        """This process stood still a moment ago: what it knows may be history."""
        return self.now < self.unsure_until

    @property
    def isolated(self) -> bool:
        """Ping addresses are given and none answers: this node is probably the one that was cut off. When one answers again, the
        peer gets as long as its silence must last to be heard before we trust that silence: its voice may come later than the ping.
        (Unless it was heard since then: the silence began while everything answered.)"""
        settling = self.now - self.ping_ok_since < self.timeout_s and self.ping_ok_since > self.peer_heard_at
        return self.has_ping and (not self.ping_ok or settling)

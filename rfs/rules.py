"""Every durable transition of a record, as a pure function (docs/protocol.md §2, §4, §6).

The callers do: `record = await commit(rules.x(record, ...))`, durably, before anything that relies on it. A transition that the rules
forbid returns a Refusal, whose sentence is for the person who asked. What must hold in any case is asserted.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rfs.record import DataState, Record, Role
from rfs.witness import abandoned, merged, shortened, still_needed


@dataclass(frozen=True, slots=True)
class Identity:
    """This run of this process on this machine."""

    boot: str
    incarnation: int
    backing: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Forbidden, and why."""

    reason: str


# ---- first records ----------------------------------------------------------------------------------------------------------------------


def first_primary(*, cluster: str, module: str, node: str, node_id: int, generation: int, identity: Identity) -> Record:
    """§1: by the explicit word "this node has the data"."""
    return Record(
        cluster=cluster, module=module, node=node, node_id=node_id, generation=generation, data=DataState.UPTODATE, role=Role.PRIMARY,
        clean=False, used=True, peer_may_fit=False, node_bit=0,
        boot=identity.boot, incarnation=identity.incarnation, backing=identity.backing,
    )  # fmt: skip


def first_secondary(*, cluster: str, module: str, node: str, node_id: int, generation: int = 0, identity: Identity) -> Record:
    """§1: generation 0, the ancestor of all; INCONSISTENT, so never a source."""
    del generation
    return Record(
        cluster=cluster, module=module, node=node, node_id=node_id,
        boot=identity.boot, incarnation=identity.incarnation, backing=identity.backing,
    )  # fmt: skip


# ---- starting and ending ----------------------------------------------------------------------------------------------------------------


def start(record: Record, identity: Identity) -> Record:
    """§1 *rewound*: this boot is not the one in which the copy was last written, and it did not end in order."""
    lost_memory = record.boot != identity.boot and not record.clean
    return replace(record, rewound=record.rewound or lost_memory, running=False)


def start_primary(record: Record, peer_term: int, identity: Identity) -> Record:
    """§1: the term is raised at every start of a primary. clean = 0 is durable before the first op."""
    return replace(
        record, term=max(record.term, peer_term) + 1, owner=record.node_id, role=Role.PRIMARY, running=True, clean=False,
        boot=identity.boot, incarnation=identity.incarnation, backing=identity.backing,
    )  # fmt: skip


def on_more_disks(record: Record, identity: Identity) -> Record:
    """A directory was added: what the copy lies on now."""
    return replace(record, backing=identity.backing)


def same_disks(then: str, now: str) -> bool:
    """Do those directories that were there then lie on what they lay on? A directory more or less is none of them."""
    shared = min(then.count(","), now.count(",")) + 1
    return then.split(",")[:shared] == now.split(",")[:shared]


def end(record: Record) -> Record:
    """After all data is durable. A rewound copy stays rewound."""
    return replace(record, clean=True, running=False)


def fail(record: Record) -> Record:
    """§5: this copy's disk lied. Nothing but a resync makes it whole again."""
    return replace(record, data=DataState.FAILED)


# ---- going on alone ----------------------------------------------------------------------------------------------------------------------


def may_acknowledge_mirrored(*, same_session: bool, same_generation: bool, peer_applied: bool) -> bool:
    """§2.1."""
    return same_session and same_generation and peer_applied


def may_acknowledge_alone(record: Record, *, granted: bool, mark_durable: bool) -> bool:
    """§2.2: (i) the mark, (ii) the peer unfit or a grant, (iii) a name the peer's record cannot carry, (iv) used."""
    fit = record.data is DataState.UPTODATE and record.role is Role.PRIMARY
    return fit and mark_durable and (granted or not record.peer_may_fit) and not record.shared and record.used


def may_clear_mark(*, target_acknowledged: bool, checkpointed_here: bool, checkpointed_there: bool, touched_since: bool) -> bool:
    """Invariant 4: a mark goes after the target's answer, and for good only at a checkpoint of both. No handshake clears one."""
    return target_acknowledged and checkpointed_here and checkpointed_there and not touched_since


def _mint(record: Record, name: int) -> Record:
    assert name and name not in record.lineage, "a generation's name is new"
    history = record.lineage if record.generation else ()
    history, base = shortened(history, record.base, record.tried)  # a holder of what is forgotten is compared in full, or is a stranger
    # A tried name is never forgotten before the lineage forgets it: it would look abandoned (witness.abandoned).
    tried = tuple(old for old in record.tried if old in history or old not in record.lineage or old == name)
    return replace(record, generation=name, history=history, base=base, tried=tried, shared=False, peer_has=False)


def go_alone(record: Record, name: int, *, granted: bool, op_waiting: bool) -> Record | Refusal:
    """§2.2, §6: a primary goes on without its peer. A grant is a new name; a peer known to be unfit needs none.

    From a witness the name is the one that was won: the register holds it, so no name that was tried before can ever win any more."""
    if record.data is not DataState.UPTODATE:
        return Refusal(f"this copy is {record.data.name}: it cannot serve")
    if record.role is not Role.PRIMARY:
        return Refusal("only a primary goes on alone")
    if record.peer_may_fit and not granted:
        return Refusal("the peer's copy may be as good as this one: a grant is needed to go on without it")
    if record.peer_may_fit:
        used = (record.used and not record.peer_has) or op_waiting  # §1 used: 0 only if the peer has adopted all there was
        minted = _mint(record, name)
        return replace(minted, peer_may_fit=False, rewound=False, used=used, tried=still_needed(minted.tried, name))
    if record.shared:
        return replace(_mint(record, name), used=True)
    return replace(record, used=record.used or op_waiting)


def try_name(record: Record, name: int, held: int) -> Record:
    """§6.2, durable before the request. `held` is what the register was seen to hold: the request starts from it, so this node has to know
    it for as long as the register may hold it, also when its history no longer names it."""
    known = record.tried if held in record.tried or held not in record.lineage else (held, *record.tried)
    return replace(record, tried=merged(still_needed(known, held), (name,)), armed=True)


def arm(record: Record) -> Record:
    """§1 armed: from here on an absent register is one that has lost its memory, and is never created again without a person's word."""
    return replace(record, armed=True)


def try_own_name(record: Record) -> Record:
    """The register is about to be created, or written over, with this node's generation: durable before the request."""
    return replace(record, tried=merged(record.tried, (record.generation,)))


def use(record: Record) -> Record:
    """§2.2(iv), durable before the first lone acknowledgement."""
    return replace(record, used=True)


def force(record: Record, name: int, *, restored: bool = False) -> Record | Refusal:
    """§6.5: the administrator's word. A new name; what it displaces is kept. Never a copy that is not whole.

    `restored`: what a resync had overwritten was put back, durably, so the data is again what this record's lineage names (and what the
    target had given up of its own, which nobody ever acknowledged). The name is new: it claims nothing of what the source has."""
    inside_resync = record.data is DataState.INCONSISTENT and not restored
    if inside_resync or record.data is DataState.FAILED or not record.generation:
        why = "stopped inside a resync, or its disk failed"
        return Refusal(f"this copy is {record.data.name} ({why}): it cannot be promoted, not even by force")
    return replace(_mint(record, name), data=DataState.UPTODATE, rewound=False, peer_may_fit=False, used=True)


# ---- sessions ----------------------------------------------------------------------------------------------------------------------------


def enter_session(record: Record, identity: Identity, peer: Record, *, source: bool) -> Record:
    """§4.1: boot is renewed before the first acknowledgement of the session; rewound is sticky. A source counts as used (§1).

    A source's term is never behind the target's: a term that went down again would name other files with the same ids. A source that had
    left in order (§3.2, its peer lost power before it knew) is whole again from here on: a session that ends after the target wrote
    INCONSISTENT must leave a source.
    """
    if source and peer.term > record.term:
        record = replace(record, term=peer.term + 1, owner=record.node_id)
    if source and record.data is DataState.OUTDATED:
        record = replace(record, data=DataState.UPTODATE)
    # What is confirmed never goes down: a record that was set back is recognised until its copy is whole again.
    confirmed = max(record.peer_confirmed_number, peer.number) if record.peer_id == peer.node_id else peer.number
    return replace(
        learn_names(record, peer), boot=identity.boot, incarnation=identity.incarnation, backing=identity.backing, clean=False,
        used=record.used or source, peer_id=peer.node_id, peer_confirmed_number=confirmed, peer_confirmed_seq=0,
    )  # fmt: skip


def learn_names(record: Record, peer: Record) -> Record:
    """§6.2: what the peer has tried and given up, this node may start from too; and the register exists if the peer says so.

    Sound whenever the peer's record was written under its lock: it asks for no name while it is in a handshake or a session."""
    return replace(record, tried=merged(record.tried, abandoned(peer)), armed=record.armed or peer.armed)


def learn_term(record: Record, term: int, owner: int) -> Record:
    """A promotion is known, durably, on every node that can be reached."""
    return replace(record, term=term, owner=owner) if term > record.term else record


def new_again(record: Record) -> Record:
    """§3.0: a copy that is to be compared in full, before anything else is written: if that is cut off, the next one is a full compare too.

    By its number alone it would be told only until it has counted past what its peer has seen.
    """
    return target_begins(record, 0)


def learn_given_up(record: Record, names: Iterable[int]) -> Record:
    """§6.2, the source, once its target has durably given up what it does not share: those names may be in the register. Not before: they
    might be granted still."""
    return replace(record, tried=merged(record.tried, [name for name in names if name and name not in record.lineage]))


def source_begins(record: Record, name: int) -> Record:
    """§4.4, after the target's INCONSISTENT is durable and confirmed: the peer is unfit. Lone acknowledgements follow, so §2.2(iii)."""
    assert record.data is DataState.UPTODATE, "never from a copy that is not whole"
    # Rewound no more: what it may have lost is nowhere else now, and from END on it holds what a target that loses power does not.
    begun = replace(record, peer_may_fit=False, used=True, rewound=False)
    return replace(_mint(begun, name), used=True) if record.shared else begun


def target_begins(record: Record, fork_point: int | None) -> Record:
    """§4.4: durable before any frame of the session. A void generation is given up in the same write (§3.4)."""
    begun = replace(record, data=DataState.INCONSISTENT, role=Role.SECONDARY, running=False, clean=False, peer_may_fit=True)
    if fork_point is None or fork_point == record.generation:
        return begun
    names = (0, *record.history)
    history = record.history[: record.history.index(fork_point)] if fork_point in record.history else ()
    base = record.base if record.base in names[: names.index(fork_point) + 1] else fork_point
    return replace(begun, generation=fork_point, history=history, base=base)


def source_before_end(record: Record) -> Record:
    """§4.6, durable before END leaves: from here on the peer may be fit under this name."""
    assert record.data is DataState.UPTODATE
    return replace(record, peer_may_fit=True, shared=True)


def target_adopts(record: Record, source: Record, session: int) -> Record:
    """§4.6, one write, after everything is durable here."""
    assert record.data is DataState.INCONSISTENT, "only a target adopts"
    return replace(
        record, generation=source.generation, history=source.history, base=source.base, term=source.term, owner=source.owner,
        data=DataState.UPTODATE, role=Role.SECONDARY, rewound=False, used=True, peer_may_fit=True, shared=True, peer_has=True,
        session=session, peer_id=source.node_id, peer_confirmed_number=source.number, node_bit=1 - source.node_bit,
        number=max(record.number, source.peer_confirmed_number),  # counted on from there: it is not set back any more
        tried=_adopted_names(record, source), armed=record.armed or source.armed,
    )  # fmt: skip


def _adopted_names(record: Record, source: Record) -> tuple[int, ...]:
    """A name of this node's lineage that the source's no longer has was forgotten there: here it must not look abandoned."""
    mine = tuple(name for name in record.tried if name not in record.lineage or name in source.lineage)
    return merged(source.tried, mine)  # the source's order: what was asked for from a name stands after it (witness.still_needed)


def source_after_end(record: Record, session: int) -> Record:
    """§4.6: the target has adopted."""
    assert record.peer_may_fit and record.shared
    return replace(record, peer_has=True, rewound=False, session=session)


def pair_directly(record: Record, session: int) -> Record:
    """§4.2: same generation, both whole, and nothing marked on either side."""
    assert record.data in (DataState.UPTODATE, DataState.OUTDATED), "never a copy that is not whole"
    return replace(
        record, data=DataState.UPTODATE, peer_has=True, peer_may_fit=True, shared=True, rewound=False, session=session
    )  # fmt: skip


def may_pair_directly(a: Record, b: Record, *, nothing_marked: bool) -> bool:
    """§4.2: one generation, both whole (neither has even left), and the union of both nodes' marks is empty: there is nothing to resync.

    A rewound copy is no exception: what it may have lost is marked on whichever of the two was primary then.
    """
    return nothing_marked and a.generation == b.generation and a.data is b.data is DataState.UPTODATE


# ---- checkpoints -------------------------------------------------------------------------------------------------------------------------


def synced_for_checkpoint(record: Record, applied_seq: int) -> Record:
    """§5, the peer's part after its sync: a new number if it has applied anything, so that a snapshot of before is told from it (§3.0)."""
    return replace(record, applied_seq=applied_seq)


def checkpoint(record: Record, *, peer_number: int = 0) -> Record:
    """§5, durable before the first mark is dropped: the marks cover a holder of this generation, and of no older one any more; and of the
    peer's records none that is older than the one it wrote after its sync."""
    assert record.data is DataState.UPTODATE and record.peer_has, "a checkpoint is of two whole copies"
    return replace(record, base=record.generation, peer_confirmed_number=max(record.peer_confirmed_number, peer_number))


def hear_checkpoint(record: Record, *, session: int, term: int, in_session: int, peer_number: int = 0) -> Record | Refusal:
    """§5, the peer's part, before it drops its own marks. A DROP is valid only in its session and term."""
    if session != in_session or term != record.term or record.data is not DataState.UPTODATE or record.role is not Role.SECONDARY:
        return Refusal("a checkpoint of another session, term or role")
    return replace(record, base=record.generation, peer_confirmed_number=max(record.peer_confirmed_number, peer_number))


def may_resume_link(source: Record, target: Record, *, source_session: int, target_session: int) -> bool:
    """§4.3: a short loss of the link and nothing else. The session numbers are those of this run: 0 after a restart, a grant, an end."""
    same = source_session == target_session != 0 and source.generation == target.generation
    return same and source.role is Role.PRIMARY and target.role is Role.SECONDARY and target.data is DataState.UPTODATE


# ---- leaving, swapping -------------------------------------------------------------------------------------------------------------------


def secondary_leaves(record: Record) -> Record:
    """§6.5: only a whole copy writes OUTDATED; INCONSISTENT and FAILED are never overwritten by leaving."""
    return replace(record, data=DataState.OUTDATED) if record.data is DataState.UPTODATE else record


def primary_hears_leave(record: Record) -> Record | Refusal:
    """§6.5: the peer is durably unfit, so no grant is needed. But what a rewound copy has lost may be nowhere but there (§6.3)."""
    if record.rewound and record.peer_may_fit:
        return Refusal("this node lost power since it was last paired, and its peer may hold what was lost: it waits for it, or for force")
    return replace(record, peer_may_fit=False)


def demote(record: Record) -> Record:
    """§6.5: durably secondary before the peer may promote."""
    return replace(record, role=Role.SECONDARY, running=False)


def promote(record: Record, peer_term: int) -> Record:
    """§6.5: the swap's second half, within the session and with the peer's consent."""
    assert record.data is DataState.UPTODATE, "never a copy that is not whole"
    return replace(
        record, term=max(record.term, peer_term) + 1, owner=record.node_id, role=Role.PRIMARY, running=True, clean=False, peer_may_fit=True
    )


def step_down(record: Record) -> Record:
    """Fenced: the peer owns the data. What this copy is, the next handshake says; until then it is promoted by a grant only.

    A failed copy keeps what it knew of its peer: that it holds the only acknowledged data must not be forgotten (§3.1).
    """
    fit = record.peer_may_fit or record.data is not DataState.FAILED
    return replace(record, role=Role.SECONDARY, running=False, peer_may_fit=fit)


def replace_data(record: Record) -> Record:
    """The administrator's word that this node's lineage is given up. Its files are set aside by the caller before the copy."""
    return replace(
        record, generation=0, base=0, history=(), data=DataState.INCONSISTENT, role=Role.SECONDARY, rewound=False,
        used=False, shared=False, peer_has=False, peer_may_fit=True, session=0,
    )  # fmt: skip

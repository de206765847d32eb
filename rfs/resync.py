"""From the agreed decision to the mirrored pair: PROTOCOL.md §4, one function per side and stage.

`begin_*` run within the transition that entered the session and return when both engines have their data link; what they return is the
rest, which runs without the lock while the application writes. `resume` is the short way, after nothing but a short loss of the link.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from rfs import page_cache, rules
from rfs.control_link import SYNC_TIMEOUT_S
from rfs.decide import Decision
from rfs.engine import Channel, Snapshot
from rfs.errors import PeerProtocolError, SessionEnded
from rfs.force import throw_away
from rfs.peer_messages import SEQ_MAX, Message
from rfs.record import DataState, Record, to_wire
from rfs.replace_data import has_begun_copy, note_copy_begun, set_aside
from rfs.replica import Replica
from rfs.resync_scope import ResyncScope
from rfs.session_core import SessionCore
from rfs.session_state import Stage
from rfs.steps import reached

log = logging.getLogger("rfs.session")

Rest = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class DataLink:
    """The data connection to come: the session's number, and how its channel is got."""

    session: int
    open: Callable[[], Awaitable[Channel]]


async def resume(core: SessionCore, data: DataLink, theirs: Message, *, is_source: bool) -> None:
    """Ship the unacknowledged window again; the session goes on under its old number."""
    replica = core.replica
    channel = await data.open()
    core.attached = True
    reached("resume-source" if is_source else "resume-target")
    try:
        if is_source:
            parameters = core.parameters(replica.resumable, peer_applied_seq=theirs["applied_seq"])
            await replica.engine.session_resume(channel, parameters)
        else:
            parameters = core.parameters(replica.resumable, seq=replica.engine.statistics().applied_seq)
            await replica.engine.session_target(channel, parameters, resume=True)
    except OSError:
        replica.resumable = 0  # what could not be resumed once is compared in full
        raise
    log.info("resumed session=%016x", replica.resumable)
    core.now_paired(replica.resumable)


# ---- as source ------------------------------------------------------------------------------------------------------------------------


async def begin_source(core: SessionCore, data: DataLink, scope: ResyncScope, peer: Record) -> Rest | None:
    """Own copy durable → the target INCONSISTENT, confirmed → own record → the data link."""
    replica = core.replica
    replica.scope = scope.word
    log.info("resync scope=%s", scope.word)
    if scope.direct:
        await _pair_source(core, data)
        return None
    await replica.engine.sync()
    reached("source-synced")
    await core.link.send("degrade")
    reached("degrade-asked")
    await core.link.expect("degraded", timeout_s=SYNC_TIMEOUT_S)
    replica.resumable = 0
    begun = rules.source_begins(replica.record, secrets.randbits(64) or 1)
    await replica.commit(rules.learn_given_up(begun, (*peer.lineage, *peer.tried)), "the target is INCONSISTENT, durably")
    reached("source-recorded")
    seq = replica.engine.statistics().seq
    await _say_open(core, data, scope, seq)
    channel = await data.open()
    core.attached = True
    more = {"everything": int(scope.everything), "fresh": scope.fresh}
    await replica.engine.session_source(channel, core.parameters(data.session, seq=seq, **more))
    reached("source-attached")
    core.stage = Stage.RESYNCING_SOURCE
    core.began_at = trio.current_time()
    replica.served = True
    replica.needs_grant = False
    await replica.mount()
    replica.is_live.set()
    replica.touch()
    return lambda: _end_source(core, data.session)


async def _say_open(core: SessionCore, data: DataLink, scope: ResyncScope, seq: int) -> None:
    await core.link.send(
        "open", session=data.session, generation=core.replica.record.generation, seq=seq,
        everything=scope.everything, direct=scope.direct, fresh=scope.fresh,
    )  # fmt: skip


async def _pair_source(core: SessionCore, data: DataLink) -> None:
    """§4.2: nothing is marked anywhere. What the peer may hold is durable before it is told to begin."""
    replica = core.replica
    replica.resumable = 0
    await replica.commit(rules.pair_directly(replica.record, data.session), "nothing is marked: paired at once")
    reached("direct-source-recorded")
    seq = replica.engine.statistics().seq
    await _say_open(core, data, ResyncScope(direct=True, everything=False, fresh=0), seq)
    reached("direct-open-sent")
    await core.link.expect("paired", timeout_s=SYNC_TIMEOUT_S)
    reached("direct-peer-paired")
    channel = await data.open()
    core.attached = True
    await replica.engine.session_source(channel, core.parameters(data.session, seq=seq, direct=1))
    await replica.mount()
    core.now_paired(data.session)


async def _pair_target(core: SessionCore, data: DataLink, opened: Message) -> None:
    replica = core.replica
    if replica.record.data is not DataState.UPTODATE or opened["generation"] != replica.record.generation or opened["seq"] > SEQ_MAX:
        raise PeerProtocolError("an 'open' without a resync for a copy that needs one")
    replica.scope = "nothing"
    if replica.engine.snapshot() is not Snapshot.NONE:  # its resync ended, and then the link, before it was thrown away
        await throw_away(replica)
    await replica.commit(rules.pair_directly(replica.record, data.session), "nothing is marked: paired at once")
    reached("direct-target-recorded")
    await core.link.send("paired")
    reached("direct-paired-sent")
    channel = await data.open()
    core.attached = True
    parameters = core.parameters(data.session, generation=opened["generation"], seq=opened["seq"], direct=1)
    await replica.engine.session_target(channel, parameters, resume=False)
    core.now_paired(data.session)


async def _end_source(core: SessionCore, session: int) -> None:
    """Wait until nothing is marked, then hand the generation over. From END on a lost peer freezes this node."""
    replica = core.replica
    await core.drained.wait()
    reached("source-drained")
    async with replica.changing:
        _still(replica, DataState.UPTODATE)
        await replica.commit(rules.source_before_end(replica.record), "nothing is marked any more")
        reached("end-promised")
        await core.link.send("ending", record=to_wire(replica.record))
    while not await _send_end(core):
        await core.drained.wait()
    reached("end-sent")
    adopted = await core.link.expect("adopted", timeout_s=SYNC_TIMEOUT_S)
    reached("adopted-heard")
    async with replica.changing:
        target = core.check_record(adopted["record"])
        await replica.commit(rules.learn_names(rules.source_after_end(replica.record, session), target), "the target has adopted")
        reached("source-paired")
        await core.link.send("paired")
        core.now_paired(session)


async def _send_end(core: SessionCore) -> bool:
    """False: while the promise became durable and was told, an op has left something to do. An application that moves files across the
    border all the time would else break off every resync. What was promised stays true: it is about an END that may come."""
    async with core.replica.changing:
        _still(core.replica, DataState.UPTODATE)
        core.drained = trio.Event()
        return await core.replica.engine.send_end()


def _still(replica: Replica, data: DataState) -> None:
    """The disk may have failed since; then this session has no end."""
    if replica.record.data is not data:
        raise SessionEnded(f"this copy is {replica.record.data.name} now")


# ---- as target ------------------------------------------------------------------------------------------------------------------------


async def begin_target(core: SessionCore, data: DataLink, decision: Decision) -> Rest | None:
    """INCONSISTENT, durably and confirmed, before any frame → the data link."""
    replica = core.replica
    said = await core.link.expect("degrade", "open", timeout_s=SYNC_TIMEOUT_S)
    reached("degrade-heard")
    replica.resumable = 0
    if said["type"] == "open":
        await _pair_target(core, data, said)
        return None
    is_asked_for = replica.record.generation == 0 and not has_begun_copy(replica.settings.state_directory)
    if replica.record.generation == 0:
        await _take_first_copy(core)
    await _keep_what_is_overwritten(replica)
    fork_point = decision.fork_point if replica.record.generation else None  # given up already
    await replica.commit(rules.target_begins(replica.record, fork_point), "a resync begins")
    reached("target-inconsistent")
    await core.link.send("degraded")
    opened = await core.link.expect("open", timeout_s=SYNC_TIMEOUT_S)
    if opened["session"] != data.session or opened["seq"] > SEQ_MAX:
        raise PeerProtocolError("an 'open' of another session")
    channel = await data.open()
    core.attached = True
    replica.scope = ResyncScope(direct=False, everything=opened["everything"], fresh=opened["fresh"]).word
    more = {"everything": int(opened["everything"]), "fresh": opened["fresh"]}
    parameters = core.parameters(data.session, generation=opened["generation"], seq=opened["seq"], **more)
    await replica.engine.session_target(channel, parameters, resume=False)
    reached("target-attached")
    core.stage = Stage.RESYNCING_TARGET
    core.began_at = trio.current_time()
    replica.is_live.set()
    replica.touch()
    await replica.look_for_removals()  # of an earlier session that was cut off
    return lambda: _end_target(core, data.session, is_asked_for=is_asked_for)


async def _keep_what_is_overwritten(replica: Replica) -> None:
    """Before INCONSISTENT is durable: of a copy that is whole a snapshot is begun; one that was overwritten before keeps what it has."""
    whole = replica.record.data in (DataState.UPTODATE, DataState.OUTDATED) and replica.record.generation != 0
    try:
        snapshot = await replica.engine.begin_before(whole=whole)
    except OSError as failure:
        raise SessionEnded(f"the snapshot of before cannot be begun, gone on with or put back now ({failure})") from failure
    log.info("snapshot=%s", "kept" if snapshot is Snapshot.KEPT else "none")


async def become_new_again(replica: Replica) -> None:
    """A copy that will be compared in full. In this order: what it is like must not be forgotten before what follows from it is done."""
    if replica.record.data is DataState.FAILED:
        files = await trio.to_thread.run_sync(page_cache.forget, replica.layers.trees)
        log.info("cached pages thrown away files=%d: they may never have reached the disk", files)
    await trio.to_thread.run_sync(note_copy_begun, replica.settings.state_directory)
    reached("new-again-noted")
    await replica.commit(rules.new_again(replica.record), "everything will be compared")
    reached("new-again-recorded")


async def _take_first_copy(core: SessionCore) -> None:
    """The word which node has the data was given: what lies here goes aside, unless it is a copy of the peer's (--seeded: compared as it
    lies), and from now on the trees are the peer's."""
    replica, state_directory = core.replica, core.replica.settings.state_directory
    if has_begun_copy(state_directory):
        return
    if replica.settings.seeded:
        log.info("seeded: what lies here is compared with the peer's, and overwritten where it differs")
    elif not replica.layers.is_empty():
        assert replica.replaces_data, "files of this node would have been overwritten"
        kept = await trio.to_thread.run_sync(set_aside, replica.layers.trees, state_directory)
        log.info("data set aside to=%s", kept)
    await trio.to_thread.run_sync(note_copy_begun, state_directory)


async def _end_target(core: SessionCore, session: int, *, is_asked_for: bool) -> None:
    """Everything up to END is applied: durable, then adopted in one write, then answered. What the source does not have is removed at last;
    how much that may be without a question depends on whether a person has asked for this copy."""
    replica = core.replica
    await core.end_received.wait()
    ending = await core.link.expect("ending")
    reached("end-received")
    async with replica.changing:
        source = core.check_record(ending["record"])
        await replica.engine.sync()
        reached("target-synced")
        _still(replica, DataState.INCONSISTENT)
        await replica.commit(rules.target_adopts(replica.record, source, session), "the resync is complete and durable")
        reached("target-adopted")
        await core.link.send("adopted", record=to_wire(replica.record))
        reached("adopted-sent")
    await core.link.expect("paired")
    core.now_paired(session)
    reached("target-paired")
    await replica.purge_holding(confirmed=is_asked_for)
    await throw_away(replica)

"""One session with the peer: from two exchanged records to a mirrored pair, until either link is lost.

Entering, in the order that PROTOCOL.md §4 forces (each arrow is durable before the next):

    records and flags cross → both decide, and compare the verdicts → boot renewed on both
    short loss:  the source ships its window again                                                      → paired
    otherwise:   source syncs → target INCONSISTENT → source: peer unfit, own name, used → data link → resync while the application
                 writes → drained → source: fit and shared again → END → target syncs, adopts → source: peer has it        → paired

The part up to the data link is a transition and holds the replica's lock; the resync does not, so a grant or an unmount gets through.
Whatever goes wrong ends the session: SessionEnded unwinds everything, the engine is told in one place (`_close`), and the replica
decides what comes next from its record alone.
"""

import errno
import logging
import os
import secrets
from contextlib import AsyncExitStack

import trio

from rfs import checkpoint, divergence, in_session, resync, rules
from rfs.control_link import SYNC_TIMEOUT_S, ControlLink
from rfs.decide import Decision, Outcome, Source, Travels, decide, mirror
from rfs.engine import EventKind, Mode, Space
from rfs.errors import PeerProtocolError, SaidNo, SessionEnded
from rfs.patterns import digest
from rfs.peer_messages import Message
from rfs.record import DataState, Record, to_wire
from rfs.replace_data import forget_copy_begun, has_begun_copy
from rfs.replica import Refused, Replica
from rfs.resync import DataLink, Rest
from rfs.resync_scope import marked, scope_of
from rfs.second_try import DISK_FAILURES
from rfs.session_core import SessionCore
from rfs.session_state import Progress, Stage
from rfs.steps import reached
from rfs.supervisor import Supervisor

log = logging.getLogger("rfs.session")

READY_TIMEOUT_S = 15.0
REFUSED_AGAIN_S = 2.0
HANDSHAKE_AGAIN_S = 0.1  # a session that broke off before it was whole; twice as long after each further one
BROKEN_OFF_AGAIN_MAX_S = 5.0
GOODBYE_AFTER_LOSS_S = 2.0
PEER_FAULTS = frozenset({errno.EPROTO, errno.EBADMSG})  # of a data link: what came over it is not the protocol


class Session(SessionCore):
    """See the module's text."""

    def __init__(self, replica: Replica, supervisor: Supervisor, link: ControlLink) -> None:
        super().__init__(replica, link)
        self._supervisor = supervisor

    # ---- the scope --------------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until the session is over, for whatever reason."""
        replica, peer = self.replica, self.link.theirs
        replica.session = self
        replica.peer.node = peer.node
        replica.touch()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.link.run, self._pulse, self._heard, in_session.UNASKED, self._on_message)
                nursery.start_soon(self._watch_engine)
                nursery.start_soon(checkpoint.keep, self)
                await self._enter()
        except* SessionEnded as ended:
            log.info("session ended peer=%s stage=%s cause=%s", peer.node, self.stage.name, _sentence(ended))
        except* SaidNo as refusal:
            self.again_s = REFUSED_AGAIN_S
            replica.refused = Refused("REFUSED", _sentence(refusal))
            log.warning("session ended peer=%s stage=%s cause=%s", peer.node, self.stage.name, _sentence(refusal))
        except* PeerProtocolError as failure:
            self.again_s = REFUSED_AGAIN_S
            log.warning("session ended peer=%s stage=%s cause=the peer sent %s", peer.node, self.stage.name, _sentence(failure))
        except* OSError as failure:
            self.again_s = REFUSED_AGAIN_S
            log.warning("session ended peer=%s stage=%s cause=%s", peer.node, self.stage.name, _sentence(failure))
        finally:
            with trio.CancelScope(shield=True):
                await self._close()
        replica.broken_off = 0 if self.stage is Stage.PAIRED else replica.broken_off + 1
        if replica.broken_off:  # at once, but not in a circle
            self.again_s = max(self.again_s, min(HANDSHAKE_AGAIN_S * 2 ** min(replica.broken_off - 1, 10), BROKEN_OFF_AGAIN_MAX_S))
        await trio.sleep(self.again_s)

    async def _close(self) -> None:
        self.was_reset = self.was_reset or self.link.was_reset
        await self.link.close()
        if self.attached:
            await self.replica.engine.session_close()
        self.replica.engine.peer_space = None
        await self.replica.session_ended(self)

    async def _watch_engine(self) -> None:
        """The engine's bad news end the session; a copy that cannot keep up says goodbye first."""
        async for event in self.failures_out:
            if event.kind is EventKind.APPLY_FAILED:
                await self._cannot_follow(abs(event.result), event.text or os.strerror(abs(event.result)))
            elif self.replica.is_primary:
                # A target that fails closes its data link before its goodbye arrives. Either that or the end of the control link
                # cancels this wait at once; a goodbye that is heard spares the application a grant.
                await trio.sleep(GOODBYE_AFTER_LOSS_S)
            if event.kind is EventKind.LINK_LOST and abs(event.result) in PEER_FAULTS:
                self.replica.resumable = 0  # it would send the same again
                self.replica.peer_faults += 1
                self.replica.note = f"{self.link.theirs.node} does not keep to the protocol: {event.text}"
                raise PeerProtocolError(event.text)
            raise SessionEnded(f"{event.kind.name}: {event.text or os.strerror(abs(event.result))}")

    async def _cannot_follow(self, error: int, text: str) -> None:
        """What the primary did cannot be done here. A disk that fails is one thing, one that is full another."""
        replica = self.replica
        if error in DISK_FAILURES:
            replica.nursery.start_soon(replica.disk_failed, text)  # it ends this session, and outlives it
            await trio.sleep_forever()
        replica.second_try.failed(error, replica.spaces(), replica.engine.peer_space)
        why = f"this copy left the session: {text}"
        replica.note = "; ".join(filter(None, (why, replica.second_try.waits_for)))
        async with replica.changing:
            await self.leave(why, consent=False)

    async def _on_message(self, message: Message) -> None:
        await in_session.on_message(self, message)

    def _pulse(self) -> Message:
        record, statistics = self.replica.record, self.replica.engine.statistics()
        return {
            "data": record.data.name, "generation": record.generation, "seq": statistics.seq,
            "bytes_done": statistics.resync_bytes_done, "total_bytes": statistics.resync_total_bytes,
            "files_done": statistics.resync_files_done, "total_files": statistics.resync_total_files,
            "space": list(self.replica.engine.space()),
        }  # fmt: skip

    def _heard(self, ping: Message) -> None:
        peer = self.replica.peer
        changed = peer.data != ping["data"] or peer.generation != ping["generation"]
        peer.data, peer.generation, peer.heard_at = ping["data"][:32], ping["generation"], trio.current_time()
        self.replica.engine.peer_space = Space.of(ping["space"])
        peer.progress = Progress(ping["bytes_done"], ping["total_bytes"], ping["files_done"], ping["total_files"])
        if changed:
            self.replica.touch()

    # ---- entering ---------------------------------------------------------------------------------------------------------------------

    async def _enter(self) -> None:
        replica = self.replica
        await replica.second_try.wait(replica.spaces, lambda: replica.engine.peer_space, replica.purge_holding)
        await self.link.send("ready")
        await self.link.expect("ready", timeout_s=READY_TIMEOUT_S)
        async with AsyncExitStack() as stack:
            async with replica.changing:
                if replica.stopping:
                    raise SessionEnded("this node is being unmounted")
                if replica.settings.ack_disk and not replica.is_primary:
                    await replica.engine.sync()  # what we say that we have applied counts as acknowledged
                mine = self._state()
                await self.link.send("state", **mine)
                reached("state-sent")
                theirs = await self.link.expect("state")
                peer = self.check_record(theirs["record"])
                token = mine["proposal"] if self.dialed else theirs["proposal"]
                arriving = await stack.enter_async_context(self._supervisor.data_links.expected(token))
                data = DataLink(token, lambda: self._supervisor.open_data_link(self.link, token, arriving))
                decision, obstacle = await self._agree(mine, theirs, peer)
                rest: Rest | None
                if obstacle is not None:
                    rest = await self._refuse(obstacle, peer, theirs)
                else:
                    replica.refused = None
                    rest = await self._begin(decision, theirs, peer, data)
            if rest is not None:
                await rest()
        log.info("paired peer=%s role=%s generation=%016x", peer.node, replica.record.role.name, replica.record.generation)

    def _state(self) -> Message:
        replica = self.replica
        return {
            "record": to_wire(replica.record),
            "running": replica.served and replica.is_primary,
            # What a primary's application has emptied in this run is empty on purpose; anything else may be a disk that is not there.
            "empty": 0 if replica.is_primary and replica.paired_in_run else replica.layers.empty_directories(),
            "replace_data": replica.replaces_data,
            "resumable": replica.resumable,
            "applied_seq": replica.engine.statistics().applied_seq,
            "proposal": secrets.randbits(64) or 1,
            "directories": len(replica.layers.paths),
            "patterns": digest(replica.settings.patterns, replica.settings.refuses),
            "marks": marked(replica.engine.statistics()),
        }

    async def _agree(self, mine: Message, theirs: Message, peer: Record) -> tuple[Decision, Refused | None]:
        """Both decide, both say it; what stands in the way on either side stands in the way of both."""
        replica = self.replica
        decision = decide(
            *(replica.record, peer),
            mine_running=mine["running"], theirs_running=theirs["running"],
            mine_empty=_all_empty(mine), theirs_empty=_all_empty(theirs),
        )  # fmt: skip
        obstacle = self._obstacle(decision, mine, theirs, peer)
        await self.link.send("verdict", **_verdict(decision, obstacle))
        reached("verdict-sent")
        heard = await self.link.expect("verdict")
        expected = _verdict(mirror(decision), None)
        if any(heard[field] != expected[field] for field in ("outcome", "source", "travels")):
            raise PeerProtocolError("a verdict that contradicts ours: the two nodes do not run the same rules")
        replica.peer.data, replica.peer.generation = peer.data.name, peer.generation
        log.info(
            "decided outcome=%s source=%s travels=%s reason=%s",
            *(decision.outcome.name, expected["source"], expected["travels"], decision.reason),
        )
        if obstacle is None and heard["obstacle"]:
            obstacle = Refused(heard["obstacle"], f"on {self.link.theirs.node}: {heard['reason']}")
        return decision, obstacle

    def _obstacle(self, decision: Decision, mine: Message, theirs: Message, peer: Record) -> Refused | None:
        replica = self.replica
        if replica.unfinished is not None and not replica.unfinished.marked:
            return Refused("DIRECTORIES_DIFFER", "a directory is half added: 'rfsmount add' once more finishes it, or a new start")
        if mine["directories"] != theirs["directories"]:
            return Refused(
                "DIRECTORIES_DIFFER",
                f"this node mirrors {mine['directories']} directories, the peer {theirs['directories']}: name the same ones on both, "
                "or 'rfsmount add' what the other one has",
            )
        if mine["patterns"] != theirs["patterns"]:
            return Refused(
                "PATTERNS_DIFFER",
                "the nodes leave out different names, or refuse different files: "
                "give the same --exclude and --only, --devices and --setuid on both",
            )
        if decision.outcome is not Outcome.PAIR:
            return Refused(decision.outcome.name, decision.reason)
        am_target = decision.source is Source.THEIRS
        source, target = (theirs, mine) if am_target else (mine, theirs)
        newer, other = (self.link.theirs.node, replica.record.node) if am_target else (replica.record.node, self.link.theirs.node)
        if source["replace_data"]:
            return Refused(
                "NEWER_DATA",
                f"{newer} was told to give its data up, but its copy is the newer one: "
                f"'promote --force' on {other} first if that one is to stay",
            )
        is_first_copy = (replica.record if am_target else peer).generation == 0  # which asks for a word of its own below
        overwrites = am_target and is_first_copy and replica.settings.seeded  # that word: nothing is moved aside then
        if source["empty"] & ~target["empty"] and (overwrites or not is_first_copy):
            return Refused(
                "EMPTY_SOURCE",
                f"a directory of {newer}, which would be the source, is empty and has files on {other}: is a file system not mounted?",
            )
        first_copy = am_target and replica.record.generation == 0 and not has_begun_copy(replica.settings.state_directory)
        if first_copy and not _all_empty(mine) and not (replica.replaces_data or replica.settings.seeded):
            return Refused(
                "NEEDS_REPLACE_DATA",
                f"the directories of {replica.record.node} hold files and would be overwritten by the peer's; "
                "unmount, then mount with --replace-data to move them to the state directory's kept/, "
                "or with --seeded if they are a copy of the peer's data, to have them compared",
            )
        return None

    async def _refuse(self, obstacle: Refused, peer: Record, theirs: Message) -> Rest:
        """No pair: both say why, stay as they are, and try again later. The loser of a fork that was told to may give its data up.

        Two that have diverged may have something to do together first (divergence.py): that is returned, and runs without the lock."""
        replica = self.replica
        self.stage = Stage.REFUSED
        self.again_s = REFUSED_AGAIN_S if self.link.dialed else 0.0
        if obstacle.is_diverged and replica.replaces_data and await self._gave_up_data(peer, theirs):
            raise SessionEnded("this node has given its data up for the peer's")
        if replica.refused != obstacle:
            log.warning("refused code=%s cause=%s", obstacle.code, obstacle.reason)
        replica.refused = obstacle
        replica.touch()
        if not obstacle.is_diverged:
            raise SessionEnded(obstacle.reason)

        async def part() -> None:
            await divergence.meet(self, peer, theirs)
            raise SessionEnded(obstacle.reason)

        return part

    async def _gave_up_data(self, peer: Record, theirs: Message) -> bool:
        """The loser of a fork, as its administrator said: from the next handshake on it is a new secondary whose files go to kept/."""
        replica = self.replica
        if theirs["replace_data"]:
            log.error("both nodes were told to replace their data: neither does; mount only the loser with --replace-data")
            return False
        if peer.data is not DataState.UPTODATE or replica.served:
            return False
        forget_copy_begun(replica.settings.state_directory)
        await replica.step_down("--replace-data")
        await replica.commit(rules.replace_data(replica.record), "--replace-data after DIVERGED")
        replica.refused = None
        self.again_s = 0.0
        return True

    async def _begin(self, decision: Decision, theirs: Message, peer: Record, data: DataLink) -> Rest | None:
        """From the agreed decision to a session in the engine; returns what is left to do without the lock."""
        replica = self.replica
        is_source = decision.source is Source.MINE
        resumes = self._can_resume(is_source, theirs, peer)
        if is_source:
            await self._be_source(peer)
        else:
            await self._be_target(decision, peer, resumes)
        if resumes:
            await resync.resume(self, data, theirs, is_source=is_source)
            return None
        replica.consent = False
        if is_source:
            return await resync.begin_source(self, data, scope_of(decision, replica, peer, theirs), peer)
        return await resync.begin_target(self, data, decision)

    async def _be_source(self, peer: Record) -> None:
        """Primary, and its term known to the other side, before anything else."""
        replica = self.replica
        await replica.commit(rules.enter_session(replica.record, replica.identity, peer, source=True), "handshake as source")
        if not replica.is_primary or replica.mode in (Mode.IDLE, Mode.FENCED):
            if replica.mode not in (Mode.IDLE, Mode.FROZEN):
                await replica.idle_engine()
            await replica.become_primary(peer.term, "source of a session")
        await self.link.send("renewed", term=replica.record.term, owner=replica.record.owner)
        reached("source-renewed")
        await self.link.expect("renewed", timeout_s=SYNC_TIMEOUT_S)

    async def _be_target(self, decision: Decision, peer: Record, resumes: bool) -> None:
        """Secondary beneath the guard, whatever this node was before."""
        replica = self.replica
        await replica.step_down("the peer has the data: " + decision.reason)
        if decision.travels is Travels.EVERYTHING and replica.record.generation:
            await resync.become_new_again(replica)
        if not resumes:
            await replica.idle_engine()
        renewed = await self.link.expect("renewed", timeout_s=SYNC_TIMEOUT_S)
        entered = rules.enter_session(replica.record, replica.identity, peer, source=False)
        await replica.commit(entered, "handshake as target")
        await replica.commit(rules.learn_term(replica.record, renewed["term"], renewed["owner"]), "the source's term")
        reached("target-renewed")
        await self.link.send("renewed", term=replica.record.term, owner=replica.record.owner)

    def _can_resume(self, is_source: bool, theirs: Message, peer: Record) -> bool:
        """A short loss of the link and nothing else: see PROTOCOL.md §4.3. Both sides come to the same answer."""
        replica = self.replica
        records = (replica.record, peer) if is_source else (peer, replica.record)
        sessions = (replica.resumable, theirs["resumable"])  # symmetrical: they must be the same one
        return rules.may_resume_link(*records, source_session=sessions[0], target_session=sessions[1])


def _all_empty(state: Message) -> bool:
    return bool(state["empty"] == (1 << state["directories"]) - 1)


def _verdict(decision: Decision, obstacle: Refused | None) -> Message:
    return {
        "outcome": decision.outcome.name,
        "source": decision.source.name if decision.source else "",
        "travels": decision.travels.name if decision.travels else "",
        "obstacle": obstacle.code if obstacle else "",
        "reason": (obstacle.reason if obstacle else decision.reason)[:1000],
    }


def _sentence(group: BaseExceptionGroup[BaseException]) -> str:
    """The first cause, for the log."""
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return str(inner)

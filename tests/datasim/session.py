"""One side of one session, step by step as rfs/session.py, rfs/resync.py and rfs/in_session.py go: from two records to a mirrored pair.

A test `broken` stands wherever a rule of PROTOCOL §4 orders two steps; tests switch it to see that the oracle notices.
"""

from __future__ import annotations

from dataclasses import dataclass

from rfs import decide as deciding
from rfs import rules
from rfs.decide import Decision, Outcome, Source, Travels, mirror
from rfs.record import DataState, Record
from tests.datasim import ops
from tests.datasim.modes import Mode, SaidNo, SessionEnded
from tests.datasim.native import MAX_U64
from tests.datasim.node_log import Steps
from tests.datasim.session_base import Stage
from tests.datasim.turns import Turns


@dataclass(frozen=True)
class Hello:
    """What each side tells of itself before both decide."""

    record: Record
    running: bool
    resumable: int
    applied_seq: int
    nothing_marked: bool


class Session(Turns):
    """See the module's text."""

    # ---- the scope --------------------------------------------------------------------------------------------------------------------

    def run(self) -> Steps:
        """Until it is over, for whatever reason."""
        process = self.process
        try:
            yield from self._enter()
            while not self.ended:
                yield lambda: self.ended
        except (SessionEnded, SaidNo) as why:
            self.world.note(f"{process.node.name}: session ends: {why}")
        self.hang_up()
        self.notice()
        process.session_ended(self.stage is Stage.PAIRED, self.left_with_consent)

    # ---- entering ---------------------------------------------------------------------------------------------------------------------

    def _enter(self) -> Steps:
        process = self.process
        yield from process.lock("session")
        with process.unlocking():
            mine = Hello(
                process.record, process.served and process.is_primary, process.resumable, process.applied_seq, process.log.marks.is_empty
            )
            self.send("state", hello=mine)
            yield "handshake: state sent"
            theirs: Hello = (yield from self.expect("state"))["hello"]
            decision = deciding.decide(
                mine.record, theirs.record, mine_running=mine.running, theirs_running=theirs.running, mine_empty=False, theirs_empty=False
            )
            self.send("verdict", decision=decision)
            self.names_of_peer = (*theirs.record.tried, *theirs.record.lineage)
            yield "handshake: verdict sent"
            heard: Decision = (yield from self.expect("verdict"))["decision"]
            self.world.require(mirror(heard) == decision, f"decide is not antisymmetric: {decision} {heard}")
            if decision.outcome is not Outcome.PAIR:
                self.world.no_pair(decision)
                raise SessionEnded(decision.outcome.name)
            yield from self._begin(decision, mine, theirs)
        yield from self._finish()

    def _begin(self, decision: Decision, mine: Hello, theirs: Hello) -> Steps:
        peer = theirs.record
        is_source = decision.source is Source.MINE
        source, target = (mine, theirs) if is_source else (theirs, mine)
        resumes = rules.may_resume_link(source.record, target.record, source_session=source.resumable, target_session=target.resumable)
        nothing = mine.nothing_marked and theirs.nothing_marked and decision.travels is not Travels.EVERYTHING
        direct = rules.may_pair_directly(source.record, target.record, nothing_marked=nothing)
        if is_source:
            yield from self._be_source(peer)
        else:
            yield from self._be_target(decision, peer, resumes)
        if resumes:
            yield from self._resume(theirs, is_source)
        elif direct:
            yield from self._pair_directly(is_source)
        elif is_source:
            yield from self._begin_source(decision)
        else:
            yield from self._begin_target(decision)

    def _be_source(self, peer: Record) -> Steps:
        process = self.process
        yield from process.commit(rules.enter_session(process.record, process.identity, peer, source=True), "enter as source")
        if not process.is_primary or process.mode is Mode.IDLE:
            yield from process.become_primary(peer.term, "source")
        self.send("renewed", term=process.record.term, owner=process.record.owner)
        yield "handshake: renewed"
        yield from self.expect("renewed")

    def _be_target(self, decision: Decision, peer: Record, resumes: bool) -> Steps:
        process = self.process
        if process.record.data is DataState.FAILED and not self.world.broken("a failed copy is compared by its cache"):
            process.disk.tree.drop_caches()
            self.world.saw("caches dropped")
        if decision.travels is Travels.EVERYTHING and process.record.generation:
            yield from process.commit(rules.new_again(process.record), "new again")
        yield from process.step_down(decision.reason)
        if not resumes:
            process.become_idle()
        renewed = yield from self.expect("renewed")
        yield from process.commit(rules.enter_session(process.record, process.identity, peer, source=False), "enter as target")
        yield from process.commit(rules.learn_term(process.record, renewed["term"], renewed["owner"]), "learn term")
        self.send("renewed", term=process.record.term, owner=process.record.owner)
        yield "handshake: renewed"

    def _resume(self, theirs: Hello, is_source: bool) -> Steps:
        """The unacknowledged window again, under the old number."""
        process = self.process
        self.number, self.generation = process.resumable, process.record.generation
        if is_source:
            yield from self.expect("attached")
            process.mode = Mode.PAIRED
            for op in sorted((op for op in process.ops if op.applied), key=lambda op: op.seq or MAX_U64):
                if not op.seq:
                    process.route(op)
                elif op.seq > theirs.applied_seq or op.body.kind == "fsync":
                    op.is_acked = False
                    self.send_frame(op)
                else:
                    op.is_acked = True
            self.world.saw("resumed")
        else:
            self._attach_target()
            self.send("attached")
            yield "resume: attached"
        self._now_paired()

    def _attach_target(self) -> None:
        """From here on frames change this copy."""
        process = self.process
        self.world.oracle.handshake(self.peer, self.me)
        process.mode, process.is_target_of = Mode.TARGET, self.number
        self.attached = True
        process.made_here = set()

    def _pair_directly(self, is_source: bool) -> Steps:
        """Nothing is marked on either side: nothing to resync."""
        process = self.process
        if is_source:
            yield from process.commit(rules.pair_directly(process.record, self.number), "pair directly, source")
            self.send("direct", seq=process.seq)
            yield from self.expect("attached")
            self.generation = process.record.generation
            process.mode = Mode.PAIRED
            for op in list(process.ops):
                if op.applied:
                    process.route(op)
        else:
            direct = yield from self.expect("direct")
            yield from process.commit(rules.pair_directly(process.record, self.number), "pair directly, target")
            process.applied_seq, self.generation = direct["seq"], process.record.generation
            self._attach_target()
            self.send("attached")
            yield "direct: attached"
        self.world.saw("paired directly")
        self._now_paired()

    def _now_paired(self) -> None:
        process = self.process
        process.be_well()
        self.stage = Stage.PAIRED
        process.resumable, process.paired_in_run, process.needs_grant = self.number, True, False
        if process.is_primary:
            process.served, process.mode = True, Mode.PAIRED
            self.world.oracle.paired()

    # ---- as source --------------------------------------------------------------------------------------------------------------------

    def _begin_source(self, decision: Decision) -> Steps:
        process = self.process
        if not self.world.broken("the source does not sync first") and not (yield from process.sync()):
            raise SessionEnded("the source's disk failed")
        self.send("degrade")
        if self.world.broken("lone before the confirmation"):
            yield from process.commit(rules.source_begins(process.record, self.world.new_name(process.record)), "source begins early")
            self.generation = process.record.generation
            process.attach_source(everything=False)
        yield "resync: degrade sent"
        degraded = yield from self.expect("degraded")
        marks = [] if self.world.broken("the target's marks do not travel") else degraded["marks"]
        if degraded["everything"]:
            yield from process.log.everything()
        elif degraded["born"] < process.log.marks.born:
            lowered = yield from process.log.compact(before=lambda: process.log.marks.widen_born(degraded["born"]))
            if not lowered:
                yield from process.log.everything()
        cold = [mark for mark in marks if not process.log.marks.touch(mark)]
        if cold:
            yield from process.log.mark(cold)
        process.resumable = 0
        if not self.world.broken("the peer is not recorded as unfit"):
            begun = rules.source_begins(process.record, self.world.new_name(process.record))
            if not self.world.broken("given-up names are not told"):  # what the target has just given up, durably, may be in the register
                begun = rules.learn_given_up(begun, self.names_of_peer)
            yield from process.commit(begun, "source begins")
        self._still(DataState.UPTODATE)
        self.generation = process.record.generation
        self.send("open", generation=self.generation, seq=process.seq)
        process.be_well()
        if self.ended:
            raise SessionEnded("before the data link")
        self.stage = Stage.RESYNCING_SOURCE
        process.served, process.needs_grant = True, False
        process.attach_source(everything=decision.travels is Travels.EVERYTHING)
        self.world.saw(f"resync: {decision.travels.name if decision.travels else ''}")
        yield "resync: attached"

    def _still(self, data: DataState) -> None:
        if self.process.record.data is not data:
            raise SessionEnded(f"this copy is {self.process.record.data.name} now")

    def _finish(self) -> Steps:
        if self.stage is Stage.RESYNCING_SOURCE:
            yield from self._end_source()
        elif self.stage is Stage.RESYNCING_TARGET:
            yield from self._end_target()

    def _end_source(self) -> Steps:
        process = self.process
        while True:
            yield from process.resync_walk(self)
            if self.ended or process.mode is not Mode.SOURCE:
                raise SessionEnded("in the resync")
            yield from process.lock("end")
            if process.is_drained and process.mode is Mode.SOURCE:
                break
            process.unlock()
        with process.unlocking():
            self._still(DataState.UPTODATE)
            if not self.world.broken("END without a fit peer"):
                yield from process.commit(rules.source_before_end(process.record), "before END")
            if self.ended:
                raise SessionEnded("before END")
            self.send("end", record=process.record)
            yield "resync: END sent"
        yield from self.expect("adopted")
        yield from process.lock("after end")
        with process.unlocking():
            if not self.world.broken("END without a fit peer"):
                yield from process.commit(rules.source_after_end(process.record, self.number), "after END")
            self._still(DataState.UPTODATE)
            self.send("paired")
            if self.ended:
                raise SessionEnded("after END")
            self._now_paired()
            self.world.oracle.adopted(self.me, target_runs_on=self.peer_runs_on())
            if self.world.broken("marks go at the end of a resync"):
                yield from process.log.compact(before=process.log.marks.forget)
            self.world.saw("resynced")

    # ---- as target --------------------------------------------------------------------------------------------------------------------

    def _begin_target(self, decision: Decision) -> Steps:
        process = self.process
        yield from self.expect("degrade")
        process.resumable = 0
        begun = rules.target_begins(process.record, decision.fork_point if process.record.generation else None)
        if begun.base != process.record.base:
            yield from process.log.everything()
        if not self.world.broken("INCONSISTENT is written late"):
            yield from process.commit(begun, "target begins")
        marks = process.log.marks
        self.send("degraded", marks=marks.each(), everything=marks.everything, born=marks.born if marks.born != MAX_U64 else MAX_U64)
        yield "resync: degraded"
        opened = yield from self.expect("open")
        process.applied_seq, self.generation = opened["seq"], opened["generation"]
        self._attach_target()
        self.stage = Stage.RESYNCING_TARGET
        yield "resync: target attached"

    def _end_target(self) -> Steps:
        process = self.process
        while not self.end_received:
            if self.ended:
                raise SessionEnded("in the resync")
            yield lambda: self.end_received or self.ended
        ending = yield from self.expect("end")
        yield from process.lock("adopt")
        with process.unlocking():
            if self.ended:
                raise SessionEnded("before the adoption")
            if not self.world.broken("UPTODATE before the sync") and not (yield from process.sync()):
                raise SessionEnded("the target's disk failed")
            if self.world.broken("INCONSISTENT is written late") and process.record.data is not DataState.INCONSISTENT:
                yield from process.commit(rules.target_begins(process.record, None), "target begins late")
            self._still(DataState.INCONSISTENT)
            yield from process.commit(rules.target_adopts(process.record, ending["record"], self.number), "adopt")
            self.world.oracle.lone_acks_adopted(self.peer)
            if not process.is_target_of:
                raise SessionEnded("after the adoption")
            process.made_here = set()
            self.send("adopted")
            yield "resync: adopted"
        yield from self.expect("paired")
        self._now_paired()
        ops.purge_holding(process.disk.tree)
        yield "holding purged"

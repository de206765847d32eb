"""What happens within a session: frames and their answers, and what the peer says unasked (rfs/in_session.py, rfs/commands.py)."""

from __future__ import annotations

from rfs import rules
from rfs.record import DataState
from tests.datasim import ops
from tests.datasim.modes import Mode, SaidNo
from tests.datasim.network import Message
from tests.datasim.node_log import Steps
from tests.datasim.session_base import SessionBase, Stage

UNASKED = frozenset({"sync", "demoted", "turn", "leaving", "drop"})


class Turns(SessionBase):
    """The part of Session that listens."""

    def may_deliver(self, message: Message) -> bool:
        """Frames wait for the data link."""
        if message.kind in ("frame", "place") and message.session == self.number:
            return self.attached or self.ended
        return True

    def deliver(self, message: Message) -> None:
        kind, body = message.kind, message.body
        if kind in ("frame", "place"):
            self._apply(message)
        elif kind == "ack":
            self._hear_ack(message)
        elif kind == "listed":
            self.process.listings_under_way -= 1
            alive = {fid for fid in body["missing"] if self.process.disk.tree.now.is_alive(fid)}
            if alive:
                self.world.saw("inodes were missing")
            self.process.whole |= alive if not self.world.broken("missing inodes are not asked for") else set()
        elif kind in UNASKED:
            self.world.spawn(self.process, self._unasked(message), f"hears {kind}")
        else:
            if kind == "end":
                self.end_received = True
            self.inbox.append(message)

    # ---- frames -----------------------------------------------------------------------------------------------------------------------

    def _is_of_this_session(self, message: Message) -> bool:
        return message.session == self.process.is_target_of == self.number and message.generation == self.generation

    def _apply(self, message: Message) -> None:
        process, body = self.process, message.body
        if not self._is_of_this_session(message):
            if process.is_target_of and message.session != self.number:
                self.world.saw("frame of an old session")
            if not self.world.broken("frames of older sessions are applied") or not process.is_target_of or "seq" not in body:
                return
            self.world.oracle.old_frame_applied()
            ops.apply(process.disk.tree, body["body"], hold=True, made_here=process.made_here)
            return
        if process.disk.full:
            process.is_target_of = 0
            self.world.spawn(process, self.leave("its disk is full"), "apply failed")
            return
        if message.kind == "place":
            missing = ops.apply_place(process.disk.tree, body["place"], process.made_here, hold=not self.world.broken("nothing is held"))
            if body["place"].what == "whole":
                process.made_here.discard(body["place"].fid)
            if body["place"].what == "entries":
                self.send("listed", missing=missing)
            return
        if body["seq"] <= process.applied_seq and body["body"].kind != "fsync":
            self.world.saw("frame twice")
            return
        self.world.require(body["seq"] <= process.applied_seq + 1, "a gap in the order")
        process.applied_seq = max(process.applied_seq, body["seq"])
        self.world.oracle.frame_applied(process, body["body"])
        resyncs = process.record.data is DataState.INCONSISTENT
        if body["body"].kind == "fsync":
            self.world.spawn(process, self._fsync(body["seq"], body["body"].fid), "fsync of the peer")
            return
        holds = resyncs and not self.world.broken("nothing is held")
        ops.apply(process.disk.tree, body["body"], hold=holds, made_here=process.made_here if resyncs else None)
        self.send("ack", seq=body["seq"])

    def _fsync(self, seq: int, fid: int) -> Steps:
        """Runs beside: its answer may come after those of later writes."""
        process = self.process
        if not self.world.broken("fsync is of one disk") and not (yield from process.sync(fid)):
            return
        yield "fsync: peer done"
        if process.is_target_of == self.number:
            self.send("ack", seq=seq)

    def _hear_ack(self, message: Message) -> None:
        process = self.process
        for op in process.ops:
            if op.seq == message.body["seq"] and not op.lone:
                op.is_acked = rules.may_acknowledge_mirrored(
                    same_session=message.session == self.number,
                    same_generation=message.generation == process.record.generation,
                    peer_applied=True,
                )

    # ---- unasked ----------------------------------------------------------------------------------------------------------------------

    def _unasked(self, message: Message) -> Steps:
        kind, body, process = message.kind, message.body, self.process
        if kind == "sync":
            seq = process.applied_seq
            if not (yield from process.sync()):
                return
            yield from process.lock(kind)
            with process.unlocking():
                if not process.is_primary and not self.world.broken("a checkpoint confirms nothing"):
                    yield from process.commit(rules.synced_for_checkpoint(process.record, seq), "synced for a checkpoint")
                self.send("synced", record_number=process.record.number)
            return
        yield from process.lock(kind)
        with process.unlocking():
            if self.ended and kind != "leaving":
                return
            if kind == "demoted":
                process.consent = self.between_primaries = self._is_paired and not process.is_primary
                self.send("goodbye")
            elif kind == "turn":
                yield from self._hear_turn(body["term"], body["owner"])
            elif kind == "drop":
                yield from self._hear_drop(body["number"], body["term"], body["record_number"])
            else:
                yield from self._hear_leaving(outdated=body["outdated"], consent=body["consent"])

    def _hear_turn(self, term: int, owner: int) -> Steps:
        process = self.process
        if process.is_primary or not self._is_paired or term <= process.record.term:
            self.send("refused")
            return
        yield from process.commit(rules.learn_term(process.record, term, owner), "turned")
        if self.ended:
            return
        process.applied_seq, self.between_primaries = process.seq, False
        process.mode, process.is_target_of, process.consent = Mode.TARGET, self.number, False
        process.made_here = set()
        self.attached = True
        self.send("turned")

    def _hear_drop(self, number: int, term: int, record_number: int) -> Steps:
        process = self.process
        heard = rules.hear_checkpoint(process.record, session=number, term=term, in_session=self.number, peer_number=record_number)
        if isinstance(heard, rules.Refusal):
            self.world.saw("drop refused")
            return
        yield from process.commit(heard, "checkpoint of the peer")
        yield from process.log.compact(before=process.log.marks.forget)
        self.world.saw("drop heard")

    def _hear_leaving(self, *, outdated: bool, consent: bool) -> Steps:
        process = self.process
        try:
            if outdated and process.is_primary:
                yield from process.commit(rules.primary_hears_leave(process.record), "the peer has left")
                self.world.saw("leave heard")
        except SaidNo:
            self.world.saw("leave refused")
        if consent and not process.is_primary and self._is_paired:
            process.consent = self.left_with_consent = True
        self.send("goodbye")
        yield "goodbye"
        self.hang_up()

    # ---- asked by an administrator ------------------------------------------------------------------------------------------------------

    @property
    def _is_paired(self) -> bool:
        return self.stage is Stage.PAIRED

    def leave(self, reason: str) -> Steps:
        """A secondary goes in order, or because it cannot keep up. A complete one writes OUTDATED first."""
        process = self.process
        yield from process.lock("leave")
        with process.unlocking():
            if process.is_primary or process.session is not self:
                return
            self.world.note(f"{process.node.name} leaves: {reason}")
            if process.record.data is DataState.UPTODATE and self._is_paired and not self.between_primaries:
                process.is_target_of = 0
                if not (yield from process.sync()):
                    return
                yield from process.commit(rules.secondary_leaves(process.record), "leave")
                process.resumable = 0
            unfit = process.record.data is not DataState.UPTODATE
            self.world.oracle.node_failed(process.node.index, power=False)
            process.is_target_of = 0
            yield from self.ask("leaving", "goodbye", outdated=unfit, consent=False)
            self.world.saw("left")
            self.hang_up()
            self.notice()  # in this instant: an adoption that waits for the lock must not follow the word that this copy is unfit

    def demote(self) -> Steps:
        """The first half of a swap: ops answered, both durable, durably secondary."""
        process = self.process
        yield from process.lock("demote")
        process.draining = True
        try:
            with process.unlocking():
                while process.ops and not self.ended:
                    if not any(op.applied for op in process.ops):
                        break
                    yield lambda: self.ended or not any(op.applied for op in process.ops)
                if self.ended or not process.is_primary or not (yield from process.sync()):
                    return
                if (yield from self.ask("sync", "synced")) is None:
                    return self.hang_up()
                if self.ended or not process.is_primary:
                    return None
                if not self.world.broken("promotion before the demotion is durable"):
                    process.mode, self.between_primaries = Mode.TARGET, True
                    yield from process.commit(rules.demote(process.record), "demote")
                process.served = False
                process.drop_ops()
                if (yield from self.ask("demoted", "goodbye")) is None:
                    return self.hang_up()
                self.world.saw("demoted")
        finally:
            process.draining = False
        return None

    def promote(self) -> Steps:
        """The second half, with the peer's consent."""
        process = self.process
        yield from process.lock("promote")
        with process.unlocking():
            if self.ended or not process.consent or process.is_primary or process.record.data is not DataState.UPTODATE:
                return
            resumable, process.resumable = process.resumable, 0
            process.is_target_of, self.between_primaries = 0, False
            yield from process.commit(rules.promote(process.record, 0), "promote")
            answer = yield from self.ask("turn", "turned", term=process.record.term, owner=process.record.owner)
            if answer is None or self.ended:
                yield from process.commit(rules.demote(process.record), "the turn was cut off")
                return self.hang_up()
            process.seq = process.applied_seq
            yield from process.lower_born()
            if self.ended or process.is_failing:
                yield from process.commit(rules.demote(process.record), "the turn was cut off")
                return self.hang_up()
            process.resumable, process.consent, process.served = resumable, False, True
            process.mode = Mode.PAIRED
            self.world.saw("swapped")
        return None

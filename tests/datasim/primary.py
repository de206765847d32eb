"""What a primary does with an op, and with its marks: the life of a mark as marks.h tells it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rfs import rules
from tests.datasim import native, ops
from tests.datasim.base import Base
from tests.datasim.modes import SERVING, Mode
from tests.datasim.native import Mark
from tests.datasim.node_log import Steps
from tests.datasim.ops import Op
from tests.datasim.tree import DIRECTORIES


class Primary(Base):
    """The part of Process that serves an application."""

    # ---- marks --------------------------------------------------------------------------------------------------------------------------

    def _cold(self, op: Op) -> list[Mark]:
        """Touch its places; those to be made durable first."""
        marks = self.log.marks
        cold = []
        for mark in op.body.places():
            if mark[0] != native.ENTRIES and marks.covers_new(mark[1]):
                continue
            if not marks.touch(mark):
                cold.append(mark)
        return cold

    def is_to_do(self, op: Op) -> bool:
        """Does it touch a place where the target is not equal yet?"""
        if self.mode is not Mode.SOURCE:
            return False
        marks, fid = self.log.marks, op.body.fid
        if op.body.kind in ("write", "setattr", "fsync", "link") and fid in self.whole:
            return True
        if op.body.kind == "fsync":
            return marks.is_to_do(fid, native.ANY)
        for kind, place, _, _ in op.body.places():
            if kind == native.ENTRIES and place in self.directories_left:
                return True
            kinds = native.CHUNK | native.TAIL if kind == native.CHUNK else kind
            if marks.is_to_do(place, kinds):
                return True
        return False

    def set_to_do(self, op: Op) -> None:
        """It is done without the target: all its places are to do (again)."""
        if self.has("a mixed op leaves the clean place"):
            return
        for mark in op.body.places():
            if mark[0] != native.ENTRIES and self.log.marks.is_new(mark[1]):
                self.whole.add(mark[1])
            elif mark[0] == native.ENTRIES and self.log.marks.everything:
                self.directories_left.add(mark[1])
            elif self.log.marks.everything:
                self.whole.add(mark[1])
            self.log.marks.set_to_do(mark)
        if op.body.kind == "create":
            self.whole.add(op.body.fid)

    # ---- one op -------------------------------------------------------------------------------------------------------------------------

    @property
    def serves(self) -> bool:
        return self.mode in SERVING and not self.draining

    def run_op(self, op: Op) -> Steps:
        """From the call to its only verdict."""
        if not self.is_primary:
            return
        self.ops.append(op)
        if op.body.kind == "create" and not self.has("fid given after the touch"):
            op.body = replace(op.body, fid=self._new_fid())
        yield "op called"
        if not self.has("mark after apply"):
            cold = self._cold(op)
            if cold:
                yield from self.log.mark(cold)
            yield "op marked" if cold else "op touched"
        while True:
            while not (self.serves or op.dropped):
                yield lambda: self.serves or op.dropped
            if op.dropped:
                return
            if self.mode is Mode.ALONE and not self.record.used and not self.has("used is not asked for"):
                yield from self._make_used()
                continue
            break
        if not self._apply(op):
            return
        yield "op applied"
        if self.has("mark after apply"):
            yield from self.log.mark(self._cold(op))
        if op.body.kind == "fsync":
            op.local_done = False
            op.local_done = yield from self.sync(op.body.fid)
            if not op.local_done:
                self._end(op)
                return
        yield from self._await_verdict(op)

    def _new_fid(self) -> int:
        fid = self.next_fid()
        self.fids += 1
        return fid

    def _apply(self, op: Op) -> bool:
        """Locally, with its place in the order and its way: shipped, or done without the peer."""
        tree = self.disk.tree
        if op.body.kind == "create" and not op.body.fid:
            op.body = replace(op.body, fid=self._new_fid())
        if not ops.still_makes_sense(op.body, tree.now) or (self.disk.full and op.body.kind in ("write", "create", "link")):
            self.world.saw("op failed here")
            self._end(op)
            return False
        op.body = replace(op.body, version=self.world.next_version())
        op.applied = True
        if op.body.kind == "fsync":
            op.promised = self.world.oracle.promised_by_fsync(self.node.index, op.body.fid)
        ops.apply(tree, op.body, hold=False)
        self.route(op)
        self.world.note(f"{self.node.name}: op {op.number} {'lone' if op.lone else 'shipped'} {op.body}")
        return True

    def route(self, op: Op) -> None:
        """Ship it, or keep it from the target: by its places."""
        op.seq, op.is_acked = 0, False
        op.lone = self.mode is Mode.ALONE or self.is_to_do(op)
        if op.lone:
            if self.mode is Mode.SOURCE:
                self.world.saw("op lone in a resync")
                self.set_to_do(op)
            return
        if op.body.kind == "create" and self.mode is Mode.SOURCE:
            self.whole.discard(op.body.fid)
        self.seq += 1
        op.seq = self.seq
        assert self.session is not None
        self.session.send_frame(op)

    def _make_used(self) -> Steps:
        yield from self.lock("used")
        with self.unlocking():
            if self.mode is Mode.ALONE:
                yield from self.commit(rules.use(self.record), "used")
                self.world.saw("used")

    def _may_answer_alone(self, op: Op) -> bool:
        if self.has("alone without a grant") and op.applied:
            return True
        if not op.lone or self.mode not in (Mode.ALONE, Mode.SOURCE):
            return False
        if self.has("used is not asked for"):
            return True
        return rules.may_acknowledge_alone(self.record, granted=False, mark_durable=True)

    def _may_answer_mirrored(self, op: Op) -> bool:
        if self.has("ack before the peer") and op.applied and not op.lone:
            return True
        return op.is_acked and not op.lone and self.mode in (Mode.SOURCE, Mode.PAIRED)

    def _await_verdict(self, op: Op) -> Steps:
        while not op.dropped:
            if op.local_done and self._may_answer_mirrored(op):
                yield "op answered"
                if self._may_answer_mirrored(op):
                    return self._answer(op, mirrored=True)
            if op.local_done and self._may_answer_alone(op):
                yield "op answered alone"
                if self._may_answer_alone(op):
                    return self._answer(op, mirrored=False)
            if op.lone and self.mode is Mode.ALONE and not self.record.used and not self.has("used is not asked for"):
                yield from self._make_used()
            yield (
                lambda: (
                    op.dropped
                    or self._may_answer_mirrored(op)
                    or self._may_answer_alone(op)
                    or (op.lone and self.mode is Mode.ALONE and not self.record.used)
                )
            )
        return None

    def _answer(self, op: Op, *, mirrored: bool) -> None:
        both = mirrored and self.mode is Mode.PAIRED
        self.world.oracle.acknowledged(self, op, mirrored=mirrored, both=both)
        if self.has("two verdicts") and op.number % 50 == 49:
            self.world.oracle.acknowledged(self, op, mirrored=False, both=False)
        self._end(op)

    def _end(self, op: Op) -> None:
        op.dropped = True
        if op in self.ops:
            self.ops.remove(op)

    # ---- the source's side of a resync ------------------------------------------------------------------------------------------------

    def attach_source(self, *, everything: bool) -> None:
        """In one step: what is marked is to do, and ops go by that."""
        marks, now = self.log.marks, self.disk.tree.now
        self.mode = Mode.SOURCE
        self.listings_under_way = 0
        if not self.has("the source's hot marks do not travel"):
            marks.all_to_do()
        if everything or marks.everything:
            self.directories_left, self.whole = set(DIRECTORIES), {fid for fid in now.fids() if now.is_visible(fid)}
        else:
            self.directories_left, self.whole = set(), {fid for fid in now.fids() if marks.is_new(fid) and now.is_visible(fid)}
        if self.has("what is new does not travel whole"):
            self.whole.clear()
        for op in list(self.ops):
            if op.applied:
                self.route(op)

    @property
    def is_drained(self) -> bool:
        if self.directories_left or self.whole or self.listings_under_way or self.log.marks.next_to_do(native.ANY):
            return False
        return not any(op.lone for op in self.ops)

    def resync_walk(self, session: Any) -> Steps:
        """Place by place: listings first, then inodes that are new, then what else is marked."""
        while not session.ended and self.mode is Mode.SOURCE:
            place = self._next_place()
            if place is None:
                if self.is_drained:
                    return
                yield lambda: session.ended or self._has_place() or self.is_drained
                continue
            if place.what == "entries":
                self.listings_under_way += 1
            session.send("place", place=place)
            if self.has("a mark is cleared when it is sent"):
                self._clear_sent(place)
            yield f"resync: {place.what}"

    def _has_place(self) -> bool:
        return bool(self.directories_left or self.whole or self.log.marks.next_to_do(native.ANY))

    def _next_place(self) -> ops.Place | None:
        marks, now = self.log.marks, self.disk.tree.now
        while True:
            if self.directories_left:
                directory = min(self.directories_left)
                self.directories_left.discard(directory)
                marks.take(directory, native.ENTRIES)
                return ops.place_of(now, native.entries(directory))
            fid = marks.next_to_do(native.ENTRIES)
            if fid:
                mark = marks.take(fid, native.ENTRIES)
                assert mark is not None
                return ops.place_of(now, mark)
            if self.whole:
                fid = min(self.whole)
                self.whole.discard(fid)
                found = ops.whole(now, fid)
            else:
                fid = marks.next_to_do(native.ANY)
                taken = marks.take(fid, native.ANY) if fid else None
                if taken is None:
                    return None
                found = ops.place_of(now, taken)
            if found is not None:
                return found

    def _clear_sent(self, place: ops.Place) -> None:
        """A broken build: the mark goes with the frame."""
        marks = self.log.marks
        kept = [mark for mark in marks.each() if mark[1] != place.fid]
        born = marks.born
        marks.forget()
        marks.set_born(born)
        for mark in kept:
            marks.add(mark)
            marks.set_to_do(mark)
        self.world.spawn(self, self.log.compact(), "clear sent")

    # ---- checkpoints -------------------------------------------------------------------------------------------------------------------

    def checkpoint(self) -> Steps:
        """Both disks hold all of before: what was not touched since is equal there, and its mark goes."""
        session = self.session
        if session is None or self.mode is not Mode.PAIRED or (self.checkpoint_runs and not self.has("two checkpoints at a time")):
            return
        self.checkpoint_runs = True
        try:
            marks = self.log.marks
            number = marks.checkpoint_begin(self.next_fid())
            if self.has("a checkpoint drops what was touched since"):
                number = native.MAX_U64
            before = [] if self.has("a checkpoint does not wait for ops") else list(self.ops)
            term = self.record.term

            def is_off() -> bool:
                return session.ended or self.mode is not Mode.PAIRED or self.record.term != term

            while any(not op.dropped for op in before):
                yield lambda: is_off() or all(op.dropped for op in before)
                if is_off():
                    return
            if not self.has("a checkpoint syncs the peer alone") and not (yield from self.sync()):
                return
            confirmed = 0
            if not self.has("a checkpoint syncs this node alone"):
                answer = yield from session.ask("sync", "synced")
                if answer is None:
                    return
                confirmed = answer["record_number"]
            yield from self.lock("checkpoint")
            with self.unlocking():
                if is_off():
                    return
                yield from self.commit(rules.checkpoint(self.record, peer_number=confirmed), "checkpoint")
                done = yield from self.log.compact(before=lambda: marks.checkpoint_end(number))
                if not done:
                    return
                self.world.saw("checkpoint")
                if not is_off():
                    session.send("drop", term=term, number=session.number, record_number=self.record.number)
        finally:
            self.checkpoint_runs = False

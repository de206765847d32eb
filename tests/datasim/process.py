"""What a data side does: start, go on alone, ask for a grant, stop. The order of the steps is that of rfs/replica.py and commands.py."""

from __future__ import annotations

from dataclasses import replace

from rfs import rules
from rfs.record import DataState, Record
from rfs.witness import Standing, standing
from tests.datasim import arbiter
from tests.datasim.modes import Mode
from tests.datasim.node_log import Steps
from tests.datasim.primary import Primary


class Process(Primary):
    """See the module's text."""

    # ---- life -------------------------------------------------------------------------------------------------------------------------

    def start(self) -> Steps:
        yield from self.lock("start")
        with self.unlocking():
            yield from self.log.open()
            if self.record.generation == 0:
                yield from self.log.everything()
            self.is_started = True
            if self.record.is_sole_owner:
                yield from self.become_primary(0, "sole owner")
                yield from self.go_alone(self.world.new_name(self.record), granted=False)
                self.world.saw("sole owner resumes")

    def become_primary(self, peer_term: int, cause: str) -> Steps:
        yield from self.commit(rules.start_primary(self.record, peer_term, self.identity), cause)
        yield from self.lower_born()
        self.mode, self.consent = Mode.FROZEN, False

    def lower_born(self) -> Steps:
        """What is made from now on needs no mark of its own, if the log says from which fid on."""
        if self.has("born is not lowered"):
            return
        if self.log.marks.born <= self.next_fid():
            self.log.marks.set_born(self.next_fid())  # nothing durable: what others have made since needs marks
            return
        if not (yield from self.log.compact(before=lambda: self.log.marks.set_born(self.next_fid()))):
            yield from self.log.everything()

    def go_alone(self, name: int, *, granted: bool) -> Steps:
        """Go on without the peer, under the rules. A disk that has lied ends it, also while the record does not say so yet."""
        self.be_well()
        waiting = bool(self.ops)
        if self.has("alone under the shared name"):
            changed: Record | rules.Refusal = replace(self.record, peer_may_fit=False, rewound=False, used=True, shared=False)
        else:
            changed = rules.go_alone(self.record, name, granted=granted, op_waiting=waiting)
        if isinstance(changed, Record) and self.record.peer_may_fit:
            self.world.oracle.only_holder(self.node.index)
        yield from self.commit(changed, "alone")
        if not self.record.used and self.ops:
            yield from self.commit(rules.use(self.record), "used at once")
        self.be_well()
        self.mode, self.resumable, self.needs_grant = Mode.ALONE, 0, False
        self.served = True
        for op in self.ops:
            op.lone = op.applied
        self.world.saw("alone, granted" if granted else "alone, no grant needed")
        self.world.spawn(self, self.sync_soon(), "sync soon")

    def sync_soon(self) -> Steps:
        yield "sync soon"
        yield from self.sync()

    # ---- losing the peer --------------------------------------------------------------------------------------------------------------

    def session_ended(self, was_paired: bool, left_with_consent: bool) -> None:
        self.session = None
        self.is_target_of = 0
        self.whole, self.directories_left, self.listings_under_way = set(), set(), 0
        if was_paired and not left_with_consent:
            self.consent = False
        if self.mode in (Mode.SOURCE, Mode.PAIRED):
            self.mode = Mode.FROZEN
        elif self.mode is Mode.TARGET:
            self.mode = Mode.IDLE
        if not self.is_primary and self.mode is Mode.FROZEN:
            self.become_idle()
        if self.is_primary and self.mode is Mode.FROZEN:
            self.world.spawn(self, self._after_loss(), "after loss")

    def _after_loss(self) -> Steps:
        yield from self.lock("after loss")
        with self.unlocking():
            if not self.is_primary or self.session is not None or self.mode is not Mode.FROZEN:
                return
            if self.record.data is not DataState.UPTODATE:
                return
            if self.record.peer_may_fit:
                self.needs_grant = True
                return
            yield from self.go_alone(self.world.new_name(self.record), granted=False)

    def stop(self) -> Steps:
        """In order: what waits fails, all is durable, and the log's last word is exact."""
        self.stopping = self.draining = True
        session = self.session
        if session is not None and session.stage.name == "PAIRED" and not self.is_primary:
            yield from session.leave("stops")
        if self.session is not None:
            self.session.hang_up()
        while self.session is not None:
            yield lambda: self.session is None
        yield from self.lock("stop")
        with self.unlocking():
            self.mode = Mode.IDLE
            self.drop_ops()
            if not (yield from self.sync()):
                self.stopping = self.draining = False
                return
            yield from self.log.compact(clean=True)
            yield from self.commit(rules.end(self.record), "end")
            self.world.stopped(self.node)

    # ---- grants -----------------------------------------------------------------------------------------------------------------------

    def may_ask(self) -> bool:
        """UPTODATE, without a peer; one that was rewound waits for an intact peer that is alive."""
        if self.session is not None or self.is_changing or not self.is_started or self.record.data is not DataState.UPTODATE:
            return False
        if self.mode not in (Mode.FROZEN, Mode.IDLE) or not self.record.peer_may_fit:
            return False
        return self.world.peer_is_silent(self) and not (
            self.record.rewound and self.world.peer_is_alive(self) and not self.has("a rewound node does not wait")
        )

    def ask(self) -> Steps:
        """A takeover, or going on: the name is durable before the request, and only a win that this process hears of counts."""
        yield from self.lock("grant")
        with self.unlocking():
            if self.session is not None or self.mode not in (Mode.FROZEN, Mode.IDLE) or self.record.data is not DataState.UPTODATE:
                return
            if not self.record.peer_may_fit:
                return
            name = self.world.new_name(self.record)
            if self.has("going on needs no witness"):
                won = True
            elif self.world.policy == "witness":
                won = yield from self._ask_witness(name)
            else:
                won = self.paired_in_run or self.served or self.has("a restarted node goes on")
            if not won:
                return
            yield "grant won"
            if not self.is_primary or self.mode is not Mode.FROZEN:
                yield from self.become_primary(0, "takeover")
                self.world.saw("takeover")
            yield from self.go_alone(name, granted=True)

    def _ask_witness(self, name: int) -> Steps:
        witness, index = self.world.witness, self.node.index
        if not witness.reachable[index] or witness.register is None:
            return False
        expected = witness.register
        if standing(self.record, expected.held()) is Standing.FENCED:
            self.world.saw("fenced by the witness")
            yield from self.step_down("fenced by the witness")
            return False
        if not self.has("names are not noted as tried"):
            yield from self.commit(rules.try_name(self.record, name, expected.generation), "tried")
        new = arbiter.Register(name, self.record.term, self.node.index)
        fate = self.world.fate_of_request()
        yield "request leaves"
        if fate == "late":
            witness.late.append((expected, new))
            return False
        won = witness.reachable[index] and witness.compare_and_swap(expected, new)
        yield "register swapped" if won else "register not swapped"
        return won and fate != "answer lost"

    def force(self) -> Steps:
        """The administrator's word."""
        yield from self.lock("force")
        with self.unlocking():
            if self.session is not None:
                return
            changed = rules.force(self.record, self.world.new_name(self.record))
            if isinstance(changed, rules.Refusal):
                return
            self.world.oracle.forced = True
            self.world.saw("forced")
            yield from self.commit(changed, "forced")
            # After the record: a name in the register that no record knows would fence both for ever.
            if self.world.witness.register is not None and self.world.witness.reachable[self.node.index]:
                yield from self.commit(rules.try_own_name(self.record), "own name")
                self.world.witness.put(arbiter.Register(self.record.generation, self.record.term, self.node.index))
            if not self.is_primary or self.mode is not Mode.FROZEN:
                yield from self.become_primary(0, "forced")
            yield from self.go_alone(self.world.new_name(self.record), granted=True)

"""What the control socket can ask of a replica: one coroutine per method, each a transition of its own.

A command either does what it says, durably, or raises SaidNo with one sentence. What it needs of the peer has a deadline; when the
session ends in between, the node is in a state that the next handshake understands (PROTOCOL.md §6.5), never in one of its own.
"""

import logging
from collections.abc import Mapping
from typing import Any

from rfs import added_directory, divergence, exit_codes, rules, verify
from rfs.control.server import Method
from rfs.engine import Mode
from rfs.errors import SaidNo, SessionEnded
from rfs.force import force_alone
from rfs.promotion import NOT_IN_THIS_RUN, promotable
from rfs.record import DataState, to_wire
from rfs.replica import Replica
from rfs.resolution import Wish
from rfs.session_state import SessionSlot, Stage
from rfs.status import build_statistics, build_status, build_witness
from rfs.steps import reached

log = logging.getLogger("rfs.commands")

PEER_TIMEOUT_S = 10.0
SYNC_TIMEOUT_S = 60.0

Params = dict[str, Any]


class Commands:
    """The methods of one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def table(self) -> Mapping[str, Method]:
        """By the names that the control protocol has for them."""
        changes = {
            "grant": self.grant, "promote": self.promote, "demote": self.demote, "outdate": self.outdate, "fence": self.fence,
            "recopy": self.recopy, "discard": self.discard, "arm": self.arm, "diff": self.diff, "resolve": self.resolve,
            "add_directories": self.add_directories,
            **verify.methods(self._replica),
        }  # fmt: skip
        return {
            "status": self.status,
            "stats": self.stats,
            "estimate": self.estimate,
            "unmount": self.unmount,
            "witness": self.witness,
            **{name: self._while_running(method) for name, method in changes.items()},
        }

    def _while_running(self, method: Method) -> Method:
        """A change that comes too late is refused: nothing of it would remain."""

        async def checked(params: Params) -> Params:
            if self._replica.stopping:
                raise SaidNo("this rfsmount is being unmounted")
            return await method(params)

        return checked

    async def status(self, params: Params) -> Params:
        return build_status(self._replica)

    async def stats(self, params: Params) -> Params:
        return build_statistics(self._replica)

    # ---- a divergence ------------------------------------------------------------------------------------------------------------------

    async def diff(self, params: Params) -> Params:
        """What differs between two nodes that have diverged: a summary, and the file that has it all."""
        return await divergence.ask(self._replica, Wish.DIFF)

    async def estimate(self, params: Params) -> Params:
        """What a resync of this node's trees would cost."""
        return await divergence.estimate(self._replica)

    async def resolve(self, params: Params) -> Params:
        """One node gives its data up, whose differences are saved first."""
        keep = params.get("keep")
        if keep not in ("here", "peer"):
            raise ValueError("'keep' is neither here nor peer")
        return await divergence.ask(self._replica, Wish.KEEP_MINE if keep == "here" else Wish.KEEP_YOURS)

    # ---- going on without the peer ------------------------------------------------------------------------------------------------------

    async def grant(self, params: Params) -> Params:
        """A frozen primary may go on ALONE: somebody vouches that the peer does not."""
        replica = self._replica
        reason = _text(params, "reason", "granted by the orchestrator")
        async with replica.changing:
            if replica.is_primary and replica.mode in (Mode.ALONE, Mode.UNUSED):
                return build_status(replica)
            if not replica.is_primary or replica.mode is not Mode.FROZEN or replica.session is not None:
                raise SaidNo(f"a grant is for a frozen primary, this node is {_described(replica)}")
            if params.get("peer_outdated") is True and replica.record.peer_may_fit:
                await replica.commit(rules.primary_hears_leave(replica.record), f"the peer is OUTDATED, durably: {reason}")
            if replica.arbiter is None and not replica.paired_in_run and not replica.served and replica.record.peer_may_fit:
                raise SaidNo(NOT_IN_THIS_RUN)
            await replica.go_alone_or_step_down(reason)
        return build_status(replica)

    async def witness(self, params: Params) -> Params:
        """What is known of the witness."""
        if self._replica.arbiter is None:
            raise SaidNo("this module has no witness: mount with --witness URL", exit_codes.CONFIGURATION_INVALID)
        return build_witness(self._replica) | {"schema": "rfsmount.witness/1"}

    async def arm(self, params: Params) -> Params:
        """The administrator's word: the register holds this node's generation from now on."""
        replica = self._replica
        if replica.arbiter is not None:
            async with replica.changing:
                await replica.arbiter.arm(force=params.get("force") is True, cause="armed by the administrator")
        return await self.witness(params)

    async def outdate(self, params: Params) -> Params:
        """A secondary without a session steps back durably, so that its peer may go on without it."""
        replica = self._replica
        async with replica.changing:
            if replica.is_primary:
                raise SaidNo(f"only a secondary can be outdated, this node is {_described(replica)}")
            if replica.session is not None and replica.session.stage in (Stage.PAIRED, Stage.RESYNCING_TARGET):
                raise SaidNo("this node is in a session with its peer, which therefore needs no grant")
            if replica.record.data is DataState.UPTODATE:
                replica.consent = False
                replica.resumable = 0
                await replica.engine.sync()  # what the record promises to be old is at least whole
                await replica.commit(rules.secondary_leaves(replica.record), _text(params, "reason", "outdated by the orchestrator"))
            if replica.record.data not in (DataState.OUTDATED, DataState.INCONSISTENT, DataState.FAILED):
                raise SaidNo(f"this node's data is {replica.record.data.name}")
        return build_status(replica)

    # ---- roles --------------------------------------------------------------------------------------------------------------------------

    async def promote(self, params: Params) -> Params:
        """Secondary → primary: by the peer's consent, by a grant, as the sole owner, or by force."""
        replica = self._replica
        force, granted = params.get("force") is True, params.get("granted") is True
        reason = _text(params, "reason", "promoted by the administrator")
        async with replica.changing:
            if replica.is_primary and replica.mode in (Mode.PAIRED, Mode.RESYNCING, Mode.ALONE, Mode.UNUSED):
                return build_status(replica)
            session = replica.session
            may, why = promotable(replica)
            if session is not None and session.stage is Stage.PAIRED and replica.consent and may:
                await self._promote_in_session(session, reason)
            elif force:
                await self._promote_alone(reason, granted=True, force=True)
            else:
                if session is not None and session.stage is Stage.PAIRED and not replica.consent:
                    raise SaidNo("the peer is alive and primary: demote it first, or use 'swap' of hactl")
                if not may and not granted:
                    raise SaidNo(why)
                if granted and not may:
                    _check_granted(replica)
                if may and session is not None and session.stage is Stage.HANDSHAKING:
                    # What this node may do anyway does not wait for a peer that is not ready yet: one that failed takes its time.
                    await replica.end_session(session)
                await self._promote_alone(reason, granted=granted or replica.record.peer_may_fit, force=False)
        return build_status(replica)

    async def _promote_in_session(self, session: SessionSlot, reason: str) -> None:
        """The planned swap's second half: the term is raised on both before anything is shipped the other way."""
        replica = self._replica
        resumable, replica.resumable = replica.resumable, 0  # a turn that is cut off is a doubt: compared, not resumed
        try:
            await replica.commit(rules.promote(replica.record, 0), reason)
            reached("turn-durable")
            answer = await session.ask("turn", ("turned", "refused"), PEER_TIMEOUT_S, term=replica.record.term, owner=replica.record.owner)
            if answer["type"] == "refused":
                await replica.commit(rules.demote(replica.record), "the peer refused the turn")
                raise SaidNo(f"the peer refused: {answer['reason']}")
            reached("turn-answered")
            await replica.engine.become_primary(replica.record.term, replica.record.node_bit)
            await replica.engine.session_turn(now_source=True)
            reached("turn-done")
        except (SessionEnded, OSError) as ended:
            await replica.commit(rules.demote(replica.record), "the turn was cut off")
            raise SaidNo(f"the session ended during the promotion ({ended}); look at 'status' and try again", exit_codes.FAILED) from ended
        replica.resumable = resumable
        replica.consent = False
        replica.served = True
        await replica.mount()
        log.info("transition to=PRIMARY term=%d by=turn cause=%s", replica.record.term, reason)
        replica.touch()

    async def _promote_alone(self, reason: str, *, granted: bool, force: bool) -> None:
        replica = self._replica
        if replica.session is not None:
            raise SaidNo("a handshake with the peer is under way; try again in a moment", exit_codes.FAILED)
        if replica.is_primary and replica.mode is Mode.FROZEN and not force:
            await replica.go_alone_or_step_down(reason)
        else:
            won = None if force else await replica.win(reason)  # before anything else: who does not get it stays what it is
            if force:
                await force_alone(replica, reason)
            if not replica.is_primary or replica.mode is not Mode.FROZEN:
                if replica.mode is not Mode.IDLE:
                    await replica.renew_engine()
                await replica.become_primary(won.term if won is not None else 0, reason)
            await replica.go_alone(reason, granted=granted, won=won)
        reached("promoted-unmounted")
        await replica.mount()
        if force and replica.arbiter is not None:
            replica.note = await replica.arbiter.write_over(f"forced: {reason}")
            replica.touch()

    async def demote(self, params: Params) -> Params:
        """Primary → secondary in order. In a session: every op answered, both copies durable, the peer agrees to be promoted. `alone`: the
        administrator gives the role to a peer whose copy is not whole; what it lacks stays here."""
        replica = self._replica
        async with replica.changing:
            if not replica.is_primary:
                return build_status(replica)
            session = replica.session
            if session is not None and session.stage is not Stage.PAIRED and params.get("alone") is True:
                await replica.end_session(session)
                session = None
                if replica.mode is Mode.FROZEN:  # the resync is cut off: nobody needs to be asked
                    await replica.go_alone("the role is given away before the peer's copy is whole", granted=False)
            if session is not None and session.stage is not Stage.PAIRED:
                raise SaidNo("the peer's copy is not complete yet; wait for the end of the resync")
            if session is None and replica.mode is Mode.FROZEN:
                raise SaidNo("operations wait for the peer or a grant; a frozen primary cannot be demoted in order")
            await self._demote(session)
        return build_status(replica)

    async def _demote(self, session: SessionSlot | None) -> None:
        replica = self._replica
        try:
            await replica.engine.demote()
            reached("demote-drained")
            await replica.engine.sync()
            if session is not None:
                await session.ask("sync", ("synced",), SYNC_TIMEOUT_S, number=1)
            reached("demote-synced")
            await replica.unmount(abort=False)
            await replica.commit(rules.demote(replica.record), "demoted in order")
            reached("demote-durable")
            if session is not None:
                await session.ask("demoted", ("goodbye",), PEER_TIMEOUT_S, record=to_wire(replica.record))
                reached("demote-agreed")
        except (SessionEnded, OSError) as failure:
            if session is not None:
                await session.hang_up()
            raise SaidNo(f"the session ended during the demotion ({failure}); look at 'status'", exit_codes.FAILED) from failure
        replica.served = False
        log.info("transition to=SECONDARY by=demote")
        replica.touch()

    async def recopy(self, params: Params) -> Params:
        """What is known of the peer's copy is forgotten, durably: it is compared as a whole in the session that follows."""
        replica = self._replica
        async with replica.changing:
            if not replica.is_primary:
                raise SaidNo(f"only a primary's data can be copied, this node is {_described(replica)}")
            await verify.recopy(replica)
        return build_status(replica)

    async def discard(self, params: Params) -> Params:
        """A person's word: what a resync took away here is gone for good."""
        replica = self._replica
        if not replica.removals:
            raise SaidNo("nothing is set aside on this node: there is nothing to discard")
        try:
            await replica.engine.discard_set_aside()
        except OSError as failure:
            raise SaidNo(f"not all of what is set aside could be removed ({failure}); try again", exit_codes.FAILED) from failure
        finally:
            await replica.look_for_removals()
        return build_status(replica)

    async def add_directories(self, params: Params) -> Params:
        """Directories more, at the end; `check`: only whether that could be done."""
        await added_directory.add(self._replica, added_directory.read(params), check_only=params.get("check") is True)
        return build_status(self._replica)

    async def fence(self, params: Params) -> Params:
        """Stop serving at once: the orchestrator knows that the peer owns the data."""
        replica = self._replica
        async with replica.changing:
            await replica.step_down(_text(params, "reason", "fenced by the orchestrator"))
        return build_status(replica)

    # ---- the end ------------------------------------------------------------------------------------------------------------------------

    async def unmount(self, params: Params) -> Params:
        """Goodbye to the peer, every layer off, exit. An orchestrator keeps the guards: what it has stopped is not to be touched."""
        replica = self._replica
        if replica.stopping:
            await replica.finished.wait()
            return {}
        replica.stopping = True
        replica.keeps_guards = params.get("keep_guard") is True
        try:
            async with replica.changing:
                await self._say_goodbye()
                try:
                    await replica.engine.sync()
                    await replica.commit(rules.end(replica.record), "orderly end")
                except OSError as failure:
                    log.error("this copy could not be made durable cause=%s", failure)
                await replica.unmount(abort=True)
        except BaseException:
            replica.stopping = False  # it can be asked for again
            raise
        replica.finished.set()
        return {}

    async def _say_goodbye(self) -> None:
        """A complete secondary steps back first; a primary leaves a complete peer able to take over."""
        replica, session = self._replica, self._replica.session
        try:
            if session is not None and replica.is_primary and session.stage is Stage.PAIRED:
                await self._demote(session)
                await session.leave("orderly unmount", consent=True, orderly=True)
            elif session is not None and session.stage in (Stage.PAIRED, Stage.RESYNCING_SOURCE, Stage.RESYNCING_TARGET):
                if replica.is_primary:
                    await self._demote_quietly()
                await session.leave("orderly unmount", consent=False, orderly=True)
            elif replica.is_primary and replica.mode in (Mode.ALONE, Mode.UNUSED):
                await self._demote_quietly()
        except (SaidNo, OSError) as failure:
            log.warning("goodbye incomplete cause=%s", failure)

    async def _demote_quietly(self) -> None:
        """The ops under way are answered; the record keeps its role: a sole owner resumes by itself at its next start."""
        try:
            await self._replica.engine.demote()
        except OSError as failure:
            log.warning("operations under way were not finished cause=%s", failure)


def _check_granted(replica: Replica) -> None:
    """What even a grant does not make good."""
    in_run = replica.paired_in_run or replica.served
    if replica.record.data is not DataState.UPTODATE:
        raise SaidNo(promotable(replica)[1])
    if not in_run and replica.record.peer_may_fit and replica.arbiter is None:
        raise SaidNo(NOT_IN_THIS_RUN)


def _described(replica: Replica) -> str:
    return f"{replica.record.role.name.lower()} ({replica.mode.name.lower()})"


def _text(params: Params, name: str, otherwise: str) -> str:
    value = params.get(name)
    return value[:500] if isinstance(value, str) and value else otherwise

"""The grant, for real: with a witness configured only a compare-and-swap that this process has won lets a node go on alone.

`win` is one attempt, and the only place where a name is asked for. It runs under the replica's lock, from the look at the record to the
durable mint, so no handshake comes between. The tasks around it keep the node's key under its lease, create the register once, and ask
again and again for a primary that is frozen. Nothing here is needed while the pair is healthy: a witness that is away is a warning then.
"""

import logging
import secrets
from collections.abc import Sequence
from typing import Final, Protocol

import trio

from rfs import exit_codes, rules, witness
from rfs.engine import Mode
from rfs.errors import NotGranted, SaidNo
from rfs.etcd import Stored, Swapped, WitnessSilent
from rfs.grants import WitnessState, WitnessView, Won
from rfs.record import DataState
from rfs.replica import Replica
from rfs.settings import OnPeerLoss
from rfs.witness import Held, Standing

log = logging.getLogger("rfs.witness")

LEASE_S: Final = 10
BEAT_S: Final = 3.0  # a lease is renewed three times before it ends
ATTEMPT_TIMEOUT_S: Final = 4.0  # a handshake waits for a grant that is asked for, but not longer than this
AGAIN_S: Final = 0.5
AGAIN_MAX_S: Final = 8.0
START_PATIENCE_S: Final = 12.0  # a primary that was restarted looks for its peer first; longer than a lease, so that it is seen to be dead

PEER_IS_INTACT: Final = (
    "this node lost power since it was last paired and its peer, which lives, may hold what was lost: "
    "mend the link between the nodes, or promote the peer"
)
SERVING: Final = (Mode.PAIRED, Mode.ALONE, Mode.UNUSED)


class Register(Protocol):
    """The third party: etcd.Etcd, or a test's own."""

    async def get(self, key: str) -> Stored:
        """What the key holds."""

    async def swap(self, key: str, expected: Stored, value: bytes, absent: Sequence[str] = ()) -> Swapped:
        """Compare and swap."""

    async def exists(self, key: str) -> bool:
        """Is it there?"""

    async def grant_lease(self, seconds: int) -> int:
        """A new lease."""

    async def keep_lease(self, lease: int) -> bool:
        """Renew it."""

    async def revoke_lease(self, lease: int) -> None:
        """End it."""

    async def put(self, key: str, value: bytes, lease: int) -> None:
        """A key that lives as long as the lease."""


class Arbiter:
    """One node's dealings with the witness of its module."""

    def __init__(self, replica: Replica, register: Register) -> None:
        self.view = WitnessView()
        self._replica = replica
        self._register = register
        self._lease = 0
        self._key_is_there = False
        self._key = witness.register_key(replica.record.cluster, replica.record.module)

    # ---- one attempt --------------------------------------------------------------------------------------------------------------------

    async def win(self, cause: str) -> Won:
        """A grant, or NotGranted. The caller holds the replica's lock and mints the name before it lets go."""
        replica = self._replica
        assert replica.changing.locked(), "a grant without the lock"
        if replica.record.data is not DataState.UPTODATE:
            raise SaidNo(f"this copy is {replica.record.data.name}: no witness can make it whole")
        try:
            with trio.fail_after(ATTEMPT_TIMEOUT_S):
                return await self._attempt(cause)
        except WitnessSilent as silent:
            raise self._silent(str(silent)) from silent
        except trio.TooSlowError:
            raise self._silent(f"no answer within {ATTEMPT_TIMEOUT_S:g} s") from None

    async def _attempt(self, cause: str) -> Won:
        replica = self._replica
        stored, held = await self._look()
        self._check(held)
        assert held is not None
        await self._check_intact_peer()
        name = secrets.randbits(64) or 1
        record = await replica.commit(rules.try_name(replica.record, name, held.generation), f"asks the witness: {cause}")
        wanted = Held(name, max(record.term, held.term) + (not replica.is_primary), record.node_id)
        answer = await self._register.swap(self._key, stored, witness.encode(wanted), self._goes_first())
        if answer.done:
            self._see(WitnessView(WitnessState.OK, held=wanted))
            log.info("grant won from=%016x to=%016x cause=%s", held.generation, name, cause)
            return Won(name, held.term)
        self._check(witness.decode(answer.stored.value))
        if answer.in_the_way:
            raise NotGranted(PEER_IS_INTACT)
        raise NotGranted("the witness's register changed while it was asked: it is asked again")

    def _goes_first(self) -> list[str]:
        """§6.3: the key that must not be there, if there is one."""
        record = self._replica.record
        peer = witness.must_find_absent(record)
        return [witness.intact_key(record.cluster, record.module, peer)] if peer else []

    async def _check_intact_peer(self) -> None:
        """The request holds the same condition; asked before, it costs no name each time."""
        for key in self._goes_first():
            if await self._register.exists(key):
                raise NotGranted(PEER_IS_INTACT)

    async def _look(self) -> tuple[Stored, Held | None]:
        """What the register holds; status shows it from now on."""
        stored = await self._register.get(self._key)
        held = witness.decode(stored.value)
        record = self._replica.record
        match witness.standing(record, held):
            case Standing.EMPTY if record.armed:
                self._see(WitnessView(WitnessState.EMPTY, _emptied(self._replica)))
            case Standing.FENCED if held is not None and record.data is DataState.UPTODATE:
                unknown = f"its register names {held.generation:016x}, of which this node knows nothing"
                self._see(WitnessView(WitnessState.UNKNOWN_NAME, unknown, held))
            case _:
                self._see(WitnessView(WitnessState.OK, held=held))
        return stored, held

    def _check(self, held: Held | None) -> None:
        match witness.standing(self._replica.record, held):
            case Standing.EMPTY:
                raise NotGranted(_emptied(self._replica))
            case Standing.FENCED:
                raise NotGranted("the witness gave the grant to the peer: this node waits for it and takes its data", fenced=True)
            case Standing.MAY_START:
                pass

    def _silent(self, why: str) -> NotGranted:
        self._see(WitnessView(WitnessState.UNREACHABLE, why, self.view.held))
        return NotGranted(f"the witness cannot be reached ({why}): it is asked again until it, or the peer, is back")

    def _see(self, view: WitnessView) -> None:
        if view != self.view:
            if view.state is not self.view.state:
                level = logging.INFO if view.state is WitnessState.OK else logging.WARNING
                log.log(level, "witness state=%s cause=%s", view.state.value, view.reason)
            self.view = view
            self._replica.touch()

    # ---- creating the register, and writing over it -------------------------------------------------------------------------------------

    async def arm(self, *, force: bool, cause: str) -> None:
        """Make the register name this node's generation. Without force only where there is none; the caller holds the lock."""
        replica = self._replica
        assert replica.changing.locked(), "the register is written under the lock"
        record = replica.record
        if record.data is not DataState.UPTODATE:
            raise SaidNo(f"this copy is {record.data.name}: arm the witness on the node that has the data")
        if not force and not (replica.is_primary and replica.mode in SERVING):
            raise SaidNo("only a primary that serves arms the witness; with --force, this node's copy counts as the newest")
        try:
            with trio.fail_after(ATTEMPT_TIMEOUT_S):
                await self._arm(force, cause)
        except WitnessSilent as silent:
            raise SaidNo(self._silent(str(silent)).sentence, exit_codes.TIMEOUT) from silent
        except trio.TooSlowError:
            raise SaidNo(self._silent(f"no answer within {ATTEMPT_TIMEOUT_S:g} s").sentence, exit_codes.TIMEOUT) from None

    async def _arm(self, force: bool, cause: str) -> None:
        replica = self._replica
        stored, held = await self._look()
        standing = witness.standing(replica.record, held)
        if standing is Standing.MAY_START and not force:
            await replica.commit(rules.arm(replica.record), "the witness's register exists")
            return
        if standing is Standing.FENCED and not force:
            raise SaidNo(
                f"the witness's register names {held.generation if held else 0:016x}, of which this node knows nothing: "
                "look at the other node, or write over it with --force"
            )
        name = replica.record.generation
        await replica.commit(rules.try_own_name(replica.record), cause)
        answer = await self._register.swap(self._key, stored, witness.encode(Held(name, replica.record.term, replica.record.node_id)))
        if not answer.done:
            raise SaidNo("the witness's register changed while it was written; look at 'witness status' and try again", exit_codes.FAILED)
        await replica.commit(rules.arm(replica.record), "the witness's register exists")
        await self._look()
        log.info("register written generation=%016x cause=%s", name, cause)

    async def write_over(self, cause: str) -> str:
        """After a force: the register is this node's, if it can be reached; else a sentence."""
        try:
            await self.arm(force=True, cause=cause)
        except SaidNo as refusal:
            return f"the witness's register was not written ({refusal.sentence}): when it can be reached, 'rfsmount witness arm --force'"
        return ""

    # ---- what goes on all the time ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat)
                nursery.start_soon(self._ask_for_the_frozen)
                nursery.start_soon(self._be_patient_at_start)
        finally:
            await self._give_lease_back()

    async def _beat(self) -> None:
        """The node's key under its lease, the register created once; what is seen on the way is what status shows."""
        said = ""
        while True:
            try:
                await self._keep_key()
                await self._look()
                await self._create_once()
            except WitnessSilent as silent:
                self._silent(str(silent))
            except SaidNo as refusal:
                if refusal.sentence != said:
                    said = refusal.sentence
                    log.warning("the witness's register could not be created cause=%s", said)
            await trio.sleep(BEAT_S)

    async def _keep_key(self) -> None:
        """§6.3: there as long as this node lives and its copy is whole and has lost nothing."""
        record = self._replica.record
        key = witness.intact_key(record.cluster, record.module, record.node_id)
        if not witness.is_intact(record):
            await self._drop_lease()
            return
        if not self._lease or not await self._register.keep_lease(self._lease):
            self._lease, self._key_is_there = await self._register.grant_lease(LEASE_S), False
        if not self._key_is_there:
            await self._register.put(key, record.node.encode(), self._lease)
            self._key_is_there = True

    async def _drop_lease(self) -> None:
        lease, self._lease, self._key_is_there = self._lease, 0, False
        if lease:
            await self._register.revoke_lease(lease)

    async def _give_lease_back(self) -> None:
        """An orderly end is seen at once; a witness that does not answer sees it when the lease has run out."""
        with trio.move_on_after(1.0, shield=True):
            try:
                await self._drop_lease()
            except WitnessSilent:
                pass

    async def _create_once(self) -> None:
        """§1: only a primary that serves, and only if no record says that the register existed before."""
        replica = self._replica
        if replica.record.armed or not replica.is_primary or replica.mode not in SERVING:
            return
        async with replica.changing:
            if not replica.record.armed and replica.is_primary and replica.mode in SERVING and not replica.stopping:
                await self.arm(force=False, cause="the witness's register is created")

    # ---- asking for a frozen primary ----------------------------------------------------------------------------------------------------

    async def _be_patient_at_start(self) -> None:
        """A primary that was restarted is frozen without having lost anybody: after a while without its peer it needs a grant too."""
        await trio.sleep(START_PATIENCE_S)
        replica = self._replica
        while not replica.needs_grant and self._is_frozen() and not replica.is_live.is_set():
            if replica.session is None and replica.refused is None:
                replica.needs_grant = True
                replica.touch()
            await replica.changed()

    async def _ask_for_the_frozen(self) -> None:
        """Standing alone nobody else asks. The first question comes at once, later ones less and less often."""
        replica, again_s = self._replica, AGAIN_S
        while True:
            while not self._wants_grant():
                again_s = AGAIN_S
                await replica.changed()
            try:
                await self._look()  # without the lock: a witness that is away keeps no handshake waiting
            except WitnessSilent as silent:
                replica.note = self._silent(str(silent)).sentence
                replica.touch()
            else:
                async with replica.changing:
                    if self._wants_grant():
                        await self._go_on("the peer was lost, and the witness granted it")
            if self._wants_grant():
                await trio.sleep(again_s)
                again_s = min(2 * again_s, AGAIN_MAX_S)

    def _is_frozen(self) -> bool:
        replica = self._replica
        return replica.is_primary and replica.mode is Mode.FROZEN and not replica.stopping

    def _wants_grant(self) -> bool:
        replica = self._replica
        asks = replica.needs_grant and replica.settings.on_peer_loss is OnPeerLoss.ALONE
        return asks and replica.session is None and self._is_frozen()

    async def _go_on(self, cause: str) -> None:
        replica = self._replica
        try:
            await replica.go_alone_or_step_down(cause)
        except SaidNo as refusal:
            replica.note = refusal.sentence
            log.warning("frozen: %s", refusal.sentence)
            replica.touch()


def _emptied(replica: Replica) -> str:
    command = f"rfsmount witness arm --force --state {replica.settings.state_directory}"
    return f"the witness's register is empty and grants nothing: '{command}' on the node that has the data"

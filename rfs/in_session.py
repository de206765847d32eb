"""What the peer may say at any time within a session: make durable, I have demoted myself, I promote myself, I leave."""

import logging

import trio

from rfs import rules
from rfs.errors import PeerProtocolError, SaidNo, SessionEnded
from rfs.peer_messages import Message
from rfs.record import Role
from rfs.session_core import CHECKPOINT_SYNC, GOODBYE_TIMEOUT_S, SessionCore
from rfs.session_state import Stage
from rfs.steps import reached

log = logging.getLogger("rfs.session")

UNASKED = frozenset({"sync", "checkpoint", "demoted", "turn", "leaving"})


async def on_message(core: SessionCore, message: Message) -> None:
    """One message of UNASKED; runs in its own task."""
    kind = message["type"]
    try:
        if kind == "sync":
            await _sync(core, message["number"])
        elif kind == "checkpoint":
            await _hear_checkpoint(core, message)
        elif kind == "demoted":
            await _hear_demoted(core, message)
        elif kind == "turn":
            await _hear_turn(core, message)
        else:
            await _hear_leaving(core, message)
    except (OSError, SaidNo, PeerProtocolError) as failure:
        raise SessionEnded(f"'{kind}' of the peer could not be followed: {failure}") from failure


async def _sync(core: SessionCore, number: int) -> None:
    replica = core.replica
    seq = replica.engine.statistics().applied_seq
    await replica.engine.sync()
    if number == CHECKPOINT_SYNC and not replica.is_primary:
        async with replica.changing:
            await replica.commit(rules.synced_for_checkpoint(replica.record, seq), "synced for a checkpoint")
            reached("target-checkpoint-synced")
    await core.link.send("synced", number=number, record_number=replica.record.number)


async def _hear_checkpoint(core: SessionCore, message: Message) -> None:
    """Both copies are durable and the peer has dropped its marks: ours, of an earlier time as primary, go too."""
    replica = core.replica
    async with replica.changing:
        heard = rules.hear_checkpoint(
            replica.record, session=message["session"], term=message["term"], in_session=replica.record.session
        )  # fmt: skip
        if isinstance(heard, rules.Refusal) or core.stage is not Stage.PAIRED or core.apply_failed:
            log.info("a checkpoint of the peer's is ignored cause=%s", heard)
            return
        await replica.commit(heard, "the peer's checkpoint")
        reached("checkpoint-heard")
        await replica.engine.forget_marks()
        reached("marks-forgotten")


async def _hear_demoted(core: SessionCore, message: Message) -> None:
    replica = core.replica
    peer = core.check_record(message["record"])
    if peer.role is not Role.SECONDARY or replica.is_primary or core.stage is not Stage.PAIRED:
        raise PeerProtocolError("a demotion that does not fit the session")
    replica.consent = True
    reached("demoted-heard")
    log.info("the peer has demoted itself and agrees that this node is promoted")
    replica.touch()
    await core.link.send("goodbye")


async def _hear_turn(core: SessionCore, message: Message) -> None:
    """The peer promotes itself, with our consent: from here on it ships and we apply."""
    replica = core.replica
    with trio.move_on_after(GOODBYE_TIMEOUT_S):
        async with replica.changing:
            if replica.is_primary or core.stage is not Stage.PAIRED or message["term"] <= replica.record.term:
                await core.link.send("refused", reason=f"{replica.record.node} has not demoted itself")
                return
            await replica.commit(rules.learn_term(replica.record, message["term"], message["owner"]), "the peer is promoted")
            reached("turn-heard")
            await replica.engine.session_turn(now_source=False)
            reached("turn-applied")
            replica.consent = False
            await core.link.send("turned")
            log.info("turned: the peer is primary term=%d", message["term"])
            return
    await core.link.send("refused", reason=f"{replica.record.node} is busy with another change")


async def _hear_leaving(core: SessionCore, message: Message) -> None:
    """The peer goes in order, or cannot go on. If it is durably unfit we need no grant; if it agrees we may be promoted."""
    replica = core.replica
    async with replica.changing:
        if message["outdated"] and replica.is_primary:
            await replica.commit(rules.primary_hears_leave(replica.record), "the peer has left")
            reached("leave-heard")
        if message["consent"] and not replica.is_primary and core.stage is Stage.PAIRED:
            replica.consent = core.left_with_consent = True
        replica.note = f"{core.link.theirs.node} left: {message['reason']}"
        await core.link.send("goodbye")
    raise SessionEnded(replica.note)

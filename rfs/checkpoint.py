"""Checkpoints: from time to time both nodes make durable what they hold, and the marks of before are dropped (docs/protocol.md §5).

    ops of before answered → the peer syncs → this node syncs → `base` durable → marks dropped here → the peer is told, and drops its own

Never both nodes sync at once: one of them always answers at its usual speed. What fails on the way leaves all marks as they are, and
the next one tries again. A sync that fails makes the copy FAILED by itself.
"""

import logging

import trio

from rfs import rules
from rfs.control_link import SYNC_TIMEOUT_S
from rfs.errors import SessionEnded
from rfs.record import DataState
from rfs.session_core import CHECKPOINT_SYNC, SessionCore
from rfs.session_state import Stage
from rfs.steps import reached

log = logging.getLogger("rfs.session")

LOOK_S = 0.5
MOST_PLACES = 4096  # a checkpoint is due at once when so many places are hot


async def keep(core: SessionCore) -> None:
    """As long as the session lasts."""
    last = trio.current_time()
    new = True  # what a resync has brought is marked until the first one: it is due at once
    while True:
        await trio.sleep(LOOK_S)
        if not is_due(core, trio.current_time() - last, new=new):
            continue
        try:
            new = not await take(core) and new
        except OSError as failure:
            log.info("no checkpoint cause=%s", failure.strerror or failure)
        last = trio.current_time()


def is_due(core: SessionCore, age_s: float, *, new: bool) -> bool:
    """Is there something to drop, and is it time?"""
    replica = core.replica
    if core.stage is not Stage.PAIRED or not replica.is_primary or replica.changing.locked():
        return False
    statistics = replica.engine.statistics()
    if not statistics.marked_places and not statistics.marked_everything and replica.record.base == replica.record.generation:
        return False
    return new or age_s >= replica.settings.checkpoint_s or statistics.marked_places >= MOST_PLACES


async def take(core: SessionCore) -> bool:
    """One checkpoint; True when marks were dropped."""
    replica, engine = core.replica, core.replica.engine
    await engine.begin_checkpoint()
    reached("checkpoint-begun")
    synced = await core.ask("sync", ("synced",), SYNC_TIMEOUT_S, number=CHECKPOINT_SYNC)
    reached("checkpoint-peer-synced")
    await engine.sync()
    reached("checkpoint-synced")
    async with replica.changing:
        if core.stage is not Stage.PAIRED or not replica.is_primary or replica.record.data is not DataState.UPTODATE:
            return False
        await replica.commit(rules.checkpoint(replica.record, peer_number=synced["record_number"]), "checkpoint")
        reached("checkpoint-recorded")
        await engine.end_checkpoint()
        reached("marks-dropped")
        try:
            await core.link.send("checkpoint", session=replica.record.session, term=replica.record.term)
            reached("checkpoint-told")
        except SessionEnded as ended:
            log.info("the peer did not hear of the checkpoint cause=%s", ended)
    replica.touch()
    return True

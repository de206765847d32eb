"""`promote --force`: the administrator's word, also of a copy that was cut off inside a resync, if what it was before can be put back."""

import logging
import secrets

from rfs import exit_codes, rules
from rfs.engine import Mode, Snapshot
from rfs.errors import SaidNo
from rfs.record import DataState
from rfs.replica import Replica

log = logging.getLogger("rfs.force")


async def force_alone(replica: Replica, reason: str) -> None:
    """The record is UPTODATE under a new name afterwards, or nothing has changed and SaidNo says why.

    In this order: all of before is put back and durable, then the record says so, then the snapshot goes. Whoever is killed in between has
    an INCONSISTENT copy with its snapshot, or a whole one.
    """
    restored = False
    if replica.record.data is DataState.INCONSISTENT and replica.record.generation and replica.engine.snapshot() is not Snapshot.NONE:
        await _restore(replica)
        restored = True
    await replica.commit(rules.force(replica.record, secrets.randbits(64) or 1, restored=restored), f"forced: {reason}")
    if restored:
        await throw_away(replica)


async def _restore(replica: Replica) -> None:
    if replica.mode is not Mode.IDLE:
        await replica.renew_engine()
    try:
        await replica.engine.restore_before()
    except OSError as failure:
        raise SaidNo(f"what this copy was before the resync cannot be put back: {failure}", exit_codes.FAILED) from failure
    log.info("put back what this copy was before the resync")


async def throw_away(replica: Replica) -> None:
    """It is of no use any more; what cannot be removed now is removed by the next resync."""
    try:
        await replica.engine.end_before()
    except OSError as failure:
        log.warning("cannot remove the snapshot of before: %s", failure)

"""May this node be promoted? Asked by the command itself and shown by status, so that both say the same."""

from rfs.record import DataState
from rfs.replica import Replica

NOT_IN_THIS_RUN = "this node was restarted since it was last paired and its peer may have gone on: wait for the peer, or promote --force"


def promotable(replica: Replica) -> tuple[bool, str]:
    """May this node be promoted without force, and without anybody's grant? With the sentence that says why (not)."""
    record = replica.record
    if replica.is_primary:
        return False, "this node is primary"
    if record.data is not DataState.UPTODATE:
        return False, f"this copy is {record.data.name}: promote the peer, or let it resync this one first"
    if replica.consent:
        return True, "the peer has demoted itself and agrees"
    if not record.peer_may_fit:
        return True, "the peer's copy is durably unfit"
    if replica.session is not None:
        return False, "the peer is alive and has not agreed: demote it first"
    if replica.arbiter is not None:
        return False, "the peer may have gone on: 'promote' asks the witness"
    if replica.paired_in_run:
        return False, "the peer is lost and may have gone on: a grant is needed"
    return False, NOT_IN_THIS_RUN

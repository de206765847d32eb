"""Rules that the simulator asks for and rfs/rules.py does not have yet, to be dropped with them. test_findings.py breaks without.

A record that was set back is recognised by its number, which then counts up again with each write and soon passes what its peer has seen.
So what is confirmed never goes down; a copy that is to be compared in full becomes generation 0 before it writes anything else, and the
next handshake is a first copy if this one is cut off; when it is whole again it counts on from what was confirmed.
"""

from collections.abc import Iterable
from dataclasses import replace

from rfs import rules
from rfs.record import Record
from rfs.witness import merged


def enter_session(record: Record, identity: rules.Identity, peer: Record, *, source: bool) -> Record:
    entered = rules.enter_session(record, identity, peer, source=source)
    known = record.peer_id == peer.node_id and record.peer_confirmed_number > peer.number
    return replace(entered, peer_confirmed_number=record.peer_confirmed_number) if known else entered


def new_again(record: Record) -> Record:
    """The target of a full compare."""
    return rules.target_begins(record, 0)


def target_adopts(record: Record, source: Record, session: int) -> Record:
    adopted = rules.target_adopts(record, source, session)
    return replace(adopted, number=max(record.number, source.peer_confirmed_number))


def learns_given_up(record: Record, names: Iterable[int]) -> Record:
    """The source, once its target has durably given a fork up: its names may be in the register. Before, they might be granted still."""
    return replace(record, tried=merged(record.tried, [name for name in names if name and name not in record.lineage]))

"""What a session has to compare: nothing, what is marked on either node, or everything.

Decided by the source from the agreed decision, both records and what both say of their marks; the target does what it is told in "open".
Doubt on either side widens it for both.
"""

from dataclasses import dataclass

from rfs import rules
from rfs.decide import Decision, Travels
from rfs.engine import Statistics
from rfs.peer_messages import Message
from rfs.record import Record
from rfs.replica import Replica

NOTHING, SOME, EVERYTHING = range(3)  # how much is marked on a node


@dataclass(frozen=True, slots=True)
class ResyncScope:
    """`direct`: there is nothing to compare. `fresh`: bit i is set when directory i of the target is empty."""

    direct: bool
    everything: bool
    fresh: int

    @property
    def word(self) -> str:
        """For people."""
        return "nothing" if self.direct else "everything" if self.everything else "marks"


def marked(statistics: Statistics) -> int:
    """How much is marked here."""
    if statistics.marked_everything:
        return EVERYTHING
    return SOME if statistics.marked_places else NOTHING


def scope_of(decision: Decision, replica: Replica, target: Record, theirs: Message) -> ResyncScope:
    """The source's view, after both have agreed who it is."""
    union = max(marked(replica.engine.statistics()), theirs["marks"])
    everything = decision.travels is Travels.EVERYTHING or union >= EVERYTHING
    nothing = not everything and union == NOTHING
    direct = rules.may_pair_directly(replica.record, target, nothing_marked=nothing)
    return ResyncScope(direct, everything, theirs["empty"] if everything else 0)

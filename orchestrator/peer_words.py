"""What the peer last said about each of its modules, put together from datagrams of which any may be lost, late or doubled.

The core decides module by module: no rule compares what the peer says of two modules. So what must never be mixed are the fields of one
module, and they never are: a summary is taken whole or not at all. What may be mixed is the age of *different* modules, and that says no
more than what was true before there were parts: of each module we know what the peer said at some moment, and later never what it said
before that moment (each name has the counter of the datagram that spoke of it last; both networks and the call channel count alike).

Which fields could do harm when they are old? `serves` and `term` (who is fenced, whether a takeover is refused), `rfs_alive` and
`yielded` (each permits to go on without asking), `complete` and the state (to whom the role is handed). As long as there was one datagram
for all, a peer that counted as alive had said all of it within the timeout. With parts, one may be lost again and again while the others
prove that the peer lives, so age has to be bounded here: what was said longer ago than the timeout *fades* to what permits nothing. It
has not yielded, its rfsmount counts as alive (so it is asked, over the call channel, which answers or does not), its copy counts as
incomplete, and it is not SECOND, and of its resources nothing is known. What it serves, and under which term, stays: to believe that the
peer serves forbids more than it permits, and a node that is to be fenced by an old word was to be fenced when the word was new. The other
way round, a new "I serve" that is lost for a while is not worse than one whose only datagram was lost: it comes with every pulse, on
every network, and over the call channel at once when it matters.

Names that the peer no longer has: each datagram says everything about its range, so a name that is in it and is not named is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from orchestrator.core.states import Readiness, State, Summary
from orchestrator.pulse import MODULES_MAX, Share

KNOWN_MAX: Final = 2 * MODULES_MAX  # names with and without a summary; who sends more has no use for it


@dataclass(frozen=True, slots=True)
class Word:
    """The newest that was said about one name; None: that the peer has no such module."""

    counter: int
    at: float
    summary: Summary | None


def faded(summary: Summary) -> Summary:
    """The same, after nothing was heard of it for too long: what permits something does not count any more."""
    stale = replace(summary, yielded=False, rfs_alive=True, complete=False, catalogue=0)
    return replace(stale, readiness=Readiness.TRANSIENT) if summary.state is State.SECOND else stale


class PeerWords:
    """Of one incarnation of the peer's hactld at a time: another one begins anew."""

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self.incarnation = 0
        self._words: dict[str, Word] = {}
        self._view: Mapping[str, Summary] = {}

    def heard(self, incarnation: int, counter: int, share: Share, at: float) -> None:
        """A datagram, said at `at`."""
        if incarnation != self.incarnation:
            self.incarnation, self._words, self._view = incarnation, {}, {}
        for name, word in self._words.items():
            if counter > word.counter and word.summary is not None and name not in share.modules and share.speaks_of(name):
                self._words[name] = Word(counter, at, None)
        self._take(counter, share.modules, at, again=False)

    def told(self, incarnation: int, counter: int, modules: Mapping[str, Summary], at: float) -> bool:
        """The same over the call channel, said after the datagram with this counter and before the next. Of the incarnation that is
        heard, or it does not count."""
        if incarnation != self.incarnation:
            return False
        self._take(counter, modules, at, again=True)
        return True

    def _take(self, counter: int, modules: Mapping[str, Summary], at: float, *, again: bool) -> None:
        for name, summary in modules.items():
            word = self._words.get(name)
            if word is None and len(self._words) >= KNOWN_MAX:
                continue
            if word is None or counter > word.counter or (again and counter == word.counter):
                self._words[name] = Word(counter, at, summary)

    def now(self, now: float) -> Mapping[str, Summary]:
        """All of it, as far as it counts now. The same object as long as it says the same."""
        oldest = now - self.patience_s
        view = {
            name: word.summary if word.at > oldest else faded(word.summary)
            for name, word in self._words.items()
            if word.summary is not None
        }
        if view != self._view:
            self._view = view
        return self._view

"""The language of failover rules: what a rule says, and whether it is so. Pure, and without a word about modules or nodes.

    TERM      [local.|remote.]RESOURCE is [not] init|up|down|unknown
    RESOURCE  TYPE.NAME, or TYPE.*

A resource is what a checker watches: `tcp.db`, `interface.lan`. *init*: it is being looked at, and nothing was said yet. *unknown*:
nobody looks, or, of the peer, it is silent or does not say. A rule holds when every term of its `all` is so and, where it has an `any`,
one of that. `TYPE.*` stands for every resource of the type, as if they were written out: in `all` each must be so, in `any` one suffices.

There are no brackets, no order of evaluation and no values beside the four states: whoever reads a rule at night has read all of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

EXAMPLE: Final = 'write for example "tcp.db is down" or "remote.ping.gateway is not up"'


class ResourceState(Enum):
    """What is known of a resource."""

    INIT = "init"
    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


States = Mapping[str, ResourceState]  # by resource; what is not in it is unknown


class BadTerm(ValueError):
    """This is no term. `word` is what is wrong, `known` what could stand there."""

    def __init__(self, sentence: str, word: str = "", known: Collection[str] = ()) -> None:
        super().__init__(sentence)
        self.word, self.known = word, known


@dataclass(frozen=True, slots=True)
class Term:
    """One statement about one resource, or about all of a type."""

    resource: str
    state: ResourceState
    remote: bool = False
    negated: bool = False

    def __str__(self) -> str:
        return f"{'remote.' if self.remote else ''}{self.resource} is {'not ' if self.negated else ''}{self.state.value}"

    @property
    def allowed(self) -> frozenset[ResourceState]:
        """The states in which it is so."""
        return frozenset(ResourceState) - {self.state} if self.negated else frozenset({self.state})

    def holds(self, here: States, there: States) -> bool:
        """Is it so?"""
        known = (there if self.remote else here).get(self.resource, ResourceState.UNKNOWN)
        return (known is self.state) is not self.negated


@dataclass(frozen=True, slots=True)
class Rule:
    """When it has held for `hold_s`, the action follows. `services`: only these are restarted. Its terms have no `*` any more."""

    name: str
    action: str
    all: tuple[Term, ...] = ()
    any: tuple[Term, ...] = ()
    hold_s: float = 0.0
    services: tuple[str, ...] = ()
    is_default: bool = False

    @property
    def compares(self) -> bool:
        """Does it speak of the peer? Then its action is only sensible while the peer is better off."""
        return any(term.remote for term in self.terms)

    @property
    def terms(self) -> tuple[Term, ...]:
        """All of them."""
        return (*self.all, *self.any)

    def holds(self, here: States, there: States) -> bool:
        """Is it so now?"""
        for term in self.all:  # (a loop: this runs for each rule at each event)
            if not term.holds(here, there):
                return False
        return not self.any or any(term.holds(here, there) for term in self.any)

    @property
    def text(self) -> str:
        """What it says, without what follows."""
        parts = [" and ".join(map(str, self.all)), " or ".join(map(str, self.any))]
        if all(parts):
            return f"{parts[0]}, and {parts[1]}"
        return parts[0] or parts[1]


def parse(text: str) -> Term:
    """One term; BadTerm says what is wrong with it."""
    match text.split():
        case [subject, "is", "not", state]:
            negated = True
        case [subject, "is", state]:
            negated = False
        case _:
            raise BadTerm(f'"{text}" is not a term; {EXAMPLE}')
    words = [each.value for each in ResourceState]
    if state not in words:
        raise BadTerm(f'"{state}" is not a state; there are {", ".join(words)}', state, words)
    side, dot, rest = subject.partition(".")
    resource = rest if side in ("local", "remote") and dot else subject
    kind, dot, name = resource.partition(".")
    if not (kind and dot and name) or "*" in kind or ("*" in name and name != "*"):
        raise BadTerm(f'"{subject}" is not a resource; {EXAMPLE}, or tcp.* for all of a type')
    return Term(resource, ResourceState(state), remote=side == "remote", negated=negated)


def expanded(terms: Sequence[Term], names: Collection[str]) -> tuple[Term, ...]:
    """The terms with each `TYPE.*` written out; BadTerm for a resource that there is not."""
    found: list[Term] = []
    for term in terms:
        kind, _, name = term.resource.partition(".")
        matching = [each for each in names if each.partition(".")[0] == kind] if name == "*" else [term.resource]
        if name == "*" and not matching:
            raise BadTerm(f"nothing here is watched as {term.resource}", term.resource, [f"{each.partition('.')[0]}.*" for each in names])
        if name != "*" and term.resource not in names:
            raise BadTerm(f'no checker here watches "{term.resource}"', term.resource, names)
        found += [replace(term, resource=each) for each in matching]
    return tuple(dict.fromkeys(found))


def contradiction(rule: Rule) -> str:
    """Why it can never hold: the terms that cannot be so together. Empty: it can."""
    allowed: dict[tuple[bool, str], frozenset[ResourceState]] = {}
    for term in rule.all:
        place = (term.remote, term.resource)
        allowed[place] = allowed.get(place, frozenset(ResourceState)) & term.allowed
        if not allowed[place]:
            clash = [str(each) for each in rule.all if (each.remote, each.resource) == place]
            return " and ".join(f'"{each}"' for each in clash)
    possible = [term for term in rule.any if allowed.get((term.remote, term.resource), frozenset(ResourceState)) & term.allowed]
    if rule.any and not possible:
        return " and ".join(f'"{term}"' for term in (*rule.all, *rule.any))
    return ""

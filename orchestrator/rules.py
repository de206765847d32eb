"""The failover rules of a module: those that its checkers bring along, and those of its file.

Every checker has a *default rule* in the same language, named after its resource, so what happens by itself can be read, shown and
replaced:

    of something of the node's own      tcp.db is down
    of something that both depend on    ping.gateway is down and remote.ping.gateway is up
    of an interface                     interface.lan is down and remote.interface.lan is not down

The second kind acts only where moving helps: what fails for both nodes stops neither. That comparison is fair only when the peer has had
the time to look as well, so such a rule must hold for as long as the peer needs for a verdict of its own. A rule of the file with the
name of a default rule stands in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from orchestrator.config import CheckerConfig, ModuleConfig, RuleConfig
from orchestrator.core.rules_language import ResourceState, Rule, Term, expanded, parse

SETTLE_S: Final = 2.0  # of what is noticed at once: a cable is pulled for two nodes that share a switch, and one sees it a moment earlier
INTERFACE: Final = "interface"


def rules_of(config: ModuleConfig) -> tuple[Rule, ...]:
    """All of them, in the order of checkers and file."""
    names = [checker.resource for checker in config.checkers]
    written = [compiled(rule, names) for rule in config.rules]
    replaced = {rule.name: rule for rule in written}
    defaults = default_rules(config.checkers)
    known = {rule.name for rule in defaults}
    return (*(replaced.get(rule.name, rule) for rule in defaults), *(rule for rule in written if rule.name not in known))


def default_rules(checkers: Sequence[CheckerConfig]) -> tuple[Rule, ...]:
    """What each checker brings along."""
    return tuple(default_rule(checker) for checker in checkers)


def default_rule(checker: CheckerConfig) -> Rule:
    """What follows when this checker finds its resource down."""
    resource = checker.resource
    terms = [Term(resource, ResourceState.DOWN)]
    hold_s = 0.0
    if checker.type == INTERFACE:
        terms.append(Term(resource, ResourceState.DOWN, remote=True, negated=True))
        hold_s = SETTLE_S
    elif checker.shared:
        terms.append(Term(resource, ResourceState.UP, remote=True))
        hold_s = checker.fall * (checker.interval_s + checker.timeout_s)
    return Rule(resource, checker.action, tuple(terms), (), hold_s, checker.services, is_default=True)


def compiled(rule: RuleConfig, names: Sequence[str]) -> Rule:
    """A rule of the file; BadTerm where it cannot be understood."""
    every, some = (expanded([parse(text) for text in texts], names) for texts in (rule.all, rule.any))
    return Rule(rule.name, rule.action, every, some, rule.hold_s, rule.services)

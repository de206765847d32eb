"""The `[[rule]]` tables of a module: whether each can be understood, can ever hold, and speaks only of what there is. Every fault is a
sentence with its line; the language itself is core/rules_language.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from orchestrator.config import CheckerConfig, RuleConfig, listed
from orchestrator.config_errors import Complaint, did_you_mean
from orchestrator.config_models import ModuleModel, RuleModel
from orchestrator.config_text import ConfigText
from orchestrator.core.resources import RESOURCES_MAX
from orchestrator.core.rules_language import BadTerm, ResourceState, Rule, Term, contradiction, expanded, parse
from orchestrator.units import parse_duration_s

UP, DOWN, UNKNOWN = ResourceState.UP, ResourceState.DOWN, ResourceState.UNKNOWN
ONE_SIDED = ("prim", "second")  # windows that are never open on both nodes at a time


def build_rule(model: RuleModel) -> RuleConfig:
    """As it was written."""
    return RuleConfig(model.name, model.action, tuple(model.all), tuple(model.any), parse_duration_s(model.hold), tuple(model.services))


def check_rules(
    model: ModuleModel, text: ConfigText, checkers: Sequence[CheckerConfig], services: Sequence[str]
) -> Iterator[Complaint]:
    """Of one module."""
    if len(checkers) > RESOURCES_MAX:
        yield text.complain(("checker",), f"{len(checkers)} checkers are more than the {RESOURCES_MAX} that a module can have.")
    taken: set[str] = set()
    for index, rule in enumerate(model.rule):
        place = ("rule", index)
        if rule.name in taken:
            yield text.complain((*place, "name"), f'two rules are called "{rule.name}"; the names tell them apart.')
        taken.add(rule.name)
        yield from _check_terms(rule, text, index, checkers, light=model.mode == "light", spoilt="checker" in text.kept)
        if not rule.all and not rule.any:
            yield text.complain(place, 'says not when; give all = ["…"] or any = ["…"].')
        if rule.action == "swap" and model.mode == "light":
            yield text.complain((*place, "action"), 'a light module moves nowhere; write "restart", "stopstart", "stop" or "wait".')
        if rule.services and rule.action != "restart":
            sentence = f'says what is restarted, and action is "{rule.action}"; write action = "restart", or remove it.'
            yield text.complain((*place, "services"), sentence)
        for service in rule.services:
            if service not in services and "service" not in text.kept:
                has = f"it has {listed(services)}" if services else "it has none"
                yield text.complain((*place, "services"), f'the module has no service "{service}"; {has}.{did_you_mean(service, services)}')


def _check_terms(
    rule: RuleModel, text: ConfigText, index: int, checkers: Sequence[CheckerConfig], *, light: bool, spoilt: bool
) -> Iterator[Complaint]:
    names, found = [checker.resource for checker in checkers], dict[str, list[Term]](all=[], any=[])
    whole = True
    for key, written in (("all", rule.all), ("any", rule.any)):
        for number, said in enumerate(written):
            try:
                term = parse(said)
                if not spoilt:  # else the checker that is meant may be the one that was complained of
                    found[key] += expanded([term], names)
            except BadTerm as bad:
                whole = False
                yield text.complain(("rule", index, key, number), f"{bad}.{did_you_mean(bad.word, bad.known)}")
                continue
            if term.remote and light:
                whole = False
                yield text.complain(("rule", index, key, number), "a light module has no peer to speak of; remove the term.")
    if not whole or spoilt:
        return
    meant = Rule(rule.name, rule.action, tuple(dict.fromkeys(found["all"])), tuple(dict.fromkeys(found["any"])))
    if clash := contradiction(meant):
        yield text.complain(("rule", index, "all" if meant.all else "any"), f"can never hold: {clash} cannot be so together.")
        return
    for checker in checkers:
        known = {term.remote for term in meant.all if term.resource == checker.resource and ResourceState.UNKNOWN not in term.allowed}
        if checker.when in ONE_SIDED and known == {True, False}:
            never = f'compares {checker.resource} on both nodes, but "{checker.when}" is never open on both'
            yield text.complain(("rule", index), f'{never}; look at it with when = "pre".')
        local = any(term.resource == checker.resource and not term.remote for term in meant.terms)
        if rule.action == "wait" and checker.when != "pre" and local:
            sentence = f'nobody looks at {checker.resource} while the node waits (when = "{checker.when}"), so it would never go on'
            yield text.complain(("rule", index, "action"), f'{sentence}; look at it with when = "pre", or write action = "stopstart".')
    if rule.action not in ("none", "wait"):
        for key, term, when in _of_nobody(meant, {checker.resource: checker.when for checker in checkers}):
            so = f'"{term}" is so as well while nobody looks (when = "{when}"), on a node that is only about to serve too'
            better = replace(term, state=UP if term.negated and term.state is DOWN else DOWN, negated=False)
            yield text.complain(("rule", index, key), f'{so}; write "{better}", or look at it with when = "pre".')


def _of_nobody(meant: Rule, when: Mapping[str, str]) -> Iterator[tuple[str, Term, str]]:
    """The terms about this node that are so although nobody looks at their resource, where the rest of the rule does not keep it from
    holding then: with their key, and when the resource is looked at."""
    possible: dict[str, frozenset[ResourceState]] = {}
    for term in meant.all:
        if not term.remote:
            possible[term.resource] = possible.get(term.resource, frozenset(ResourceState)) & term.allowed
    looked_at = {when[resource] for resource, states in possible.items() if UNKNOWN not in states}
    looked_at |= {"both"} if looked_at & {*ONE_SIDED} else set()
    for key, terms in (("all", meant.all), ("any", meant.any)):
        for term in terms:
            window, states = when[term.resource], term.allowed & possible.get(term.resource, term.allowed)
            if not term.remote and window not in ("pre", *looked_at) and UNKNOWN in states:
                yield key, term, window

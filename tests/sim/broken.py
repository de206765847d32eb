"""Broken builds of the core: one rule at a time is taken out, and the simulator has to notice within a bounded number of lives.

A build is an edit of the source of one function: the words that are taken out, and what stands there instead. Where the words are gone, the
rule was rewritten, and its broken build has to be rewritten too (a test says so). What chance comes to too rarely has a story that breaks.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from orchestrator.core import detector, failover_rules, incidents, machine, meanings, points, resources, rules_language, states, turn
from tests.sim import test_resources, test_scripts, test_sequences, test_stories
from tests.sim.fake_rfs import FakeWitness
from tests.sim.walk import walk

HOMES: dict[str, Any] = {
    "rules": failover_rules,
    "on": meanings,
    "machine": machine,
    "points": points,
    "incidents": incidents,
    "resources": resources,
    "Term": rules_language.Term,
    "Detector": detector.Detector,
    "Surroundings": states.Surroundings,
    "Turn": turn.Turn,
    "FakeWitness": FakeWitness,
}


@dataclass(frozen=True)
class Broken:
    """`where`: home.function; `words` in its source become `instead`. `guards`: what is no longer kept."""

    guards: str
    where: str
    words: str
    instead: str
    story: Callable[[], object] | None = None  # is told before chance is asked
    most: int = 1500  # lives within which it must be caught
    hurried: bool = False
    also: tuple[tuple[str, str, str], ...] = ()  # the same of other functions, where one rule alone is covered by another


def sequence(*names: str, witness: bool = False) -> Callable[[], None]:
    """One of the ordered sequences of faults."""
    return lambda: test_sequences.live(names, witness)


SAFE, WHOLE, ORDER, CALM, WORD, LIVE = (
    "one writer, no old data", "only what is whole is promoted", "a role is taken and given back in order",
    "nothing is tried without end", "what a person says is done, answered and kept", "the pair becomes well again",
)  # fmt: skip

BUILDS: dict[str, Broken] = {
    # silence, and who may act on it
    "silence is believed by who was not there": Broken(
        SAFE, "rules.still_current", "view = module.view", "return True", sequence("isolated node2", "power off node1", "healed")
    ),
    "a ping is believed at once": Broken(
        SAFE, "Surroundings.isolated", "(not self.ping_ok or settling)", "not self.ping_ok",
        test_stories.test_primary_cut_off_from_everything, also=(("rules.still_current", "view = module.view", "return True"),),
    ),  # fmt: skip
    "who reaches nobody takes over": Broken(SAFE, "Surroundings.isolated", "self.has_ping and", "False and"),
    "a pause is not noticed": Broken(SAFE, "machine.observe", "case ev.Paused():", "case ev.Paused() if False:"),
    "half of the patience": Broken(SAFE, "Detector.silent", "self.timeout_s", "self.timeout_s / 2"),
    "one silent network is enough": Broken(SAFE, "Detector.silent", "all(", "any("),
    "a replaced hactld is heard": Broken(SAFE, "Detector.accepts", " or incarnation in self.former", ""),
    "late heartbeats count as new": Broken(SAFE, "Detector.accepts", "counter > self.networks[network].counter", "True"),
    "consistency is not asked for": Broken(
        SAFE, "rules.promotion", '(around.policy == "consistency" and not around.has_witness)', "False"
    ),
    # permission and fencing
    "going on alone without asking a living peer": Broken(SAFE, "rules.permission", "Permission(ask=True", "Permission(ask=False"),
    "nobody is fenced": Broken(SAFE, "rules.outranked", "view = module.view", "return False"),
    "terms alone fence": Broken(
        SAFE, "rules.outranked",
        "not peer.serves:\n        return False\n    if not view.serves:\n        return module.services is not Hold.OFF or "
        "module.address is not Hold.OFF",
        'peer.role != "primary":\n        return False',
        test_stories.test_an_old_primary_with_a_higher_term_waits,
    ),  # fmt: skip
    "the witness grants to everybody": Broken(SAFE, "FakeWitness.check", "if self.held not in rfs.record.lineage:", "if False:"),
    "a frozen primary takes the services up": Broken(ORDER, "rules.goal", "not module.view.serves or around.unsure", "around.unsure"),
    "the address stays where nobody may serve": Broken(SAFE, "machine.settle_address", "cut_off = goal is None and", "cut_off = False and"),
    # what is promoted
    "a copy that is not whole is promoted": Broken(WHOLE, "rules.promotion", "or not view.complete or", "or"),
    "promoted within a session": Broken(WHOLE, "rules.promotion", "if view.linked or not", "if not"),
    "statuses of a dead rfsmount count": Broken(WHOLE, "on.believe", "event.session != turn.module.rfs_session or ", ""),
    "the pause of failover is ignored": Broken(WORD, "rules.promotion", " or module.paused", ""),
    # a role is a scope
    "services before the address": Broken(ORDER, "machine.settle_services", "prepared and module.address is Hold.ON", "prepared"),
    "the role goes before services and address": Broken(
        ORDER, "machine.settle_role", "goal is not None and module.services is Hold.OFF and module.address is Hold.OFF", "goal is not None"
    ),
    "rfsmount goes before services and address": Broken(
        ORDER, "machine.settle_rfs", "module.services is Hold.OFF and module.address is Hold.OFF and module.order in", "module.order in"
    ),
    "a completion of a replaced order counts": Broken(
        ORDER, "on.finish", "if turn.module.tickets.get(event.lane) != event.ticket:", "if False:", hurried=True
    ),
    "a failure of a replaced order counts": Broken(
        ORDER, "on.fail", "if turn.module.tickets.get(event.lane) != event.ticket:", "if False:", hurried=True
    ),
    "a lost address is not missed": Broken(ORDER, "on.readdress", "turn.set(address=Hold.OFF, ", "turn.set("),
    "a service that dies early is taken for up": Broken(
        ORDER, "on.mourn", "not in (Hold.ON, Hold.COMING)", "is not Hold.ON",
        test_stories.test_service_that_dies_while_the_start_has_not_ended_is_not_taken_for_up,
    ),  # fmt: skip
    "two orders of the role at a time": Broken(CALM, "machine.settle_role", "if module.order is not None or module.rfs", "if module.rfs"),
    # scripts
    "stop_second is not waited for": Broken(
        ORDER, "machine.settle_services", "and Point.SECOND not in module.entered and busy not in (Point.BOTH, Point.SECOND)", ""
    ),
    "poststop does not wait": Broken(
        ORDER, "points.may_leave", "module.entered == {Point.MODULE} and not module.holds", "module.entered == {Point.MODULE}"
    ),
    "a start script that is no longer wanted is waited for": Broken(
        LIVE, "points.due", "if lost and now.entering:", "if False:", test_scripts.test_a_start_script_that_is_no_longer_wanted_is_cut_short
    ),
    "a peer's missing rfsmount is believed by who was cut off": Broken(
        SAFE, "rules.permission", "if not may_trust_silence(module, around):", "if False:", sequence("isolated node1", "power off node2")
    ),
    # resources and failover rules
    "the peer's view is not compared": Broken(
        CALM, "Term.holds", "return (known", "return self.remote or (known",
        lambda: test_resources.test_what_fails_for_both_at_almost_the_same_time_stops_neither("swap"),
    ),
    "a rule does not have to hold": Broken(
        CALM, "incidents.why_not_yet", "if held_s < rule.hold_s:", "if False:",
        lambda: test_resources.test_what_fails_for_both_at_almost_the_same_time_stops_neither("stopstart"),
    ),
    "an unfit peer is handed the role": Broken(
        CALM, "rules.ready_to_receive", "and not peer.unfit", "",
        test_resources.test_both_down_and_swap_is_no_reason_to_wander,
        also=(("rules.why_not_handed_over", "if peer.unfit:", "if False:"),),
    ),
    "who must not serve serves": Broken(
        WORD, "rules.goal", "if module.services_failed or must_not_serve(module):", "if module.services_failed:",
        test_resources.test_the_last_node_stops_serving_with_its_own_down_and_comes_back_by_itself,
    ),
    "who must not serve takes over": Broken(WORD, "rules.promotion", " or must_not_serve(module)", ""),
    "the first word is not waited for": Broken(
        WORD, "rules.must_not_serve", "return bool(module.barred) or (", "return bool(module.barred) or bool(0 and ",
        test_resources.test_a_first_word_that_comes_late_is_waited_for,
    ),
    "a new hactld stops what it knows nothing of": Broken(
        LIVE, "rules.must_not_serve", "and module.services is Hold.OFF and module.address is Hold.OFF", "",
        test_resources.test_a_new_hactld_knows_nothing_and_disturbs_nothing,
    ),
    "what compares takes away what nobody can give": Broken(
        LIVE, "incidents.bars", "not rule.compares or", "True or",
        test_resources.test_what_compares_takes_nothing_away_that_nobody_can_give,
    ),
    "a rule is followed again and again": Broken(
        CALM, "incidents.follow", "acted=True", "acted=False", test_resources.test_what_stays_down_is_followed_once
    ),
    "what a rule takes down does not count": Broken(
        CALM, "incidents.settle_stance", "on.count_service_failure(turn, why)", "pass",
        lambda: test_resources.test_what_flaps_on_both_nodes_moves_the_role_only_so_often("wait", "alone"),
    ),
    "a command of a rule's does not count": Broken(
        CALM, "on.counts", "if not event.checker:", "if True:",
        lambda: test_resources.test_what_flaps_on_both_nodes_moves_the_role_only_so_often("swap", "alone"),
    ),
    "what was handed over is left lying": Broken(
        LIVE, "rules.promotion", "    if view.consent and not peer_serves:",
        "    if view.consent and not peer_serves and not module.barred:",
        lambda: [
            test_resources.test_with_it_down_on_both_nobody_serves_and_the_first_that_is_well_gets_the_role(seed, first)
            for seed in range(4)
            for first in ("node1", "node2")
        ],
        also=(("on.take_from_peer", "if view is None or", "if view is None or turn.module.barred or"),),
    ),
    "what was found before a repair stops what is started after it": Broken(
        LIVE, "on.want", ", resources={}, incidents={}", "", lambda: [walk(seed, False) for seed in (113, 323)]
    ),
    "a window never closes": Broken(
        CALM, "resources.open_windows", "module.services is Hold.ON and not module.restarting", "True",
        test_resources.test_services_that_fail_their_check_are_restarted_and_then_given_to_the_peer,
    ),
    "the checkers' switch is ignored": Broken(
        WORD, "incidents.settle_stance", "if before.unchecked:", "if False:",
        test_resources.test_the_administrators_switch_serves_nevertheless,
    ),
    "a pause of failover does not hold rules": Broken(
        WORD, "rules.why_not_handed_over", "if module.paused or peer.paused:", "if False:", test_resources.test_paused_nothing_moves
    ),
    # nothing without end
    "no pause after a failure": Broken(CALM, "Turn.pause", "self.around.now + RETRY_S[lane]", "self.around.now"),
    "failed services are not counted": Broken(
        CALM, "on.count_service_failure", "(*turn.module.restarts, turn.around.now)[-64:]", "turn.module.restarts"
    ),
    "deaths of rfsmount are not counted": Broken(CALM, "on.bury", "restarts=(*turn.module.restarts, turn.around.now)", "restarts=()"),
    "the role goes back again and again": Broken(
        CALM, "rules.failback", "well and not often", "well",
        test_stories.test_a_default_primary_that_dies_again_and_again_gets_the_role_back_only_so_often,
    ),  # fmt: skip
    # people
    "a swap to a peer that is not in sync": Broken(WORD, "on.swap", "in_sync = rules", "in_sync = True or rules"),
    "what people want is not written down": Broken(WORD, "machine.conclude", "if before.found and", "if False and"),
    "a command without an answer": Broken(WORD, "on.refuse", "turn.reply(", "(lambda *said: None)("),
    "a stop is forgotten": Broken(WORD, "on.leave", "want(turn, False, by=event)", "want(turn, turn.module.wanted, by=event)"),
    # the pair becomes well again
    "a node that yielded waits for ever": Broken(LIVE, "rules.why_not_started", "< YIELD_PATIENCE_S", "< 1e9"),
    "a yield is not taken": Broken(
        LIVE, "rules.promotion", "if peer is not None and peer.yielded:", "if False:",
        test_stories.test_rfsmount_killed_on_the_primary_hands_over_at_once,
    ),  # fmt: skip
    "a swap that came to nothing is waited for": Broken(
        LIVE, "on.fail", "order=None, swapping=False, unsynced=False, wish=wish", "order=None, wish=wish"
    ),
}  # fmt: skip


def found(where: str) -> tuple[Any, str, Any]:
    """The home and the name of what is to be broken, and what stands there."""
    home, _, name = where.partition(".")
    return HOMES[home], name, inspect.getattr_static(HOMES[home], name)


def edited(where: str, words: str, instead: str) -> Any:
    """The function as the broken build has it."""
    _, name, whole = found(where)
    function = whole.fget if isinstance(whole, property) else whole
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(words) == 1, f"{where} does not say {words!r} once: write its broken build anew"
    space: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + source.replace(words, instead), f"<{where}>", "exec")
    exec(code, function.__globals__, space)
    return space[name]


@contextmanager
def patched(build: Broken) -> Iterator[None]:
    """While it lasts, the build is broken."""
    edits = [(found(where), edited(where, *words)) for where, *words in ((build.where, build.words, build.instead), *build.also)]
    rows = dict(machine.TABLE)
    for (home, name, whole), broken in edits:
        setattr(home, name, broken)
        machine.TABLE.update({pair: broken for pair, handler in rows.items() if handler is whole})
    try:
        yield
    finally:
        for (home, name, whole), _ in edits:
            setattr(home, name, whole)
        machine.TABLE.update(rows)


def detect(build: Broken, first: int = 0) -> tuple[int, str] | None:
    """After how many lives it was noticed, and by what; None: it was not."""
    with patched(build):
        try:
            if build.story is not None:
                build.story()
        except AssertionError as noticed:
            return 0, str(noticed).partition("\n")[0]
        for number in range(build.most):
            try:
                walk(first + number // 2, witness=number % 2 == 1, hurried=build.hurried)
            except AssertionError as noticed:
                return number + 1, str(noticed).partition("\n")[0]
    return None

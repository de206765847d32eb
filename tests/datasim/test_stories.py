"""The traces that forced the rules (the model's README, "Rules the first text lacked"), as schedules on the real rules.

Each holds every promise with the rule, and breaks one without it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from rfs import rules
from rfs.record import DataState, Record, Role
from tests.datasim import broken
from tests.datasim.broken import Broken, patched
from tests.datasim.modes import Mode
from tests.datasim.story import Body, Story


def rewound_is_target(story: Story) -> None:
    """The primary loses power and is back before the takeover: what it acknowledged is in the peer's memory alone."""
    story.begin()
    assert story.write(story.a).verdict == "mirrored"
    story.lose_power(story.a)
    story.settle()
    story.restart(story.a)


def boot_refreshed(story: Story) -> None:
    """The secondary had ended in order once. Unless pairing renews its boot and its clean word, its next power cut goes unnoticed."""
    story.begin()
    story.write(story.a)
    story.meets = False
    story.lose_power(story.b)
    story.link_up = False
    story.settle()
    story.restart(story.b)
    story.ask(story.b)


def rewound_waits(story: Story) -> None:
    """A rebooted node must not take the grant before the intact survivor does."""
    boot_refreshed(story)


def _again_in_full(story: Story) -> None:
    """A pair with a marked write meets again, and cannot resume."""
    story.begin()
    story.write(story.a)
    story.part()
    story.primary(story.a).resumable = 0


def confirm_before_lone_ack(story: Story) -> None:
    """The source acknowledges alone while the target's record still says UPTODATE, and the target is promoted."""
    _again_in_full(story)
    story.holds = {"b: handshake: renewed"}
    story.meet()
    story.write(story.a)
    story.holds.clear()
    story.meets = story.link_up = False
    story.kill(story.b)
    story.settle()
    story.restart(story.b)
    story.ask(story.b)
    story.write(story.b, chunk=1)


def inconsistent_before_any(story: Story) -> None:
    """Live frames must not make a half-resynced copy that still calls itself whole."""
    story.begin()
    story.part()
    story.ask(story.a)
    story.write(story.a, 10)
    story.holds = {"a: resync: entries", "a: resync: chunk", "a: resync: attached"}
    story.meet()
    story.write(story.a, 11)


def source_syncs_first(story: Story) -> None:
    """The target gives up UPTODATE, then the source loses power with writes that were in its memory only."""
    _again_in_full(story)
    story.holds = {"b: resync: degraded"}
    story.meet()
    story.lose_power(story.a)
    story.holds.clear()
    story.settle()
    story.restart(story.a)


def sync_before_uptodate(story: Story) -> None:
    """The target is UPTODATE with resynced, even fsynced data only in its memory."""
    story.begin()
    story.part()
    story.ask(story.a)
    story.write(story.a)
    assert story.fsync(story.a).verdict == "marked"
    story.meet()
    story.meets = False
    story.lose_power(story.b)
    story.kill(story.a)
    story.settle()
    story.restart(story.b)
    story.ask(story.b)


def fit_from_end_sent(story: Story) -> None:
    """The target has adopted, the source has not heard: the source goes on without a grant, the target is promoted."""
    story.begin()
    story.part()
    story.ask(story.a)
    story.write(story.a)
    story.holds = {"b: record durable: adopt"}
    story.meet()
    story.holds.clear()
    story.meets = False
    story.part()
    story.write(story.a, chunk=1)
    story.ask(story.b)
    story.write(story.b, chunk=2)


def mint_before_lone_ack(story: Story) -> None:
    """Lone acknowledgements under a name that the peer also carries: a forced promotion later wins silently."""
    story.begin()
    session = story.primary(story.b).session
    assert session is not None
    story.meets = False
    story.spawn(story.primary(story.b), session.leave("asked to"), "leave")
    story.settle()
    assert story.write(story.a).verdict == "marked"
    story.kill(story.a)
    story.spawn(story.primary(story.b), story.primary(story.b).force(), "force")
    story.settle()
    story.write(story.b, chunk=1)
    story.meets = True
    story.restart(story.a)


def tried_names(story: Story) -> None:
    """The swap was won and the winner died before it recorded so: the two pair again, and one must be grantable still."""
    story.begin()
    story.meets = False
    story.part()
    story.holds = {"a: register swapped"}
    story.ask(story.a)
    story.kill(story.a)
    story.holds.clear()
    story.meets = story.link_up = True
    story.restart(story.a)
    survivor = next(node for node in story.nodes if story.primary(node).mode is Mode.PAIRED)
    story.kill(story.nodes[1 - survivor.index])
    story.settle()
    story.ask(survivor)
    story.require(story.primary(survivor).mode is Mode.ALONE, "I-g the survivor can never be granted")


def mixed_op_marks_both(story: Story) -> None:
    """A rename between a clean and a marked directory is not shipped: both are to do."""
    story.begin()
    story.part()
    story.ask(story.a)
    story.do(story.a, Body("create", directory=1, name=2))
    story.holds = {"a: resync: attached"}
    story.meet()
    story.do(story.a, Body("rename", 11, directory=2, name=1, to_directory=1, to_name=3))
    story.holds.clear()
    story.settle()
    assert story.primary(story.a).mode is Mode.PAIRED


def restarted_waits(story: Story) -> None:
    """No witness: a stale node that boots alone must not promote itself."""
    story.begin()
    story.kill(story.b)
    story.settle()
    story.ask(story.a)
    assert story.write(story.a).verdict == "marked"
    story.kill(story.a)
    story.restart(story.b)
    story.ask(story.b)


def unused_fork_yields(story: Story) -> None:
    """Both went on and one of them acknowledged nothing: that is no divergence."""
    story.begin()
    story.meets = False
    story.part()
    story.ask(story.a)
    story.ask(story.b)
    assert story.write(story.b).verdict == "marked"
    story.meets = True
    story.meet()
    assert story.primary(story.b).mode is Mode.PAIRED


def used_until_adopted(story: Story) -> None:
    """A second mint forgets what was acknowledged alone only if the peer is known to have adopted it."""
    story.begin()
    story.meets = False
    story.part()
    story.ask(story.a)
    story.write(story.a)
    story.ask(story.b)
    story.write(story.b, chunk=1)
    story.spawn_force(story.a)
    story.meets = True
    story.meet()
    assert all(story.primary(node).mode is Mode.ALONE for node in story.nodes), "DIVERGED: both stay as they are"


def fsync_on_both(story: Story) -> None:
    """An fsync is answered when both disks have it."""
    story.begin()
    story.write(story.a)
    assert story.fsync(story.a).verdict == "mirrored"
    story.meets = False
    story.lose_power(story.b)
    story.kill(story.a)
    story.settle()
    story.restart(story.b)
    story.ask(story.b)
    assert story.primary(story.b).mode is Mode.ALONE


def fenced_by_witness(story: Story) -> None:
    """Going on alone needs the swap: else both do, in two lineages."""
    story.begin()
    story.meets = False
    story.part()
    story.ask(story.a)
    story.write(story.a)
    story.ask(story.b)
    if story.primary(story.b).mode is Mode.ALONE:
        story.write(story.b, chunk=1)


def inconsistent_not_promoted(story: Story) -> None:
    """A copy that stopped inside a resync is never promoted, not even by force."""
    story.begin()
    story.part()
    story.ask(story.a)
    story.write(story.a)
    story.holds = {"a: resync: attached"}
    story.meet()
    story.meets = False
    story.kill(story.a)
    story.holds.clear()
    story.settle()
    story.ask(story.b)
    story.spawn(story.primary(story.b), story.primary(story.b).force(), "force")
    story.settle()
    assert story.primary(story.b).mode is Mode.IDLE


def error_stays_an_error(story: Story) -> None:
    """A sync that failed makes the copy FAILED: the checkpoint drops nothing, the peer goes on, and a resync makes it whole again."""
    story.begin()
    story.write(story.a)
    story.b.disk.lying = story.oracle.copy_has_failed = True
    source = story.primary(story.a)
    story.spawn(source, source.checkpoint(), "checkpoint")
    story.settle()
    assert story.primary(story.a).mode is Mode.PAIRED and story.primary(story.b).record.data is DataState.UPTODATE
    assert story.seen["failed"] == 1


def missing_inodes_are_sent_whole(story: Story) -> None:
    """The old primary unlinked a file and told nobody: its peer lists an inode that is not there, and whose content is not marked."""
    story.begin()
    story.write(story.a)
    source = story.primary(story.a)
    story.spawn(source, source.checkpoint(), "checkpoint")
    story.settle()
    story.meets = False
    story.break_link()
    story.submit(source, Body("unlink", 10, directory=1, name=1))
    story.settle()
    story.kill(story.a)
    story.ask(story.b)
    story.meets = story.link_up = True
    story.restart(story.a)
    assert story.primary(story.b).mode is Mode.PAIRED


def _no_mint(record: Record, name: int, *, granted: bool, op_waiting: bool) -> Record | rules.Refusal:
    if record.data is not DataState.UPTODATE or record.role is not Role.PRIMARY or (record.peer_may_fit and not granted):
        return rules.Refusal("no")
    return replace(record, peer_may_fit=False, shared=False, used=True)


def _any_force(record: Record, name: int) -> Record | rules.Refusal:
    return _force(replace(record, data=DataState.UPTODATE), name)


def _mint_forgets(record: Record, name: int) -> Record | rules.Refusal:
    after = _force(record, name)
    return after if isinstance(after, rules.Refusal) else replace(after, used=False)


_force = rules.force


@dataclass(frozen=True)
class Told:
    tell: Callable[[Story], None]
    words: tuple[str, ...] = ()
    patches: dict[str, Callable[..., Any]] = field(default_factory=dict)
    policy: str = "witness"


STORIES = (
    Told(rewound_is_target, patches={"decide._stronger": broken._primary_first}),
    Told(boot_refreshed, patches={"rules.enter_session": broken._boot_kept}),
    Told(rewound_waits, ("a rewound node does not wait",)),
    Told(confirm_before_lone_ack, ("lone before the confirmation",)),
    Told(inconsistent_before_any, ("INCONSISTENT is written late",)),
    Told(source_syncs_first, ("the source does not sync first",)),
    Told(sync_before_uptodate, ("UPTODATE before the sync",)),
    Told(fit_from_end_sent, ("END without a fit peer",)),
    Told(mint_before_lone_ack, patches={"rules.go_alone": _no_mint}),
    Told(tried_names, ("names are not noted as tried",)),
    Told(mixed_op_marks_both, ("a mixed op leaves the clean place",)),
    Told(restarted_waits, ("a restarted node goes on",), policy="accurate"),
    Told(unused_fork_yields, patches={"decide._fork": broken._no_fork_yields}, policy="availability"),
    Told(fsync_on_both, ("fsync is of one disk",)),
    Told(fenced_by_witness, ("going on needs no witness",)),
    Told(inconsistent_not_promoted, patches={"rules.force": _any_force}),
    Told(error_stays_an_error, ("an error becomes success",)),
    Told(missing_inodes_are_sent_whole, ("missing inodes are not asked for",)),
    Told(used_until_adopted, patches={"rules.force": _mint_forgets}, policy="availability"),
)


@pytest.mark.parametrize("told", STORIES, ids=lambda told: told.tell.__name__)
def test_with_the_rule_every_promise_holds(told: Told) -> None:
    told.tell(Story(policy=told.policy))


@pytest.mark.parametrize("told", STORIES, ids=lambda told: told.tell.__name__)
def test_without_the_rule_one_breaks(told: Told) -> None:
    with patched(Broken("", patches=told.patches)), pytest.raises(AssertionError) as noticed:
        told.tell(Story(policy=told.policy, breaks=frozenset(told.words)))
    print(noticed.value)

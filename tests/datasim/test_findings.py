"""What the simulator found, with the rule that came of it and without."""

import pytest

from rfs.decide import Travels, decide
from tests.datasim.modes import Mode
from tests.datasim.oracle import Violation
from tests.datasim.story import Body, Story


def test_a_snapshot_of_after_the_last_handshake_is_recognised() -> None:
    """The secondary's disk is set back to between the handshake and a checkpoint that dropped the marks of what came between."""
    _set_back(Story())


def test_without_the_number_of_each_checkpoint_it_is_not() -> None:
    with pytest.raises(Violation):
        _set_back(Story(breaks=frozenset({"a checkpoint confirms nothing"})))


def _set_back(story: Story) -> None:
    story.begin()
    story.b.snapshot = story.b.disk.snapshot()
    story.write(story.a)
    source = story.primary(story.a)
    story.spawn(source, source.checkpoint(), "checkpoint")
    story.settle()
    story.kill(story.b)
    story.roll_back(story.b)
    story.restart(story.b)
    assert source.mode is Mode.PAIRED
    story.oracle.check()


def test_a_full_compare_that_was_cut_off_is_a_full_compare_again() -> None:
    _cut_off(Story())


def _cut_off(story: Story) -> None:
    """A copy that was set back is recognised once. When its full compare is cut off, the next handshake must see it again."""
    story.b.snapshot = story.b.disk.snapshot()
    story.begin()
    story.write(story.a)
    for _ in range(2):  # handshakes after which the old number is behind
        story.part()
        story.meet()
    source = story.primary(story.a)
    story.spawn(source, source.checkpoint(), "checkpoint")
    story.settle()
    story.kill(story.b)
    story.roll_back(story.b)
    story.holds = {"a: resync: entries"}
    story.restart(story.b)
    story.meets = False
    story.part()
    story.holds.clear()
    story.settle()
    records = [story.primary(node).record for node in story.nodes]
    again = decide(*records, mine_running=True, theirs_running=False, mine_empty=False, theirs_empty=False)
    assert again.travels is Travels.EVERYTHING, again
    story.meets = True
    story.meet()
    assert story.primary(story.a).mode is Mode.PAIRED and story.write(story.a).verdict == "mirrored"
    story.part()
    story.meet()
    assert story.primary(story.a).mode is Mode.PAIRED


def test_a_fid_is_given_before_its_directory_is_touched() -> None:
    """A checkpoint that begins between the two must not leave a new file in a directory that is not marked."""
    _create_across_a_checkpoint(Story())


def test_a_fid_that_is_given_after_the_touch_is_lost_sight_of() -> None:
    """The op is admitted (its directory touched), a checkpoint begins, then new_fid()."""
    with pytest.raises(Violation, match="I-d"):
        _create_across_a_checkpoint(Story(breaks=frozenset({"fid given after the touch"})))


def _create_across_a_checkpoint(story: Story) -> None:
    story.begin()
    story.do(story.a, Body("create", directory=1, name=2))  # the directory is hot
    story.holds = {"a: op called"}
    created = story.do(story.a, Body("create", directory=1, name=3))
    story.holds = {"a: op touched"}
    story.settle()
    source = story.primary(story.a)
    story.spawn(source, source.checkpoint(), "checkpoint")
    story.settle()
    story.holds.clear()
    story.settle()
    assert created.verdict == "mirrored"
    story.write(story.a, created.body.fid)


def test_without_the_names_the_survivor_can_never_be_granted() -> None:
    with pytest.raises(Violation):
        _yielded(Story(breaks=frozenset({"given-up names are not told"})))


def test_a_name_that_yields_is_known_to_the_peer() -> None:
    """The source notes all names of its target's that it does not go by, once the target has durably given them up, and not before."""
    _yielded(Story())


def _yielded(story: Story) -> None:
    """a wins the swap and acknowledges nothing; b is forced, and cannot reach the witness. a yields, and its name is in the register."""
    story.begin()
    story.meets = False
    story.part()
    story.ask(story.a)
    story.witness.reachable[1] = False
    story.spawn(story.primary(story.b), story.primary(story.b).force(), "force")
    story.settle()
    story.write(story.b)
    story.witness.reachable[1] = True
    story.meets = True
    story.meet()
    assert story.primary(story.b).mode is Mode.PAIRED
    story.kill(story.a)
    story.settle()
    story.ask(story.b)
    story.require(story.primary(story.b).mode is Mode.ALONE, "I-g the survivor can never be granted")

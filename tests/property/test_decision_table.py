"""The page that people read at night is what the rules say."""

from rfs.decide import Outcome
from rfs.decision_table import PAGE, SECTIONS, page


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text() == page(), "run python -m rfs.decision_table"


def test_every_outcome_has_a_situation() -> None:
    assert {situation.decided().outcome for _, situations in SECTIONS for situation in situations} == set(Outcome)

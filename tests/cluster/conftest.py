"""The stage on which these tests play: a pair in the lab, a ledger behind the service address, and a writer that never stops.

Each test finds it redundant (node1 PRIM unless it says otherwise) and ends in `settle`: redundant again, every acknowledged line there
exactly once on both nodes, both trees equal.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.lab.lab import prefixed
from orchestrator.lab.scenarios import PLAIN, Theatre
from orchestrator.lab.scenarios.pair import LedgerPair


@pytest.fixture(scope="session")
def theatre() -> Iterator[Theatre]:
    """One stage at a time, kept from test to test."""
    with Theatre(prefixed("tests")) as theatre:
        yield theatre


@pytest.fixture
def cluster(theatre: Theatre) -> LedgerPair:
    """Redundant, node1 PRIM, the writer being answered."""
    return theatre.pair(PLAIN)

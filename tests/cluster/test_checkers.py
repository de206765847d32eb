"""The checkers of the network on real interfaces, each case in network namespaces of its own (checker_cases.py)."""

from __future__ import annotations

import os

import pytest

from tests.cluster.checker_cases import CASES
from tests.cluster.netns import run_case

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]


@pytest.mark.parametrize("name", CASES)
def test_checker(name: str) -> None:
    run_case(name, "tests.cluster.checker_cases")

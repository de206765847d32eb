"""The service addresses on real interfaces, each case in network namespaces of its own (vip_cases.py)."""

from __future__ import annotations

import os

import pytest

from tests.cluster.netns import run_case
from tests.cluster.vip_cases import CASES

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]


@pytest.mark.parametrize("name", CASES)
def test_vip(name: str) -> None:
    run_case(name)

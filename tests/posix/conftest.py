"""A mirrored pair on this machine for the tests of this directory: two directories, real mounts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.lab.trees import differences, manifest
from tests.posix.node import Node, free_address, know_each_other


class Pair:
    """`root` is the primary's mount; `mirrored()` compares it with the secondary's copy."""

    def __init__(self, primary: Node, secondary: Node) -> None:
        self.primary, self.secondary = primary, secondary
        self.root, self.second_root = primary.directories

    def mirrored(self, below: str = "") -> None:
        """Both directories, or one of the first one's, equal in everything that counts."""
        for here, there in zip(self.primary.directories, self.secondary.directories, strict=True):
            if not below or here == self.root:
                assert differences(manifest(str(here / below)), manifest(str(there / below))) == []


@pytest.fixture(scope="session")
def session_pair() -> Iterator[Pair]:
    """One pair for all tests here."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("needs root and /dev/fuse")
    with tempfile.TemporaryDirectory(prefix="lockstep-posix-", dir="/var/tmp") as path:
        os.chmod(path, 0o755)  # other users must get there
        here, there = free_address(), free_address()
        a, b = Node(Path(path), "a", here, there), Node(Path(path), "b", there, here)
        know_each_other(a, b)
        try:
            assert a.mount("primary").returncode == 0
            assert b.mount("secondary").returncode == 0
            a.until(link="paired")
            yield Pair(a, b)
        finally:
            b.clean()
            a.clean()


@pytest.fixture
def pair(session_pair: Pair, request: pytest.FixtureRequest) -> Pair:
    """Paired and, at the end of the test, mirrored."""
    session_pair.primary.until(link="paired")
    request.addfinalizer(session_pair.mirrored)
    return session_pair


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two sides of a mirror, not mounted yet."""
    here, there = free_address(), free_address()
    a, b = Node(tmp_path, "a", here, there), Node(tmp_path, "b", there, here)
    know_each_other(a, b)
    yield a, b
    b.clean()
    a.clean()

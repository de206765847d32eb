"""What pjdfstest's chapters are about: each case of the tables (rules_of_*.py) does on the mount what it does on a plain directory of
the same file system: answer, errno, and of every object its type, mode, owner, size, links and which times have changed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.posix import rules_of_attributes, rules_of_names, rules_of_paths
from tests.posix.conftest import Pair
from tests.posix.rules import Case, differences_of

pytestmark = pytest.mark.mount

CHAPTERS: dict[str, Callable[[], Iterator[Case]]] = {"paths": rules_of_paths.cases} | rules_of_attributes.CHAPTERS | rules_of_names.CHAPTERS


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_rules(pair: Pair, chapter: str) -> None:
    mounted = pair.root / f"rules-{chapter}"
    mounted.mkdir()
    with tempfile.TemporaryDirectory(prefix="lockstep-plain-", dir="/var/tmp") as plain:
        os.chmod(plain, 0o755)
        different = differences_of(list(CHAPTERS[chapter]()), mounted, Path(plain))
    pair.mirrored(mounted.name)
    shutil.rmtree(mounted)
    assert not different, "\n".join(different[:200])

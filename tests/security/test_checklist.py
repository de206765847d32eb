"""The checklist's every test is there and is collected; its page is what the table says; what SECURITY.md names is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.checklist import CHECKLIST, PAGE, named, page

ROOT = Path(__file__).resolve().parents[2]


def test_every_item_is_held_by_something() -> None:
    assert len(CHECKLIST) >= 7 and sum(map(len, CHECKLIST.values())) >= 40
    empty = [item for items in CHECKLIST.values() for item, tests in items.items() if not tests]
    assert empty == []


def there(test: str) -> bool:
    return not test.startswith("tests/") or (ROOT / test.partition("::")[0]).exists()


def test_every_test_is_there_and_collected() -> None:
    """By pytest itself: a test that is misspelt, renamed or skipped as a whole module is not found."""
    wanted = [test for test in named() if test.startswith("tests/")]
    missing = [test for test in wanted if not there(test)]
    assert missing == [], "named in tests/security/checklist.py, and not there"
    files = sorted({test.partition("::")[0] for test in wanted if there(test)})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    collected = {line.partition("[")[0] for line in done.stdout.splitlines() if "::" in line}
    with_classes = {f"{line.split('::')[0]}::{line.split('::')[-1]}" for line in collected}
    files_with_tests = {line.partition("::")[0] for line in collected}
    gone = [test for test in wanted if there(test) and test not in collected | with_classes | files_with_tests]
    assert gone == [], "named in tests/security/checklist.py, and not collected"


def test_every_native_test_and_fuzzer_is_there() -> None:
    native = (ROOT / "tests" / "native" / "main.c").read_text()
    for test in named():
        if test.startswith("native: "):
            assert f'{{"{test.removeprefix("native: ")}",' in native, test
        elif test.startswith("fuzz: "):
            assert list((ROOT / "tests" / "fuzz").glob(f"fuzz_{test.removeprefix('fuzz: ')}.*")), test


def test_every_test_of_this_directory_is_in_the_table() -> None:
    """But for those that test the tests."""
    named_files = {test.partition("::")[0] for test in named()}
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "security").glob("test_*.py")}
    assert ours <= named_files


def test_the_page_is_the_table() -> None:
    assert PAGE.read_text() == page(), "run python -m tests.security.checklist"


@pytest.mark.parametrize("name", ["SECURITY.md", "docs/security-checklist.md"])
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"


def test_what_security_md_names_is_there() -> None:
    """Files in backticks with a slash or a suffix of ours, and every option and command of ours."""
    text = (ROOT / "SECURITY.md").read_text()
    files = re.findall(r"`((?:tests|csrc|rfs|orchestrator|script|docs|requirements)/[\w./*-]+)`", text)
    assert len(files) >= 10
    for name in files:
        assert list(ROOT.glob(name.rstrip("/"))), f"SECURITY.md names {name}"
    from orchestrator.hactl.cli import every_command

    commands = {" ".join(words) for words, _ in every_command()}
    for words in re.findall(r"`hactl ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)*)", text):
        assert f"hactl {words}" in commands, f"SECURITY.md names hactl {words}"
    for item in ("## Reporting", "## Supported versions", "## Threat model", "90 days", "security-checklist.md"):
        assert item in text

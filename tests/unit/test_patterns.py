"""Which names are local: the words of the options, sorted out by directory."""

from __future__ import annotations

import pytest

from rfs.errors import SaidNo
from rfs.patterns import PARTS_MAX, Patterns, by_directory, digest, parts_of, within

BOTH = ("/srv/a", "/srv/b")


def test_a_pattern_is_for_all_directories_or_for_its_own() -> None:
    got = by_directory(BOTH, ["*.tmp", "/srv/a/cache/**", "/srv/b/core"], ["/srv/b/**/*.db"])
    assert got == (Patterns(("*.tmp", "cache/**")), Patterns(("*.tmp", "./core"), ("**/*.db",)))


@pytest.mark.parametrize("pattern", ["*.tmp", "./core", "cache/**", "a/*/c", "**/x"])
def test_what_is_said_of_one_directory_is_heard_of_it_alone(pattern: str) -> None:
    own, other = by_directory(BOTH, [within("/srv/a", pattern)], [])
    assert other == Patterns()
    assert own.exclude in ((pattern,), (f"**/{pattern}",)), "at any depth is written with two stars"


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "a name in it is empty"),
        ("a//b", "a name in it is empty"),
        ("cache/", "a name in it is empty"),
        ("../x", '"." and ".." are not names'),
        ("/etc/*", "it is an absolute path"),
        ("a\0b", "1 to 1024 bytes"),
    ],
)
def test_what_is_not_a_pattern_is_one_sentence(pattern: str, said: str) -> None:
    with pytest.raises(SaidNo, match="is not a pattern") as refusal:
        by_directory(BOTH, [pattern], [])
    assert said in refusal.value.sentence


def test_too_many_names_are_refused() -> None:
    many = [f"directory{number}/name" for number in range(PARTS_MAX // 2)]
    by_directory(BOTH, many, [])
    with pytest.raises(SaidNo, match="fewer are needed"):
        by_directory(BOTH, many, ["x"])
    assert parts_of("x") == parts_of("a/b") == 2 and parts_of("./x") == 1


def test_the_order_of_the_options_says_nothing() -> None:
    assert digest(by_directory(BOTH, ["x", "y"], [])) == digest(by_directory(BOTH, ["y", "x"], []))
    assert digest(by_directory(BOTH, ["x"], [])) != digest(by_directory(BOTH, [], ["x"]))

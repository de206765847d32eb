"""JSON and msgpack that somebody else wrote, or a disk has damaged: a value of a depth that can be looked at, or ValueError.

Both libraries stop at about a thousand levels, json with RecursionError, which is no ValueError. And what is less deep than that is
still too deep for whoever shows it: `repr` needs a level of the stack for each as well. Nothing of ours is deeper than a dozen.
"""

import json
from typing import Any, Final

import msgpack

DEPTH_MAX: Final = 32
MOMENT_S_MAX: Final = 6e10  # what `time.localtime` takes is more, and differs


def from_json(text: str | bytes) -> Any:
    """The value; ValueError for what is no JSON, or too deep."""
    try:
        return _shallow(json.loads(text))
    except RecursionError:
        raise ValueError("it is too deep") from None


def from_msgpack(data: bytes) -> Any:
    """The value, with text and numbers as keys of maps; ValueError for what is no msgpack, or too deep."""
    try:
        return _shallow(msgpack.unpackb(data, raw=False, strict_map_key=True))
    except msgpack.exceptions.UnpackException as failure:  # not all of them are ValueErrors
        raise ValueError(str(failure) or "it is cut off") from failure


def whole(value: object) -> int:
    """A number out of it as `int` makes one, also of a text; ValueError for infinity, which JSON may hold."""
    try:
        return int(value)  # type: ignore[call-overload, no-any-return]
    except OverflowError as failure:
        raise ValueError(str(failure)) from failure


def moment(value: object) -> float:
    """Seconds out of it, between the years 1 and 9999 wherever a clock begins; ValueError for infinity and what is no number."""
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except OverflowError as failure:
        raise ValueError(str(failure)) from failure
    if not abs(seconds) < MOMENT_S_MAX:
        raise ValueError(f"{seconds} is no time")
    return seconds


def _shallow(value: Any) -> Any:
    """Level by level, so that nothing here is too deep itself."""
    level = [value]
    for _ in range(DEPTH_MAX):
        inside: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inside += each.values()
            elif isinstance(each, list):
                inside += each
        if not inside:
            return value
        level = inside
    raise ValueError("it is too deep")

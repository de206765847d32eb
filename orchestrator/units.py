"""Durations (`500ms 3s 5m 24h`) and sizes (`64KiB 1GiB`) as people write them."""

from __future__ import annotations

import re

_DURATION_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_BYTES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile(rf"{_NUMBER}\s*({'|'.join(_DURATION_S)})")
_SIZE = re.compile(rf"(\d+)\s*({'|'.join(unit for unit in _SIZE_BYTES if unit)})?")
_RATE = re.compile(r"(\d+)\s+per\s+(.+)")


def parse_duration_s(text: str) -> float:
    """Seconds in `text`; a bare number is refused, because it never says of what."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'"{text}" is not a duration; write for example 500ms, 3s, 5m or 24h')
    return float(match[1]) * _DURATION_S[match[2]]


def parse_size_bytes(text: str) -> int:
    """Bytes in `text`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'"{text}" is not a size; write for example 64KiB, 4GiB')
    return int(match[1]) * _SIZE_BYTES[match[2] or ""]


def parse_restarts(text: str) -> tuple[int, float]:
    """`3 per 24h` as a count and the seconds of the period."""
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'"{text}" is not a limit of restarts; write for example "3 per 24h"')
    return int(match[1]), parse_duration_s(match[2])


def show_bytes(count: float) -> str:
    """`1.2 GiB`: for people, three figures are enough."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def show_duration(seconds: float) -> str:
    """`3d 4h`, `1m 55s`, `42s`: the two largest units."""
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    first = next((index for index, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count or len(parts) - 1 == first)

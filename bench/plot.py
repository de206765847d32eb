"""Pictures of the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw(results: dict[str, Any], directory: Path) -> list[Path]:
    """None yet."""
    return []

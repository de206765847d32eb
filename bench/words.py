"""What a run says of itself."""

from __future__ import annotations

import os
import sys
import time
from typing import Any


def say(text: str) -> None:
    """How far we are."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Where the figures are from; they are not to be compared with another one's."""
    return {"processors": os.cpu_count(), "kernel": os.uname().release, "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}

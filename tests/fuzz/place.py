"""Where fuzzers that need files have them: in memory, and gone with the fuzzer."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

GIVEN = "LOCKSTEP_FUZZ_PLACE"  # by who starts a fuzzer that may be killed, and cleans up behind it
IN_MEMORY = Path("/dev/shm")


def own_place() -> Path:
    """A new directory of root's alone."""
    above = os.environ.get(GIVEN) or (str(IN_MEMORY) if IN_MEMORY.is_dir() else None)
    made = Path(tempfile.mkdtemp(prefix="lockstep-fuzz-", dir=above))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made

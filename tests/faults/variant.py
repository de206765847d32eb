"""rfsmount in builds of its engine that are not installed, under `build/`: one with the named steps of the write path too (csrc/steps.h),
one under sanitizers.

The Python files there are links to the ones of this checkout; only `rfs/_engine` is another. It is built again when csrc/ has changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SANITIZERS = "-O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"


def _digest() -> str:
    files = sorted([*(ROOT / "csrc").glob("*.[ch]"), ROOT / "csrc" / "build_engine.py", ROOT / "setup.py"])
    return hashlib.blake2b(b"".join(path.read_bytes() for path in files), digest_size=16).hexdigest()


@cache
def with_steps() -> Path:
    """Where to start `python -m rfs.cli`."""
    return _built("steps", {"LOCKSTEP_BUILD_STEPS": "1"})


@cache
def with_sanitizers() -> Path:
    """The same; the process needs the sanitizers' libraries loaded first (LD_PRELOAD)."""
    return _built("sanitized", {"CFLAGS": SANITIZERS, "LDFLAGS": "-fsanitize=address,undefined"})


def _built(name: str, environment: dict[str, str]) -> Path:
    place = ROOT / "build" / name
    package, stamp = place / "rfs", place / "stamp"
    package.mkdir(parents=True, exist_ok=True)
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = _digest()
        if not stamp.exists() or stamp.read_text() != digest:
            build = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(place), "--build-temp", str(place / "objects")]
            subprocess.run(build, cwd=ROOT, env=os.environ | environment, check=True, capture_output=True, timeout=300)
            stamp.write_text(digest)
        for path in (ROOT / "rfs").iterdir():
            link = package / path.name
            if (path.suffix == ".py" or path.name == "control") and not link.is_symlink():
                link.symlink_to(path)
        for link in package.iterdir():
            if link.is_symlink() and not link.exists():
                link.unlink()
    return place

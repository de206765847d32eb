"""The hostile peer's cases under AddressSanitizer and UndefinedBehaviorSanitizer: `python -m tests.hostile.sanitized [PYTEST OPTIONS]`.

An engine is built for it (build/sanitized), so it takes a minute longer than the plain run; the first report of a sanitizer ends it.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.faults.variant import ROOT, with_sanitizers

CASES = ("test_target.py", "test_source.py", "test_limits.py")


def _library(name: str) -> str:
    answer = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return answer.stdout.strip()


def main() -> int:
    """The exit code of pytest, or of the sanitizer."""
    place = with_sanitizers()
    environment = os.environ | {
        "LD_PRELOAD": f"{_library('libasan.so')} {_library('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",  # Python's own would be told of
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "LOCKSTEP_HOSTILE_ENGINE": str(place),
    }
    cases = [str(ROOT / "tests" / "hostile" / name) for name in CASES]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.hostile.other_engine", *cases, *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

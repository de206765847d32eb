"""A client that inserts numbers into a table and remembers every commit it was told of.

    python -m orchestrator.lab.commits CONNINFO OUT

One psql session at a time; when it breaks, the next. A number is used once: whether a commit whose answer was lost took
place is not known, and is not claimed.
"""

from __future__ import annotations

import subprocess
import sys
import time

RETRY_S = 0.1


def session(conninfo: str, number: int, out_path: str) -> int:
    """Insert from `number` on until the session breaks; the next number to use."""
    psql = subprocess.Popen(
        ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", conninfo],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert psql.stdin is not None and psql.stdout is not None
    with psql, open(out_path, "a", buffering=1) as out:
        try:
            while True:
                asked, number = number, number + 1
                psql.stdin.write(f"INSERT INTO commits (n) VALUES ({asked}) RETURNING n;\n")
                psql.stdin.flush()
                if psql.stdout.readline() != f"{asked}\n":
                    return number
                out.write(f"{asked} {time.monotonic():.6f}\n")
        except BrokenPipeError:
            return number
        finally:
            psql.kill()


def main(arguments: list[str]) -> int:
    """Until killed."""
    conninfo, out_path = arguments
    number = 1
    while True:
        number = session(conninfo, number, out_path)
        time.sleep(RETRY_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The user who means ill (racer.c), as a test starts him."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RESERVED, LINKS = "RACER_RESERVED", "RACER_LINKS"  # what he is after: see there
SOURCE = Path(__file__).with_name("racer.c")


def compile_racer(place: Path) -> Path:
    """The program; every user may run it."""
    program = place / "racer"
    subprocess.run(["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(SOURCE), "-pthread"], check=True, timeout=60)
    return program


class Racer:
    """One of them. `hidden`: he opens the directories now, and nobody finds that he has them, until `go`."""

    def __init__(
        self,
        program: Path,
        uid: int,
        seed: int,
        seconds: float,
        canary: Path,
        *directories: Path,
        hidden: bool = False,
        kind: str = RESERVED,
    ) -> None:
        line = [str(program), *(["-h"] if hidden else []), str(uid), str(seconds), str(seed), str(canary), *map(str, directories)]
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {kind: "1"})
        self.done: dict[str, int] = {}
        if hidden:
            assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def go(self) -> None:
        """Take the descriptors out, and begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, int]:
        """No more; how many calls of each kind succeeded."""
        if not self.done:
            said, _ = self._process.communicate(timeout=60)
            assert self._process.returncode == 0
            self.done = {kind: int(count) for kind, count in (word.split("=") for word in said.split())}
        return self.done

    def wait(self) -> None:
        """Until his time is over."""
        self._process.wait(60)

    def is_racing(self) -> bool:
        """His time is not over yet."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Whatever he is at."""
        if self.is_racing():
            self._process.kill()
        self._process.wait(10)


@contextmanager
def all_ended(racers: list[Racer]) -> Iterator[None]:
    """Nobody of them is left behind."""
    try:
        yield
    finally:
        for racer in racers:
            racer.kill()


def compile_preload(place: Path) -> Path:
    """The mistake that the race must find out (follows_links.c)."""
    library = place / "follows_links.so"
    command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE.with_name("follows_links.c"))]
    subprocess.run(command, check=True, timeout=60)
    return library

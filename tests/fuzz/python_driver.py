"""One fuzzer of Python: `python -m tests.fuzz.python_driver NAME [libFuzzer's options] [DIRECTORY... | FILE...]`.

With directories atheris looks for inputs that reach more of `rfs` and `orchestrator`; with files each is tried once, and atheris is not
needed.

A fuzzer is a module tests/fuzz/fuzz_NAME.py with `PARSERS`, by their names: functions that are given the bytes, expect the errors that the
parser names and no others, and assert what must hold of what was understood. The first byte of an input chooses one of them, so new ones
come last. What must hold of all is here: no other exception comes out (a RecursionError is one), and none takes longer or more memory
than the bytes are worth.
"""

from __future__ import annotations

import importlib
import logging
import os
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.fuzz.place import GIVEN, IN_MEMORY, own_place

Parser = Callable[[bytes], None]
CPU_S_MAX = 2.0  # of one input of at most a few KiB: what is ten times slower than it should be is still far below
MEMORY_BYTES_MAX = 1 << 30  # beyond what the modules themselves take


class TooSlow(Exception):
    """An input that costs more than it is worth."""


def chooser(parsers: Mapping[str, Parser]) -> Parser:
    """All of them as one."""
    each = list(parsers.values())

    def one(data: bytes) -> None:
        if not data:
            return
        began = time.process_time()
        each[data[0] % len(each)](data[1:])
        if (took_s := time.process_time() - began) > CPU_S_MAX:
            raise TooSlow(f"FAILED: {took_s:.1f} s for {len(data)} bytes")

    return one


def bound_memory() -> None:
    """An allocation that bytes ask for fails, as MemoryError, which nobody may expect."""
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + MEMORY_BYTES_MAX, resource.RLIM_INFINITY))


def parsers_of(name: str) -> Mapping[str, Parser]:
    """Of a fuzzer."""
    parsers: Mapping[str, Parser] = importlib.import_module(f"tests.fuzz.fuzz_{name}").PARSERS
    return parsers


def trust_the_place() -> None:
    """It is below directories in which everybody may make names; what counts begins below them."""
    from orchestrator import ownership  # late: the import is instrumented

    ownership.TOP = Path(os.environ.get(GIVEN) or (IN_MEMORY if IN_MEMORY.is_dir() else tempfile.gettempdir()))


def replay(name: str, files: list[str]) -> None:
    """Each file once; libFuzzer's words, so that one reader understands both."""
    one = chooser(parsers_of(name))
    trust_the_place()
    bound_memory()
    for file in files:
        print(f"Running: {file}", flush=True)
        one(Path(file).read_bytes())
        print(f"Executed {file}")


def fuzz(name: str, options: list[str]) -> None:
    """Until libFuzzer's options say that it is enough."""
    import atheris

    with atheris.instrument_imports(include=["rfs", "orchestrator"]):
        one = chooser(parsers_of(name))
        trust_the_place()
    bound_memory()
    itself = own_place() / name  # a merge begins itself again, by its own name
    itself.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tests.fuzz.python_driver {name} "$@"\n')
    itself.chmod(0o700)
    atheris.Setup([str(itself), *options], one)
    atheris.Fuzz()


def main(name: str, options: list[str]) -> None:
    """See the module's text."""
    logging.disable(logging.CRITICAL)
    files = [option for option in options if os.path.isfile(option)]
    if files:
        replay(name, files)
    else:
        fuzz(name, options)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

"""Into the background, before anything that a fork would break: threads, an event loop, the engine.

The parent stays until the child tells it through a pipe how the start went, prints that sentence and exits with that code. A child that
dies without a word has failed.
"""

import os
from collections.abc import Callable

from rfs import exit_codes
from rfs.show import say

Report = Callable[[int, str], None]


def into_background(log_path: str) -> Report | int:
    """In the child: the function that tells the parent. In the parent: the exit code to end with."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    if os.fork() != 0:
        os.close(writing)
        return _wait_for_report(reading)
    os.close(reading)
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    os.chdir("/")
    _redirect(log_path)
    told = False

    def report(code: int, sentence: str) -> None:
        nonlocal told
        if not told:
            told = True
            os.write(writing, f"{code} {sentence}".encode())
            os.close(writing)

    return report


def _wait_for_report(reading: int) -> int:
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    code, _, sentence = text.partition(" ")
    if not code.isdigit():
        say("rfsmount: the background process ended without a word; look into its log in the state directory", err=True)
        return exit_codes.FAILED
    if sentence:
        say(f"rfsmount: {sentence}", err=True)
    return int(code)


def _redirect(log_path: str) -> None:
    """Standard input from nowhere, output into the log."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    except OSError:
        log = nowhere
    os.dup2(nowhere, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for descriptor in {nowhere, log}:
        if descriptor > 2:
            os.close(descriptor)

"""`safekit`, as scripts written for SafeKit on Linux call it: the part of that command that scripts use, said to hactld.

    safekit printi "text" | printe "text"               a line in the module's history
    safekit incloop -i NAME | checkloop | resetloop     counts against max_restarts; exit code 1 when there were too many
    safekit start | stop | stopstart | restart | swap [nosync] | prim [fullsync] | second [fullsync]  [-i NAME]
    safekit state [-lq]                                 with -lq the exit code is the state: STOP 0, WAIT 1, ALONE, UP 2, PRIM 3, SECOND 4
    safekit waitstart | waitstop | waitstate STATE
    safekit set -r custom.NAME -v up|down [-i NAME]     how a resource is that a loop of yours looks at
    safekit errd | checker | failover | boot  on|off
    safekit boundcmd SECONDS COMMAND…                   ends a command that takes too long; exit code 124

The module is the script's own ($SAFEMODULE), or that of `-m`. What SafeKit's command has beside this (get, gencron, processtree, kill,
-H, -r …) is refused with exit code 2 and a sentence, never ignored.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from orchestrator.api.client import DEFAULT_SOCKET, ApiClient, ApiFailure
from orchestrator.paths import Paths
from rfs import exit_codes
from rfs.show import say

LEVELS: Final = {"STOP": 0, "WAIT": 1, "ALONE": 2, "UP": 2, "PRIM": 3, "SECOND": 4}
MOVES: Final = {"start", "stop", "stopstart", "restart", "swap", "prim", "second"}
MOVE_WORDS: Final = {"nosync", "fullsync"}
BY_CHECKERS: Final = {"stop", "stopstart", "restart", "swap"}
LOOPS: Final = {"incloop": "failures-count", "checkloop": "failures-check", "resetloop": "failures-reset"}
SWITCHES: Final = {
    **{(name, word): f"checkers-{word}" for name in ("errd", "checker") for word in ("on", "off")},
    ("failover", "on"): "resume", ("failover", "off"): "pause",
    **{("boot", word): f"boot-{word}" for word in ("on", "off")},
}
WAIT_EVERY_S = 0.2
UNKNOWN_STATE = 100  # of `state`, whose exit codes up to 4 are states


class Wrong(Exception):
    """A call that cannot be served; the sentence."""


def lay(paths: Paths) -> None:
    """Put the command where $SAFE points to."""
    paths.shim.mkdir(parents=True, exist_ok=True)
    new = paths.shim / "safekit.new"
    new.write_text(f'#!/bin/sh\nHACTL_SOCKET={paths.socket} exec {sys.executable} -P -m orchestrator.shim "$@"\n')
    new.chmod(0o755)
    new.rename(paths.shim / "safekit")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return serve(words, ApiClient(Path(os.environ.get("HACTL_SOCKET", DEFAULT_SOCKET))))
    except (Wrong, ApiFailure) as trouble:
        say(f"safekit: {trouble}", err=True)
        code = exit_codes.USAGE if isinstance(trouble, Wrong) else trouble.code
        return UNKNOWN_STATE if words[:1] == ["state"] and code in LEVELS.values() else code


def serve(words: list[str], client: ApiClient) -> int:
    """One call."""
    if words and words[0] == "boundcmd":
        return bounded(words[1:])  # its words are another command's
    said: list[str] = []
    if words and words[0] in ("printi", "printe"):
        words, said = words[:1], words[1:]
        while len(said) > 1 and said[0] == "-m":
            words, said = [*words, *said[:2]], said[2:]
    module = option(words, "-m") or os.environ.get("SAFEMODULE", "")
    identity = option(words, "-i") or ""
    if not words:
        raise Wrong("say what: printi, printe, incloop, state, stop …")
    if not module:
        raise Wrong("say which module with -m; in a module's script $SAFEMODULE does")
    verb, *rest = words
    if verb in ("printi", "printe"):
        client.note(module, "error" if verb == "printe" else "info", " ".join(said))
        return exit_codes.DONE
    if verb == "set":
        resource, value = option(rest, "-r"), option(rest, "-v")
        if rest or not resource or value not in ("up", "down"):
            raise Wrong("set needs -r custom.NAME -v up, or -v down")
        client.checked(module, resource, value, f"said by {identity}" if identity else "")
        return exit_codes.DONE
    if verb in LOOPS:
        return counted(client, module, LOOPS[verb], identity)
    if verb in MOVES and set(rest) <= MOVE_WORDS:
        flags = dict.fromkeys(rest, True)
        client.command(module, verb, {**flags, **({"identity": identity} if identity and verb in BY_CHECKERS else {})})
        return exit_codes.DONE
    if (verb, *rest) in SWITCHES:
        client.command(module, SWITCHES[verb, rest[0]], {})
        return exit_codes.DONE
    if verb == "state":
        return show_state(client, module, rest)
    if verb in ("waitstart", "waitstop", "waitstate"):
        return wait_for(client, module, verb, rest)
    raise Wrong(f"'{' '.join([verb, *rest])}' is not served here; docs/interfaces.md lists what is")


def option(words: list[str], name: str) -> str | None:
    """The word after `name`; both are taken out."""
    if name not in words:
        return None
    index = words.index(name)
    if index + 1 >= len(words):
        raise Wrong(f"{name} needs a word after it")
    value = words[index + 1]
    del words[index : index + 2]
    return value


def counted(client: ApiClient, module: str, verb: str, identity: str) -> int:
    """SafeKit's answer: 1 when there were too many, else 0."""
    try:
        client.command(module, verb, {"identity": identity} if identity else {})
    except ApiFailure as failure:
        if failure.code != exit_codes.FAILED:
            raise
        return 1
    return 0


def line_of(client: ApiClient, module: str) -> dict[str, Any]:
    """This node's line of the module's status."""
    document = client.status()
    for entry in document["modules"]:
        if entry["name"] == module:
            return next(dict(line) for line in entry["nodes"] if line["node"] == document["node"])
    raise Wrong(f"there is no module {module}")


def show_state(client: ApiClient, module: str, rest: Sequence[str]) -> int:
    """The state, as text or as exit code."""
    line = line_of(client, module)
    flags = "".join(rest).replace("-", "")
    if "q" not in flags:
        say(f"{line['state']} ({line['readiness']})")
    return LEVELS[line["state"]] if "l" in flags else exit_codes.DONE


def wait_for(client: ApiClient, module: str, verb: str, rest: Sequence[str]) -> int:
    """Until it is so; the script's own time limit ends it."""
    if verb == "waitstate" and (len(rest) != 1 or rest[0] not in LEVELS):
        raise Wrong(f"waitstate needs one of {', '.join(LEVELS)}")
    while True:
        line = line_of(client, module)
        state, ready = line["state"], line["readiness"] == "Ready"
        if verb == "waitstart" and ready or verb == "waitstop" and state == "STOP" or verb == "waitstate" and state == rest[0]:
            return exit_codes.DONE
        time.sleep(WAIT_EVERY_S)


def bounded(words: Sequence[str]) -> int:
    """A command and its time."""
    if len(words) < 2 or not words[0].isdigit():
        raise Wrong("boundcmd needs a number of seconds and a command")
    return subprocess.run(["timeout", "--kill-after=5", words[0], *words[1:]], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

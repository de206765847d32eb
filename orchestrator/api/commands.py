"""The verbs that can be said about a module, and the core's event for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from orchestrator.api.server import ApiError
from orchestrator.core import events as ev
from rfs import exit_codes

IDENTITY_CHARACTERS_MAX = 64

COMMANDS: Final[dict[str, tuple[type[ev.Command], dict[str, Any]]]] = {
    "start": (ev.Start, {}),
    "stop": (ev.Stop, {}),
    "restart": (ev.Restart, {}),
    "stopstart": (ev.StopStart, {}),
    "swap": (ev.Swap, {}),
    "prim": (ev.Prim, {}),
    "second": (ev.Second, {}),
    "pause": (ev.Switch, {"switch": "failover", "value": "off"}),
    "resume": (ev.Switch, {"switch": "failover", "value": "on"}),
    **{f"checkers-{word}": (ev.Switch, {"switch": "checkers", "value": word}) for word in ("on", "off")},
    **{f"boot-{word}": (ev.Switch, {"switch": "boot", "value": word}) for word in ("on", "off", "auto", "config")},
    **{f"failures-{word}": (ev.Count, {"what": word}) for word in ("count", "check", "reset")},
}
FLAGS: Final = {"prim": {"force", "fullsync"}, "second": {"fullsync"}, "swap": {"nosync"}}
ALL_FLAGS: Final = {name for names in FLAGS.values() for name in names}
BY_CHECKERS: Final = {"stop", "restart", "stopstart", "swap", "failures-count", "failures-check", "failures-reset"}


def make_command(verb: str, module: str, options: Mapping[str, Any]) -> Callable[[float, int], ev.Command]:
    """The core's event for a verb; ApiError for a verb or option that does not exist."""
    if verb not in COMMANDS:
        raise ApiError(f"there is no command '{verb}'", exit_codes.USAGE, 404)
    allowed = FLAGS.get(verb, set()) | ({"identity"} if verb in BY_CHECKERS else set())
    wrong = [name for name, value in options.items() if name not in ALL_FLAGS | {"identity"} or (value and name not in allowed)]
    if wrong:
        raise ApiError(f"'{verb}' takes no option '{wrong[0]}'", exit_codes.USAGE)
    kind, fixed = COMMANDS[verb]
    flags = {name: True for name in FLAGS.get(verb, ()) if options.get(name) is True}
    checker = str(options.get("identity") or "")[:IDENTITY_CHARACTERS_MAX]
    return lambda now, request: kind(now, module, request, checker=checker, **fixed, **flags)

"""Who may ask what: one table of every question and order, with the least role that may.

Two interfaces read it. Over the unix socket (server.py) a request is a method and a path, and who asks is what the kernel says of the
other end (access.py). Over the call channel (peer_calls.py) a peer's hactld passes on what somebody asked it for, and says in which role:
that daemon has enforced this table already, and the one that is asked looks once more. Calls of the daemons' own (`hello`, `tell`, …) are
nobody's order: who speaks is the peer, by its key.

The table is total. What is not in it is refused, whoever asks, so a route that is new and forgotten here is closed, not open; a test
finds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Final


class Role(IntEnum):
    """What somebody may do; each may what the ones before it may."""

    NONE = 0
    VIEWER = 1  # look
    OPERATOR = 2  # move modules: nothing that a person with a role above could not take back
    ADMIN = 3  # change what there is, and decide whose data stays

    @property
    def word(self) -> str:
        """As people, configuration and messages have it."""
        return self.name.lower()


WORDS: Final[Mapping[str, Role]] = {role.word: role for role in Role if role is not Role.NONE}
VIEWER, OPERATOR, ADMIN = Role.VIEWER, Role.OPERATOR, Role.ADMIN

# A verb of `POST /v1/modules/NAME/VERB`, and of the call `command`.
VERBS: Final[Mapping[str, Role]] = {
    **dict.fromkeys(("start", "stop", "restart", "stopstart", "swap", "pause", "resume", "checkers-on", "checkers-off"), OPERATOR),
    **dict.fromkeys(("boot-on", "boot-off", "boot-auto", "boot-config"), OPERATOR),
    **dict.fromkeys(("failures-count", "failures-check", "failures-reset", "note"), OPERATOR),
    **dict.fromkeys(("prim", "second"), OPERATOR),
    **dict.fromkeys(("verify", "diff"), OPERATOR),
    **dict.fromkeys(("repair", "resync", "resolve", "discard"), ADMIN),
    **dict.fromkeys(("open", "close"), ADMIN),
}

# An option that is more than its verb: it gives data up, or may.
OPTIONS: Final[Mapping[tuple[str, str], Role]] = {
    ("prim", "force"): ADMIN,
    ("prim", "fullsync"): ADMIN,
    ("second", "fullsync"): ADMIN,
    ("swap", "nosync"): ADMIN,
}

# A parameter that makes more of a question than it is: of the last piece of a path, or of a call.
PARAMETERS: Final[Mapping[tuple[str, str, str], Role]] = {
    ("doctor", "what", "snapshot"): OPERATOR,
    ("config", "what", "diff"): ADMIN,  # the lines of files that only root may read: environments of services may be in them
}

# Every other route: method and path, in which `*` is one piece of a path.
ROUTES: Final[Mapping[tuple[str, str], Role]] = {
    ("GET", "/v1"): VIEWER,
    ("GET", "/v1/schemas/*"): VIEWER,
    ("GET", "/v1/status"): VIEWER,
    ("GET", "/v1/events"): VIEWER,
    ("GET", "/v1/events/stream"): VIEWER,
    **{("GET", f"/v1/modules/*/{what}"): VIEWER for what in ("why", "simulate", "logs", "data", "work", "contents")},
    ("POST", "/v1/modules/*/checkers/*"): OPERATOR,  # a script says how its resource is
    ("GET", "/v1/config"): VIEWER,
    ("GET", "/v1/config/diff"): ADMIN,  # as above; the first that fits counts
    ("GET", "/v1/config/*"): VIEWER,
    **{("POST", f"/v1/config/{what}"): ADMIN for what in ("apply", "rollback")},
    ("GET", "/v1/doctor"): VIEWER,
    ("POST", "/v1/cluster/rotate-keys"): ADMIN,
}

# The calls that a peer passes on for somebody. `command` and `begin` carry a verb of VERBS.
CALLS: Final[Mapping[str, Role]] = {
    **dict.fromkeys(("status", "logs", "events", "why", "simulate", "data", "work", "contents", "doctor", "config"), VIEWER),
    **dict.fromkeys(("rotate",), ADMIN),
}
CALLS_WITH_A_VERB: Final = frozenset({"command", "begin"})
# Between the daemons: nobody has asked for these.
CALLS_OF_DAEMONS: Final = frozenset(
    {"hello", "pin", "tell", "promote", "outdate", "rfs_state"}
    | {f"config_{step}" for step in ("state", "fate", "files", "prepare", "commit", "abort")}  # the rounds of an apply
)


def of_route(method: str, path: Sequence[str], query: Mapping[str, str] | None = None) -> Role | None:
    """The least role for a request; None: there is no such thing, for nobody."""
    match method, tuple(path):
        case "POST", ("v1", "modules", _, verb):
            return VERBS.get(verb)
    for (known, pattern), role in ROUTES.items():
        if known == method and _fits(pattern, path):
            return with_parameters(role, path[-1], query or {})
    return None


def with_parameters(role: Role, name: str, parameters: Mapping[str, object]) -> Role:
    """The least role for a question with these parameters."""
    return max([role, *(needed for (of, key, value), needed in PARAMETERS.items() if of == name and parameters.get(key) == value)])


def _fits(pattern: str, path: Sequence[str]) -> bool:
    pieces = pattern.strip("/").split("/")
    return len(pieces) == len(path) and all(piece in ("*", found) for piece, found in zip(pieces, path, strict=True))


def of_verb(verb: str, options: Mapping[str, object]) -> Role | None:
    """The least role for a verb with these options."""
    if (role := VERBS.get(verb)) is None:
        return None
    return max([role, *(needed for (of, name), needed in OPTIONS.items() if of == verb and options.get(name))])


def of_call(method: str, parameters: Mapping[str, object]) -> Role | None:
    """The least role for what a peer passes on; Role.NONE: the daemons' own. None: there is no such call."""
    if method in CALLS_OF_DAEMONS:
        return Role.NONE
    if method in CALLS_WITH_A_VERB:
        options = parameters.get("options")
        return of_verb(str(parameters.get("verb", "")), options if isinstance(options, dict) else {})
    role = CALLS.get(method)
    return with_parameters(role, method, parameters) if role is not None else None


def role_named(word: object) -> Role:
    """The role that a peer says somebody has. What is no role is the least that can ask anything: a hactld of before roles says none."""
    return WORDS.get(word, Role.VIEWER) if isinstance(word, str) else Role.VIEWER


def refusal(what: str, needed: Role, who: str, role: Role, may: str) -> str:
    """The sentence for somebody who may not."""
    has = f"has the role {role.word}" if role is not Role.NONE else "has no role here"
    return f"'{what}' needs the role {needed.word}, and {who} {has}; {may}"

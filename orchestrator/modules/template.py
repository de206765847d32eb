"""What a template is given, and what it makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.modules.machine import Machine
from orchestrator.sentence import Sentence
from rfs import exit_codes

Value = str | int | tuple[str, ...] | Mapping[str, str]

MODULE_SETTINGS: Mapping[str, str] = {
    "ack": "memory or disk: when a change counts as mirrored",
    "boot": "auto, on or off: what a node does with the module when it boots",
    "default_primary": "alone, lastprim or a node: who has the role when both could have it",
    "max_restarts": "how often what died is started again where it is, e.g. 3 per 24h",
    "port": "of the replication; by default the first free one from 5600 on",
    "replication_network": "the network of cluster.toml that carries the data",
}
"""What `--set` may say for every template."""


class Unfit(Sentence):
    """The template cannot do with what it was given or found; the sentence says what to give instead."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_codes.USAGE)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the administrator said."""

    name: str
    directories: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    vips: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)  # of --set

    def setting(self, key: str, default: str = "") -> str:
        """What was set, or the default."""
        return self.settings.get(key) or default


@dataclass(frozen=True, slots=True)
class Line:
    """`key = value`, and why."""

    key: str
    value: Value
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Directory:
    """One `[[replicated]]`; `owner` and `mode`: how to make it where it is missing."""

    path: str
    require: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    comment: str = ""
    owner: str = ""
    mode: str = "755"


@dataclass(frozen=True, slots=True)
class Service:
    """One `[[service]]`; `unit` where it is systemd's."""

    lines: tuple[Line, ...]
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """A module that is still to be written down."""

    title: str
    directories: tuple[Directory, ...] = ()
    services: tuple[Service, ...] = ()
    checkers: tuple[tuple[Line, ...], ...] = ()
    notes: tuple[str, ...] = ()  # what to see to on both nodes, a sentence each
    mode: Literal["mirror", "light"] = "mirror"


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of application. `found`: what of it is on this machine, in a few words; empty: nothing."""

    name: str
    title: str
    draft: Callable[[Wishes, Machine], Draft]
    found: Callable[[Machine], str]
    settings: Mapping[str, str] = field(default_factory=dict)


def unit_service(unit: str, *more: Line) -> Service:
    """A service that systemd runs."""
    return Service((Line("unit", unit), *more), unit)


def tcp_checker(to: str, comment: str) -> tuple[Line, ...]:
    """The service is started again when nobody answers there any more."""
    return (Line("type", "tcp"), Line("to", to, comment), Line("when", "prim"), Line("action", "restart"))

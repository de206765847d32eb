"""The `[[checker]]` tables: the keys that all kinds have, and each kind's own. `build_checker` makes of one what the rest of the
orchestrator sees; what spans several keys is checked in `checks.py`.

Where the file says nothing, the kind decides when it looks and what follows. What is this machine's own (a process, a port, the
service address, its disks) is looked at while the services are up here, and the services are restarted. What both nodes depend on (a
router, a port of another machine, a module that runs elsewhere) is *shared*: it is looked at on both nodes from the start of the module
on, and only a node that alone does not reach it gives way.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictInt, StrictStr

from orchestrator.checkers.targets import is_loopback, name_from, parse_endpoint, parse_free, parse_status, parse_url
from orchestrator.config import CheckerAction, CheckerConfig, When
from orchestrator.config_values import Directory, Duration, Model, Name
from orchestrator.units import parse_duration_s

INTERVAL_MIN_S = 0.2
TIMEOUT_MIN_S = 0.05
LOOKS_MAX = 100
EVERYWHERE: tuple[When, ...] = ("pre", "prim", "second", "both")
SERVING: tuple[When, ...] = ("prim",)


def _interval(text: str) -> str:
    if parse_duration_s(text) < INTERVAL_MIN_S:
        raise ValueError(f"more often than every {INTERVAL_MIN_S * 1000:.0f}ms loads the machine for nothing")
    return text


def _timeout(text: str) -> str:
    if parse_duration_s(text) < TIMEOUT_MIN_S:
        raise ValueError(f"less than {TIMEOUT_MIN_S * 1000:.0f}ms is no time to answer in")
    return text


def _looks(count: int) -> int:
    if not 1 <= count <= LOOKS_MAX:
        raise ValueError(f"{count} must be between 1 and {LOOKS_MAX}: so many looks in a row make a verdict")
    return count


def _count(count: int) -> int:
    if count < 0:
        raise ValueError(f"{count} cannot be a number of processes")
    return count


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f'"{text}" is not a regular expression: {error}') from None
    return text


def _endpoint(text: str) -> str:
    return str(parse_endpoint(text))


def _url(text: str) -> str:
    parse_url(text)
    return text


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f'"{text}" is not an IP address') from None


def _free(text: str) -> str:
    parse_free(text)
    return text


def _listed(given: object) -> object:
    """One of them needs no brackets."""
    return [given] if isinstance(given, (str, int)) and not isinstance(given, bool) else given


def _status(given: object) -> str:
    text = str(given)
    parse_status(text)
    return text


def _program(text: str) -> str:
    path = PurePosixPath(text)
    if not path.parts or ".." in path.parts or "\0" in text:
        raise ValueError(f'"{text}" must be an absolute path, or the name of a program beside the module\'s file')
    return str(path)


Interval = Annotated[Duration, AfterValidator(_interval)]
Timeout = Annotated[Duration, AfterValidator(_timeout)]
Looks = Annotated[StrictInt, AfterValidator(_looks)]
Count = Annotated[StrictInt, AfterValidator(_count)]
Expression = Annotated[StrictStr, AfterValidator(_expression)]
To = Annotated[StrictStr, AfterValidator(_endpoint)]
HttpUrl = Annotated[StrictStr, AfterValidator(_url)]
Address = Annotated[StrictStr, AfterValidator(_address)]
AddressList = Annotated[list[Address], BeforeValidator(_listed), Field(min_length=1)]
FreeSpace = Annotated[StrictStr, AfterValidator(_free)]
Status = Annotated[StrictStr, BeforeValidator(_status)]
StatusList = Annotated[list[Status], BeforeValidator(_listed), Field(min_length=1)]
Program = Annotated[StrictStr, AfterValidator(_program)]
ModuleState = Literal["WAIT", "ALONE", "PRIM", "SECOND", "UP"]


class CommonModel(Model):
    """What every kind has."""

    usual: ClassVar[tuple[When, CheckerAction]]  # where the file says nothing
    usual_grace: ClassVar[Duration] = "0s"  # in the windows that open when services have been started
    windows: ClassVar[tuple[When, ...]] = EVERYWHERE  # where a look makes sense

    name: Name | None = None
    when: When | None = None
    interval: Interval = "10s"
    timeout: Timeout = "5s"
    rise: Looks = 1
    fall: Looks = 1
    grace: Duration | None = None
    action: CheckerAction | None = None
    services: list[StrictStr] = []
    shared: StrictBool | None = None

    def target(self) -> str:
        """What it looks at, of which its name is made."""
        raise NotImplementedError

    def depends_elsewhere(self, vips: Collection[str]) -> bool:
        """Does what it looks at lie outside this machine, so that it may fail for both nodes at once?"""
        return False

    def options(self) -> dict[str, Any]:
        """The kind's own keys, complete."""
        raise NotImplementedError


class ProcessModel(CommonModel):
    """Processes by name, arguments and user."""

    usual = ("prim", "restart")
    usual_grace = "10s"

    type: Literal["process"]
    process: StrictStr | None = None
    name_regex: Expression | None = None
    argument_regex: Expression | None = None
    user: StrictStr | None = None
    at_least: Count = 1
    at_most: Count | None = None

    @property
    def exactly(self) -> str | None:
        """The process' name; where only `name` is given, that is it."""
        return self.process if self.process is not None else self.name if self.name_regex is None and self.argument_regex is None else None

    def target(self) -> str:
        return self.exactly or self.name_regex or self.argument_regex or ""

    def options(self) -> dict[str, Any]:
        own = {"name_regex": self.name_regex, "argument_regex": self.argument_regex, "user": self.user}
        return {"process": self.exactly, **own, "at_least": self.at_least, "at_most": self.at_most}


class UnitModel(CommonModel):
    """A unit of systemd."""

    usual = ("prim", "restart")
    usual_grace = "10s"

    type: Literal["service"]
    unit: StrictStr

    def target(self) -> str:
        return self.unit.removesuffix(".service")

    def options(self) -> dict[str, Any]:
        return {"unit": self.unit}


class TcpModel(CommonModel):
    """Does a port accept connections?"""

    usual = ("prim", "restart")
    usual_grace = "10s"

    type: Literal["tcp"]
    to: To
    source: Address | None = None

    def target(self) -> str:
        return self.to

    def depends_elsewhere(self, vips: Collection[str]) -> bool:
        host = parse_endpoint(self.to).host
        return not is_loopback(host) and host not in vips

    def options(self) -> dict[str, Any]:
        return {"to": self.to, "source": self.source}


class HttpModel(CommonModel):
    """Does a web server answer as it should?"""

    usual = ("prim", "restart")
    usual_grace = "10s"

    type: Literal["http"]
    url: HttpUrl
    status: StatusList = ["2xx", "3xx"]
    text: StrictStr | None = None
    host: StrictStr | None = None
    ca: Directory | None = None
    verify: StrictBool = True

    def target(self) -> str:
        url = parse_url(self.url)
        return f"{url.endpoint}{url.target.partition('?')[0]}"

    def depends_elsewhere(self, vips: Collection[str]) -> bool:
        host = parse_url(self.url).endpoint.host
        return not is_loopback(host) and host not in vips

    def options(self) -> dict[str, Any]:
        own = {"text": self.text, "host": self.host, "ca": self.ca, "verify": self.verify}
        return {"url": self.url, "status": tuple(self.status), **own}


class PingModel(CommonModel):
    """Do other machines answer?"""

    usual = ("pre", "wait")

    type: Literal["ping"]
    to: AddressList
    need: Literal["any", "all"] = "any"

    def target(self) -> str:
        return "-".join(self.to)

    def depends_elsewhere(self, vips: Collection[str]) -> bool:
        return True

    def options(self) -> dict[str, Any]:
        return {"to": tuple(self.to), "need": self.need}


class InterfaceModel(CommonModel):
    """Is a network interface up, and its cable in?"""

    usual = ("pre", "wait")

    type: Literal["interface"]
    interface: StrictStr | None = None
    network: StrictStr | None = None
    address: Address | None = None

    def target(self) -> str:
        return self.interface or self.network or self.address or ""

    def options(self) -> dict[str, Any]:
        return {"interface": self.interface, "network": self.network, "address": self.address}


class IpModel(CommonModel):
    """Is a service address here, and nowhere else?"""

    usual = ("prim", "stopstart")
    windows: ClassVar[tuple[When, ...]] = SERVING

    type: Literal["ip"]
    address: Address

    def target(self) -> str:
        return self.address

    def options(self) -> dict[str, Any]:
        return {"address": self.address}


class ScriptModel(CommonModel):
    """A program of the administrator's."""

    usual = ("prim", "none")
    usual_grace = "10s"

    type: Literal["script"]
    program: Program
    arguments: list[StrictStr] = []
    user: StrictStr | None = None

    def target(self) -> str:
        return PurePosixPath(self.program).name

    def options(self) -> dict[str, Any]:
        return {"program": self.program, "arguments": tuple(self.arguments), "user": self.user}


class OtherModuleModel(CommonModel):
    """Does another module serve?"""

    usual = ("pre", "wait")

    type: Literal["module"]
    module: StrictStr
    node: StrictStr = "here"
    states: Annotated[list[ModuleState], Field(min_length=1)] = ["ALONE", "PRIM", "UP"]
    when_restarted: Literal["down", "ignore"] = "down"

    def target(self) -> str:
        return self.module if self.node == "here" else f"{self.module}@{self.node}"

    def depends_elsewhere(self, vips: Collection[str]) -> bool:
        return self.node != "here"

    def options(self) -> dict[str, Any]:
        return {"module": self.module, "node": self.node, "states": tuple(self.states), "when_restarted": self.when_restarted}


class DiskModel(CommonModel):
    """Have the file systems room, and may they be written to?"""

    usual = ("pre", "none")

    type: Literal["disk"]
    interval: Interval = "30s"
    directories: list[Directory] = []
    min_free: FreeSpace = "5%"
    min_free_inodes: FreeSpace = "2%"

    def target(self) -> str:
        return "-".join(directory.strip("/") for directory in self.directories) or "space"

    def options(self) -> dict[str, Any]:
        return {"directories": tuple(self.directories), "min_free": self.min_free, "min_free_inodes": self.min_free_inodes}


class WriteModel(CommonModel):
    """Does a write go through the mirror to both disks and come back?"""

    usual = ("prim", "stopstart")
    windows: ClassVar[tuple[When, ...]] = SERVING

    type: Literal["write"]
    timeout: Timeout = "40s"  # an fsync may wait 30 s for the peer's disk before the peer is left behind: that is no failure of this node
    directories: list[Directory] = []

    def target(self) -> str:
        return "-".join(directory.strip("/") for directory in self.directories) or "mirror"

    def options(self) -> dict[str, Any]:
        return {"directories": tuple(self.directories)}


class CustomModel(CommonModel):
    """Nobody looks: a program of the administrator's that goes on for ever says how it is, by the API or by SafeKit's command."""

    usual = ("prim", "none")

    type: Literal["custom"]

    def target(self) -> str:
        return ""

    def options(self) -> dict[str, Any]:
        return {}


KINDS: Mapping[str, type[CommonModel]] = {
    "process": ProcessModel,
    "service": UnitModel,
    "tcp": TcpModel,
    "ping": PingModel,
    "interface": InterfaceModel,
    "ip": IpModel,
    "http": HttpModel,
    "script": ScriptModel,
    "module": OtherModuleModel,
    "disk": DiskModel,
    "write": WriteModel,
    "custom": CustomModel,
}
CheckerModel = Annotated[
    ProcessModel
    | UnitModel
    | TcpModel
    | PingModel
    | InterfaceModel
    | IpModel
    | HttpModel
    | ScriptModel
    | OtherModuleModel
    | DiskModel
    | WriteModel
    | CustomModel,
    Field(discriminator="type"),
]


def usual_action(usual: CheckerAction, when: When) -> CheckerAction:
    """What follows in this window where the file says nothing: the kind's own action, or the nearest that can work there."""
    if when == "pre":
        return "wait" if usual in ("restart", "stopstart") else usual
    if usual == "wait" or (usual == "restart" and when != "prim"):
        return "stopstart"
    return usual


def build_checker(model: CommonModel, vips: Collection[str] = (), light: bool = False) -> CheckerConfig:
    """What the rest of the orchestrator sees: complete, with the kind's defaults. `vips`: the module's service addresses; `light`: nobody
    else runs it, so nothing is shared."""
    shared = not light and (model.depends_elsewhere(vips) if model.shared is None else model.shared)
    usual_when, usual = model.usual
    if shared and usual_when == "prim" and "pre" in model.windows:
        usual_when = "pre"  # both look, or there would be nothing to compare with
    when = model.when or usual_when
    return CheckerConfig(
        type=kind_of(model),
        name=model.name or name_from(model.target()),
        when=when,
        action=model.action or usual_action(usual, when),
        interval_s=parse_duration_s(model.interval),
        timeout_s=parse_duration_s(model.timeout),
        rise=model.rise,
        fall=model.fall,
        services=tuple(model.services),
        grace_s=parse_duration_s(model.grace or ("0s" if when == "pre" else model.usual_grace)),
        options=model.options(),
        shared=shared,
    )


def kind_of(model: CommonModel) -> str:
    """The word in `type`."""
    return next(kind for kind, of_it in KINDS.items() if isinstance(model, of_it))

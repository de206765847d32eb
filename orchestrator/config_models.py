"""The shape of the two TOML files: which keys there are and what each may hold. What spans several keys is checked
in `config_files.py`.

A model is lenient about nothing: an unknown key is an error, because a misspelt `exclude` that is silently ignored
copies what it should not. Features that are documented but not built yet are named as such, not as unknown.
"""

from __future__ import annotations

import ipaddress
import re
import signal
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from orchestrator.config_errors import did_you_mean
from orchestrator.units import parse_duration_s, parse_restarts
from rfs.errors import SaidNo
from rfs.patterns import reason_against
from rfs.settings import parse_witness

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
_RULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,95}")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f'"{text}" cannot be a name; use letters, digits, "-" and "_"')
    return text


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError(f'"{text}" cannot be a node\'s name; write its host name (the output of hostname)')
    return text


def _ipv4(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f'"{text}" is not an IP address') from None
    if address.version != 4:
        raise ValueError("this release has no IPv6 for the nodes themselves yet; give an IPv4 address")
    _reachable(address, text)
    return str(address)


def _vip(text: str) -> str:
    address, slash, bits = text.partition("/")
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(f'"{text}" is not an address with its prefix length; write for example 192.0.2.100/24') from None
    if not slash or not bits.isdigit():
        raise ValueError(f'"{text}" lacks the prefix length; write for example {address}/{24 if interface.version == 4 else 64}')
    network, host = interface.network, interface.ip
    if isinstance(host, ipaddress.IPv6Address):
        if host.is_link_local or "%" in text:
            raise ValueError(f'"{text}" is valid on one link only; give an address that clients can reach')
        if host.ipv4_mapped is not None:
            raise ValueError(f'"{text}" is an IPv4 address in IPv6 clothes; give {host.ipv4_mapped}')
    _reachable(host, text)
    whole = (network.network_address, network.broadcast_address) if interface.version == 4 else (network.network_address,)
    if network.prefixlen < network.max_prefixlen - 1 and host in whole:
        raise ValueError(f'"{text}" is the address of the network itself, not of a machine in it')
    return f"{host}/{network.prefixlen}"


def _reachable(address: ipaddress.IPv4Address | ipaddress.IPv6Address, text: str) -> None:
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        raise ValueError(f'"{text}" is not an address that another machine can reach')


def _listen(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f'"{text}" is not a place to listen at; write for example 0.0.0.0:9010')
    if host not in ("0.0.0.0", "[::]") and not _NAME.fullmatch(host):
        raise ValueError(f'"{text}" cannot hold on every node; write 0.0.0.0:{port}, [::]:{port} or NETWORK:{port}')
    return text


def _witness_url(text: str) -> str:
    try:
        parse_witness(text)
    except SaidNo as refusal:
        raise ValueError(refusal.sentence.partition(": ")[2]) from None
    return text


def _directory(text: str) -> str:
    path = PurePosixPath(text)
    if not path.is_absolute():
        raise ValueError(f'"{text}" is not an absolute path')
    if ".." in path.parts:
        raise ValueError(f'"{text}" contains ".."; write the path it leads to')
    return str(path).replace("//", "/")


def _inside(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f'"{text}" must be a path below the directory, without a leading "/"')
    return str(path)


def _pattern(text: str) -> str:
    if reason := reason_against(text):
        raise ValueError(f'"{text}" is not a pattern: {reason}; examples are "*.tmp" and "cache/**"')
    return text


def _signal_name(text: str) -> str:
    name = text if text.startswith("SIG") else f"SIG{text}"
    if name not in signal.Signals.__members__:
        raise ValueError(f'"{text}" is not a signal.{did_you_mean(name, signal.Signals.__members__)}')
    return name


def _command(words: list[str]) -> list[str]:
    if not words or not words[0].startswith("/"):
        raise ValueError("a command is a list of words whose first is the program's absolute path")
    return words


def _variable(text: str) -> str:
    if not text or "=" in text or "\0" in text:
        raise ValueError(f'"{text}" cannot be the name of an environment variable')
    return text


def _value(text: str) -> str:
    if "\0" in text:
        raise ValueError("a value in the environment cannot have a null character")
    return text


def _duration(text: str) -> str:
    parse_duration_s(text)
    return text


def _restarts(text: str) -> str:
    parse_restarts(text)
    return text


Name = Annotated[StrictStr, AfterValidator(_name)]
HostName = Annotated[StrictStr, AfterValidator(_host)]
Ipv4 = Annotated[StrictStr, AfterValidator(_ipv4)]
Listen = Annotated[StrictStr, AfterValidator(_listen)]
Vip = Annotated[StrictStr, AfterValidator(_vip)]
WitnessUrl = Annotated[StrictStr, AfterValidator(_witness_url)]
Duration = Annotated[StrictStr, AfterValidator(_duration)]
Restarts = Annotated[StrictStr, AfterValidator(_restarts)]
Directory = Annotated[StrictStr, AfterValidator(_directory)]
Inside = Annotated[StrictStr, AfterValidator(_inside)]
Pattern = Annotated[StrictStr, AfterValidator(_pattern)]
SignalName = Annotated[StrictStr, AfterValidator(_signal_name)]
Variable = Annotated[StrictStr, AfterValidator(_variable)]
Value = Annotated[StrictStr, AfterValidator(_value)]
Command = Annotated[list[StrictStr], AfterValidator(_command)]
Port = Annotated[StrictInt, Field(ge=1024, le=65535)]


def not_yet(what: str) -> AfterValidator:
    """For a key that documents may mention and this release cannot serve."""

    def refuse(_: object) -> object:
        raise ValueError(f"this release has no {what} yet; remove it")

    return AfterValidator(refuse)


class Model(BaseModel):
    """Unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid")


class HeartbeatModel(Model):
    interval: Duration = "500ms"
    timeout: Duration = "3s"


class NodeModel(Model):
    name: HostName
    addresses: Annotated[dict[StrictStr, Ipv4], Field(min_length=1)]


class WitnessModel(Model):
    etcd: list[WitnessUrl] = []
    ca: Directory | None = None
    ping: list[Ipv4] = []


class HealthModel(Model):
    listen: Listen


class ClusterModel(Model):
    name: Name
    policy: Literal["availability", "consistency"] = "availability"
    heartbeat: HeartbeatModel = HeartbeatModel()
    node: list[NodeModel]
    witness: WitnessModel = WitnessModel()
    health: HealthModel | None = None


class ReplicatedModel(Model):
    directory: Directory
    exclude: list[Pattern] = []
    only: list[Pattern] = []
    require: list[Inside] = []


class VipModel(Model):
    address: Vip
    interface: StrictStr | None = None
    source: StrictBool = False
    tcp_reset: StrictBool = True
    check: StrictBool = True


class ServiceModel(Model):
    name: Name | None = None
    unit: StrictStr | None = None
    user: StrictStr | None = None
    start: Command | None = None
    stop: Command | None = None
    stop_signal: SignalName = "SIGTERM"
    stop_timeout: Duration = "30s"
    start_timeout: Duration = "60s"
    ready: Command | None = None
    environment: dict[Variable, Value] = {}
    restart: Literal["all", "alone"] = "all"


def _rule_name(text: str) -> str:
    if not _RULE.fullmatch(text):
        raise ValueError(f'"{text}" cannot be a rule\'s name; use letters, digits and "_.:@-"')
    return text


class RuleModel(Model):
    name: Annotated[StrictStr, AfterValidator(_rule_name)]
    all: list[StrictStr] = []
    any: list[StrictStr] = []
    action: Literal["wait", "stop", "stopstart", "restart", "swap", "none"]
    hold: Duration = "0s"
    services: list[StrictStr] = []


class ScriptsModel(Model):
    start_timeout: Duration = "5m"
    stop_timeout: Duration = "60s"
    force_timeout: Duration = "30s"


def _mode(text: str) -> str:
    if text == "farm":
        raise ValueError('this release has no "farm" modules yet; there are "mirror" and "light"')
    if text not in ("mirror", "light"):
        raise ValueError(f'"{text}" is not a mode; there are "mirror" and "light".{did_you_mean(text, ("mirror", "light"))}')
    return text


class ModuleModel(Model):
    mode: Annotated[StrictStr, AfterValidator(_mode)] = "mirror"
    nodes: list[StrictStr] | None = None
    replication_network: StrictStr | None = None
    default_primary: StrictStr = "alone"
    boot: Literal["auto", "on", "off"] = "auto"
    ack: Literal["memory", "disk"] = "memory"
    max_restarts: Restarts = "3 per 24h"
    port: Port | None = None
    replicated: list[ReplicatedModel] = []
    vip: list[VipModel] = []
    service: list[ServiceModel] = []
    scripts: ScriptsModel = ScriptsModel()
    rule: list[RuleModel] = []
    checker: Annotated[Any, not_yet("checkers")] = None

"""What a value in the TOML files may be: each kind is a type whose refusal is a sentence. Which keys hold which is said in
`config_models.py` and `checkers/models.py`.
"""

from __future__ import annotations

import ipaddress
import re
import signal
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, StrictStr

from orchestrator.config_errors import did_you_mean
from orchestrator.units import parse_duration_s, parse_restarts
from rfs.errors import SaidNo
from rfs.patterns import reason_against
from rfs.settings import parse_witness

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_RULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,95}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f'"{text}" cannot be a name; use letters, digits, "-" and "_"')
    return text


def _rule_name(text: str) -> str:
    if not _RULE.fullmatch(text):
        raise ValueError(f'"{text}" cannot be a rule\'s name; use letters, digits and "_.:@-"')
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


def _person(text: str) -> str:
    if not _NAME.fullmatch(text.removeprefix("%").replace(".", "-")):
        raise ValueError(f'"{text}" is neither a user nor a group; write for example "ann" or "%dba"')
    return text


Name = Annotated[StrictStr, AfterValidator(_name)]
Person = Annotated[StrictStr, AfterValidator(_person)]
RuleName = Annotated[StrictStr, AfterValidator(_rule_name)]
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


class Model(BaseModel):
    """Unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid")

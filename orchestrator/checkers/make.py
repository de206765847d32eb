"""From what the administrator wrote to something that looks."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.checkers.checker import Checker
from orchestrator.checkers.disk import DiskChecker
from orchestrator.checkers.http import HttpChecker
from orchestrator.checkers.interface import InterfaceChecker
from orchestrator.checkers.ip import IpChecker
from orchestrator.checkers.module import ModuleChecker, StatesOf
from orchestrator.checkers.ping import PingChecker
from orchestrator.checkers.process import ProcessChecker
from orchestrator.checkers.script import ScriptChecker
from orchestrator.checkers.service import ServiceChecker
from orchestrator.checkers.tcp import TcpChecker
from orchestrator.checkers.write import WriteChecker
from orchestrator.config import CheckerConfig, ClusterConfig, ModuleConfig
from orchestrator.effects.links import Address
from orchestrator.effects.network_news import NetworkNews
from orchestrator.effects.scripts import environment_of
from orchestrator.effects.systemd import SYSTEM_BUS
from orchestrator.paths import Paths


@dataclass(frozen=True, slots=True)
class Context:
    """What the kinds need to know of where they look."""

    cluster: ClusterConfig
    module: ModuleConfig
    node: str
    paths: Paths
    states_of: StatesOf  # what is known of another module
    news: NetworkNews
    bus: str = SYSTEM_BUS

    @property
    def environment(self) -> Mapping[str, str]:
        """What the module's scripts get."""
        return environment_of(self.module, self.node, self.paths)

    @property
    def directories(self) -> tuple[str, ...]:
        """The mirrored ones."""
        return tuple(replicated.directory for replicated in self.module.replicated)

    @property
    def peer_addresses(self) -> list[str]:
        """Of the other nodes that run the module."""
        others = (self.cluster.nodes[node] for node in self.module.nodes if node != self.node)
        return [address for other in others for address in other.addresses.values()]

    def vip(self, address: str) -> Address:
        """The service address with its prefix length."""
        found = (ipaddress.ip_interface(vip.address) for vip in self.module.vips)
        wanted = ipaddress.ip_address(address.partition("/")[0])
        return next(each for each in found if each.ip == wanted)

    def interface_of(self, address: str) -> str | None:
        """The one that the file names for the service address."""
        wanted = self.vip(address)
        return next(vip.interface for vip in self.module.vips if ipaddress.ip_interface(vip.address) == wanted)


def make(config: CheckerConfig, context: Context) -> Checker:
    """The checker. An option that is missing has the kind's default; the configuration was checked, so one that cannot be is our bug."""
    options = dict(config.options)
    match config.type:
        case "process":
            return ProcessChecker(**options)
        case "service":
            return ServiceChecker(**options, bus=context.bus)
        case "tcp":
            return TcpChecker(**options)
        case "http":
            return HttpChecker(**options)
        case "ping":
            return PingChecker(**options, timeout_s=config.timeout_s)
        case "interface":
            return _interface(context, **options)
        case "ip":
            return IpChecker(context.news, context.vip(options["address"]), context.peer_addresses)
        case "script":
            return _script(config, context, **options)
        case "module":
            return ModuleChecker(**options, here=context.node, states_of=context.states_of)
        case "disk":
            directories = tuple(options.pop("directories", ())) or (*context.directories, str(context.paths.state))
            return DiskChecker(directories, **options)
        case "write":
            return WriteChecker(tuple(options.get("directories", ())) or context.directories, context.node)
    raise AssertionError(f"{config.type} is no kind of checker")


def _interface(context: Context, interface: str | None = None, network: str | None = None, address: str | None = None) -> Checker:
    if network is not None:
        return InterfaceChecker(context.news, own=context.cluster.nodes[context.node].addresses[network])
    if address is not None:
        named = context.interface_of(address)
        if named is None:
            return InterfaceChecker(context.news, service=context.vip(address))
        interface = named
    return InterfaceChecker(context.news, name=interface)


def _script(config: CheckerConfig, context: Context, program: str, **options: Any) -> Checker:
    environment = {**context.environment, "LOCKSTEP_CHECKER": config.resource}
    log = context.paths.run / "checkers" / f"{context.module.name}.{config.resource}.log"
    return ScriptChecker(context.module.scripts_dir / program, environment, log, **options)

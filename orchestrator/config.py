"""What the administrator wrote, as the rest of the orchestrator sees it.

`load_cluster` and `load_modules` read the TOML files and return frozen dataclasses in which everything is already
checked: whoever holds a `ModuleConfig` need not ask again whether a directory is absolute or a node exists. What is
wrong is collected over the whole file and raised once, as a `ConfigError` whose every line names a file, a line and
the next step. Nothing here touches the running system: a directory that does not exist yet is not a mistake of the file.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orchestrator.defaults import DEFAULT_CONFIG

DEFAULT_CONFIG_DIR = Path(DEFAULT_CONFIG)
CLUSTER_FILE = "cluster.toml"
MODULES_DIR = "modules"
BASE_PORT = 5600
NODES_MAX = 16

Policy = Literal["availability", "consistency"]
Boot = Literal["auto", "on", "off"]
When = Literal["pre", "prim", "second", "both"]
CheckerAction = Literal["wait", "stop", "stopstart", "restart", "swap", "none"]


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One of the servers: `addresses` maps a network's name to the node's address there."""

    name: str
    addresses: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """`cluster.toml`."""

    name: str
    policy: Policy
    heartbeat_interval_s: float
    heartbeat_timeout_s: float
    nodes: Mapping[str, NodeConfig]
    ping: tuple[str, ...]
    witness: tuple[str, ...] = ()  # the members of one etcd, as URLs
    witness_ca: str = ""
    health: HealthConfig | None = None
    access: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # role -> users and %groups

    def networks(self, nodes: Collection[str] | None = None) -> tuple[str, ...]:
        """Networks on which all of these nodes (all of the cluster's) have an address, in the order of the file."""
        first, *others = (self.nodes[name] for name in (nodes if nodes is not None else self.nodes))
        return tuple(network for network in first.addresses if all(network in other.addresses for other in others))

    @property
    def names(self) -> str:
        """The nodes, for a sentence."""
        return listed(self.nodes)


@dataclass(frozen=True, slots=True)
class ReplicatedConfig:
    """One mirrored directory."""

    directory: str
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    require: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VipConfig:
    """A service address of either family with its prefix length; without an interface it is found by its subnet."""

    address: str
    interface: str | None = None
    source: bool = False  # what this node opens to the outside comes from it
    tcp_reset: bool = True  # connections still open when it goes are broken
    check: bool = True  # its interface is watched


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """Where load balancers ask: a host of the machine's (all of its addresses: `0.0.0.0`, `::`), or the name of a network."""

    host: str
    port: int

    def address_of(self, node: NodeConfig) -> str:
        """Where this node listens."""
        return node.addresses.get(self.host, self.host)


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """A systemd unit, or a command that stays in the foreground."""

    name: str
    unit: str | None = None
    user: str | None = None
    start: tuple[str, ...] = ()
    stop: tuple[str, ...] | None = None
    stop_signal: str = "SIGTERM"
    stop_timeout_s: float = 30.0
    start_timeout_s: float = 60.0
    ready: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    restart: Literal["all", "alone"] = "all"  # when it dies: all services are started again, or only this one


@dataclass(frozen=True, slots=True)
class CheckerConfig:
    """What is watched; the resource that rules speak of is `type.name`. `options`: the kind's own keys, checked, with defaults."""

    type: str
    name: str
    when: When
    action: CheckerAction
    interval_s: float = 10.0
    timeout_s: float = 5.0
    rise: int = 1  # looks in a row that must say so before it is up
    fall: int = 1  # and down
    services: tuple[str, ...] = ()  # only these are restarted; none: all
    grace_s: float = 0.0  # after the start of what it looks at: for so long what was not up yet may still come up
    shared: bool = False  # both nodes depend on it: the default rule compares with the peer before it acts
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def resource(self) -> str:
        """Its name in rules and in `status`."""
        return f"{self.type}.{self.name}"


@dataclass(frozen=True, slots=True)
class RuleConfig:
    """A failover rule as it was written: when every term of `all` and one of `any` has held for `hold_s`, the action follows."""

    name: str
    action: CheckerAction
    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    hold_s: float = 0.0
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModuleConfig:
    """`modules/NAME.toml`: the unit of failover."""

    name: str
    mode: str
    nodes: tuple[str, ...]
    replication_network: str
    default_primary: str
    boot: Boot
    max_restarts: int
    max_restarts_period_s: float
    replicated: tuple[ReplicatedConfig, ...]
    vips: tuple[VipConfig, ...]
    services: tuple[ServiceConfig, ...]
    port: int
    scripts_dir: Path
    ack: Literal["memory", "disk"] = "memory"
    devices: Literal["allow", "refuse"] = "allow"
    setuid: Literal["allow", "refuse"] = "allow"
    script_start_timeout_s: float = 300.0
    script_stop_timeout_s: float = 60.0
    script_force_timeout_s: float = 30.0
    checkers: tuple[CheckerConfig, ...] = ()
    rules: tuple[RuleConfig, ...] = ()


def listed(names: Iterable[str]) -> str:
    """`a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def own_name() -> str:
    """This node's name in the cluster, where no option says it."""
    return os.environ.get("HACTL_NODE") or socket.gethostname()


def load_cluster(config_dir: Path = DEFAULT_CONFIG_DIR) -> ClusterConfig:
    """Read `cluster.toml`; raises `ConfigError` with every complaint."""
    from orchestrator.config_files import read_cluster  # pydantic is slow to import: only who reads files pays for it

    return read_cluster(config_dir)


def load_modules(config_dir: Path, cluster: ClusterConfig) -> dict[str, ModuleConfig]:
    """Read every `modules/*.toml`, sorted by name; raises `ConfigError` with the complaints of all files."""
    from orchestrator.config_files import read_modules

    return read_modules(config_dir, cluster)

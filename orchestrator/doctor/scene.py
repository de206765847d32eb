"""What the probes must know before they look: who this node is, and what its configuration says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.config import ClusterConfig, ModuleConfig, load_cluster, load_modules
from orchestrator.config_errors import Complaint, ConfigError
from orchestrator.paths import Paths
from orchestrator.topology import peers_of


@dataclass(frozen=True, slots=True)
class Way:
    """One network between this node and a peer."""

    peer: str
    network: str
    here: str
    there: str


@dataclass(frozen=True, slots=True)
class Scene:
    """One node. Without a valid configuration there are no peers, no modules, and complaints."""

    node: str
    config_dir: Path
    paths: Paths
    insecure: bool = False
    cluster: ClusterConfig | None = None
    modules: dict[str, ModuleConfig] = field(default_factory=dict)  # those that run here
    peers: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()

    def ways(self) -> Iterator[Way]:
        """Every network to every peer."""
        for peer in self.peers:
            assert self.cluster is not None
            here, there = self.cluster.nodes[self.node].addresses, self.cluster.nodes[peer].addresses
            for network in self.cluster.networks((self.node, peer)):
                yield Way(peer, network, here[network], there[network])

    def directories(self) -> Iterator[tuple[ModuleConfig, str]]:
        """Every replicated directory of this node, with its module."""
        for module in self.modules.values():
            for replicated in module.replicated:
                yield module, replicated.directory


def _place(complaint: Complaint) -> str:
    """Where it is wrong. The sentence may quote what was written, which is not for everybody who may ask a doctor."""
    where = f"{complaint.file}:{complaint.line}" if complaint.line is not None else str(complaint.file)
    return f"{where}: {complaint.key or complaint.sentence}"


def read_scene(node: str, config_dir: Path, paths: Paths, *, insecure: bool = False) -> Scene:
    """As the files have it now; what is wrong with them is part of it."""
    try:
        cluster = load_cluster(config_dir)
    except ConfigError as error:
        return Scene(node, config_dir, paths, insecure, complaints=tuple(map(_place, error.complaints)))
    complaints: tuple[str, ...] = ()
    try:
        modules = load_modules(config_dir, cluster)
    except ConfigError as error:
        modules, complaints = {}, tuple(map(_place, error.complaints))
    known = node in cluster.nodes
    mine = {name: config for name, config in modules.items() if node in config.nodes}
    peers = peers_of(cluster, modules, node) if known else ()
    return Scene(node, config_dir, paths, insecure, cluster, mine, peers, complaints)

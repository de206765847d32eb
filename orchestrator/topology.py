"""Which nodes of a cluster are a pair: it is read from the configuration alone, so both nodes of a pair know that they are one.

Two nodes are a pair when a mirror module runs on both. A node that shares no mirror module with anybody is the pair of the next one in the
file with which it has a network in common: light modules and the status want a peer. Nobody else is spoken to.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from orchestrator.config import ClusterConfig, ModuleConfig

Link = frozenset[str]  # of two names


def links_of(cluster: ClusterConfig, modules: Mapping[str, ModuleConfig]) -> set[Link]:
    """All pairs of the cluster."""
    links = {frozenset(config.nodes) for config in modules.values() if config.mode == "mirror"}
    lonely = [node for node in cluster.nodes if not any(node in link for link in links)]
    return links | {frozenset((node, next_to(cluster, node))) for node in lonely}


def next_to(cluster: ClusterConfig, node: str) -> str:
    """The next node in the file, after the last one the first again, that can be spoken to. There is one: config_files.py sees to it."""
    names = list(cluster.nodes)
    at = names.index(node)
    return next(other for other in names[at + 1 :] + names[:at] if cluster.networks((node, other)))


def peers_of(cluster: ClusterConfig, modules: Mapping[str, ModuleConfig], node: str) -> tuple[str, ...]:
    """With whom this node is a pair, in the order of the file; never nobody."""
    links = links_of(cluster, modules)
    return tuple(other for other in cluster.nodes if other != node and frozenset((node, other)) in links)


def home_of(config: ModuleConfig, peers: Collection[str]) -> str:
    """The peer in whose pair a module of this node lives. A light module is alone in any of them."""
    return next((peer for peer in peers if peer in config.nodes), next(iter(peers)))

"""Nodes that have paired, for tests: their key directories."""

from pathlib import Path

from rfs.keys import KeyStore


def make_keys(path: Path, node: str) -> KeyStore:
    """A node's keys, paired with nobody."""
    keys = KeyStore(path / f"{node}.keys")
    keys.make(node)
    return keys


def pair_keys(one: KeyStore, other: KeyStore) -> None:
    """Each trusts the other, as after a pairing."""
    cluster = one.trust().cluster
    for here, there in ((one, other), (other, one)):
        own = there.own()
        here.pin(own.node, own.known.certificate, cluster=cluster)


def paired_keys(path: Path, one: str = "node1", other: str = "node2") -> tuple[KeyStore, KeyStore]:
    """Two nodes that know each other."""
    first, second = make_keys(path, one), make_keys(path, other)
    pair_keys(first, second)
    return first, second

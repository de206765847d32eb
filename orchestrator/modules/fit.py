"""A module from elsewhere, fitted to this cluster: nodes, network, port and service addresses are the cluster's.

All else stays as it was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.config import ClusterConfig, ModuleConfig
from orchestrator.config_text import ConfigText, Location, show_location
from orchestrator.modules import place
from orchestrator.modules.edit import CannotEdit, edited
from orchestrator.modules.render import value_text
from orchestrator.modules.template import Unfit, Value


def fitted(
    read: ConfigText, text: str, cluster: ClusterConfig, modules: Mapping[str, ModuleConfig], vips: Sequence[str], nodes: Sequence[str]
) -> tuple[str, list[str]]:
    """The text, and a sentence for each value that is another one here."""
    changes = changes_for(read, cluster, modules, vips, nodes)
    there = read.data.get("vip", [])
    more = [f"\n[[vip]]\naddress = {value_text(vip)}\n" for vip in vips[len(there) if isinstance(there, list) else 0 :]]
    try:
        changed = edited(text, read.lines, changes) if changes else text
    except CannotEdit as where:
        raise Unfit(f"{where} stands where it cannot be changed: unpack the file and put module.toml in its place by hand") from None
    return changed + "".join(more), [f"{show_location(location)} = {value_text(value)} here" for location, value in changes.items()]


def changes_for(
    read: ConfigText, cluster: ClusterConfig, modules: Mapping[str, ModuleConfig], vips: Sequence[str], nodes: Sequence[str]
) -> dict[Location, Value]:
    """What was said, and what cannot stay as it is."""
    data, changes = read.data, dict[Location, Value]()
    mirror = data.get("mode", "mirror") == "mirror"
    written = data.get("nodes")
    known = isinstance(written, list) and all(node in cluster.nodes for node in written)
    if nodes or not known:
        chosen = place.chosen_nodes(cluster, nodes, "mirror" if mirror else "light")
        if chosen and list(chosen) != written:
            changes["nodes",] = chosen
    here = changes.get(("nodes",), tuple(written) if known and written is not None else tuple(cluster.nodes))
    assert isinstance(here, tuple)
    addresses = data.get("vip", [])
    if isinstance(addresses, list):
        changes |= {("vip", index, "address"): vip for index, vip in enumerate(vips[: len(addresses)])}
    if mirror:
        kept = [str(entry.get("address", "")) for entry in addresses if isinstance(entry, dict)] if isinstance(addresses, list) else []
        if data.get("replication_network") not in cluster.networks([node for node in here if node in cluster.nodes] or None):
            changes["replication_network",] = place.chosen_network(cluster, here, vips or kept)
        if data.get("port") in (None, *(module.port for module in modules.values())):
            changes["port",] = place.free_port(cluster, modules)
    return changes

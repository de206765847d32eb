"""Puts a module's files into the configuration: checked together with all that is there, never over anything.

What the cluster decides (nodes, network, port) is chosen here. A port that is not written down depends on the names of the other
modules, so each new module gets one, and a new name that would change another module's is refused.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

from orchestrator.config import BASE_PORT, CLUSTER_FILE, MODULES_DIR, ClusterConfig, ModuleConfig, listed, load_cluster, load_modules
from orchestrator.config_errors import ConfigError
from orchestrator.config_files import MODULE_NAME
from orchestrator.modules.template import Line, Unfit, Wishes
from orchestrator.sentence import Sentence
from rfs import exit_codes
from rfs.durably import sync_directory, sync_file

Files = Mapping[str, tuple[bool, bytes]]  # path below the scripts directory -> executable, content


class Taken(Sentence):
    """There is something already, and nothing is written over it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, exit_codes.REFUSED)


def module_file(config_dir: Path, name: str) -> Path:
    """Where a module is written down."""
    return config_dir / MODULES_DIR / f"{name}.toml"


def check_name(config_dir: Path, name: str) -> None:
    """A name that a module can have, and none has."""
    if not MODULE_NAME.fullmatch(name):
        raise Unfit(f'"{name}" cannot be a module\'s name: use small letters, digits, "-" and "_"')
    for path in (module_file(config_dir, name), module_file(config_dir, name).with_suffix("")):
        if os.path.lexists(path):
            raise Taken(f"{path} is there already: choose another --name, or remove that module first")


# ---------------------------------------------------------------------------------------------- what the cluster decides


def chosen_nodes(cluster: ClusterConfig, given: Sequence[str], mode: str) -> tuple[str, ...]:
    """Those that were named, else all of a cluster of two."""
    if given or mode == "light":
        return tuple(given)
    if len(cluster.nodes) > 2:
        raise Unfit(f"say which two of the cluster's nodes ({cluster.names}) with --nodes A,B")
    return tuple(cluster.nodes)


def chosen_network(cluster: ClusterConfig, nodes: Sequence[str], vips: Sequence[str]) -> str:
    """The network for the data: one that no service address lies in, if there is one; the clients then do not share it."""
    networks = cluster.networks([node for node in nodes if node in cluster.nodes] or None)
    subnets = [ip_interface(vip).network for vip in vips if _is_address(vip)]
    own = [cluster.nodes[node].addresses for node in nodes if node in cluster.nodes]
    free = [network for network in networks if not any(ip_address(addresses[network]) in subnet for subnet in subnets for addresses in own)]
    return next(iter([*reversed(free), *networks]), "")


def _is_address(text: str) -> bool:
    try:
        ip_interface(text)
    except ValueError:
        return False  # the configuration's check says so, with its line
    return True


def free_port(cluster: ClusterConfig, modules: Mapping[str, ModuleConfig]) -> int:
    """The first one that no module has."""
    taken = {module.port for module in modules.values()} | ({cluster.health.port} if cluster.health is not None else set())
    return next(port for port in range(BASE_PORT, 1 << 16) if port not in taken)


def head(cluster: ClusterConfig, modules: Mapping[str, ModuleConfig], wishes: Wishes, nodes: Sequence[str], mode: str) -> list[Line]:
    """The keys at the top of a new module; `--set` goes before what is chosen."""
    settings = wishes.settings
    lines = [Line("nodes", tuple(nodes))] if nodes else []
    if mode == "mirror":
        network = settings.get("replication_network") or chosen_network(cluster, nodes, wishes.vips)
        primary = settings.get("default_primary", "alone")
        lines += [
            Line("replication_network", network, "the data go here"),
            Line("default_primary", primary, "whoever serves goes on serving when the other one is back" if primary == "alone" else ""),
        ]
        lines += [Line("ack", settings["ack"])] if "ack" in settings else []
    lines += [Line("boot", settings["boot"])] if "boot" in settings else []
    beyond = "then it is given up here, and the other node takes over" if mode == "mirror" else ""
    lines.append(Line("max_restarts", settings.get("max_restarts", "3 per 24h"), beyond))
    if mode == "mirror":
        port = settings.get("port", "")
        if port and not port.isdigit():
            raise Unfit(f"--set port={port}: a port is a number")
        lines.append(Line("port", int(port) if port else free_port(cluster, modules), "of the replication; every module has its own"))
    return lines


# ---------------------------------------------------------------------------------------------- checking and writing


def check_together(config_dir: Path, name: str, text: str) -> ModuleConfig:
    """The module as it would be read, among all others; ConfigError with the complaints at their places."""
    cluster = load_cluster(config_dir)
    before = load_modules(config_dir, cluster)
    target = module_file(config_dir, name)
    with tempfile.TemporaryDirectory(prefix="hactl-module-") as scratch:
        trial = Path(scratch)
        (trial / MODULES_DIR).mkdir()
        (trial / CLUSTER_FILE).symlink_to((config_dir / CLUSTER_FILE).resolve())
        for path in (config_dir / MODULES_DIR).glob("*.toml"):
            (trial / MODULES_DIR / path.name).symlink_to(path.resolve())
        module_file(trial, name).write_text(text, encoding="utf-8")
        try:
            after = load_modules(trial, cluster)
        except ConfigError as error:
            raise ConfigError([replace(each, file=config_dir / each.file.relative_to(trial)) for each in error.complaints]) from None
    moved = [other for other in before if before[other].port != after[other].port]
    if moved:
        other = moved[0]
        file = module_file(config_dir, other)
        raise Taken(f"the port of module {other} is not written down and would change: add port = {before[other].port} to {file}")
    return replace(after[name], scripts_dir=target.with_suffix(""))


def write(config_dir: Path, name: str, text: str, scripts: Files) -> list[Path]:
    """The files that are new now. The module's own comes last and at once: what is cut off before it is no module."""
    target = module_file(config_dir, name)
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    written = []
    if scripts:
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=target.parent) as scratch:
            home = Path(scratch, name)
            for relative, (executable, data) in scripts.items():
                path = home / relative
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                path.write_bytes(data)
                path.chmod(0o755 if executable else 0o644)
                sync_file(path)
            home.chmod(0o755)
            try:
                home.rename(target.with_suffix(""))  # fails where there are files
            except OSError as error:
                raise Taken(f"{target.with_suffix('')}: {error.strerror}") from None
        written.append(target.with_suffix(""))
    draft = target.with_name(f".{name}.new")
    draft.write_text(text, encoding="utf-8")
    draft.chmod(0o640)
    sync_file(draft)
    try:
        os.link(draft, target)
    except FileExistsError:
        raise Taken(f"{target} is there already") from None
    finally:
        draft.unlink()
    sync_directory(target.parent)
    return [*written, target]


def next_steps(module: ModuleConfig) -> list[str]:
    """The commands that follow."""
    first = f"brings it to {listed(module.nodes)}"
    if module.mode == "light":
        second = (f"hactl start {module.name} -H all", "on each of its nodes")
    else:
        second = (f"hactl start {module.name}", "shows what both nodes have, and asks which one has the data")
    return [f"{command.ljust(32)}  # {why}" for command, why in (("hactl config apply", first), second)]

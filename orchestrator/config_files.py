"""Reads `cluster.toml` and `modules/*.toml`, checks what spans several keys or files, and builds the frozen dataclasses.

The first reading checks each value by itself. Then what was wrong is taken out and the rest is checked together, so that
one misspelt key does not hide that two directories lie in each other.
"""

from __future__ import annotations

import copy
import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestrator.checkers.automatic import with_automatic
from orchestrator.checkers.checks import check_checkers, check_dependences, vip_addresses
from orchestrator.checkers.models import build_checker
from orchestrator.config import (
    BASE_PORT,
    CLUSTER_FILE,
    MODULES_DIR,
    NODES_MAX,
    CheckerConfig,
    ClusterConfig,
    HealthConfig,
    ModuleConfig,
    NodeConfig,
    ReplicatedConfig,
    ServiceConfig,
    VipConfig,
)
from orchestrator.config_errors import Complaint, ConfigError, did_you_mean
from orchestrator.config_models import ClusterModel, ModuleModel, ServiceModel, VipModel
from orchestrator.config_rules import build_rule, check_rules
from orchestrator.config_text import ConfigText, Location, read_config_text
from orchestrator.config_values import Model
from orchestrator.units import parse_duration_s, parse_restarts

AnyModel = TypeVar("AnyModel", bound=Model)
STATE_DIRECTORY = "/var/lib/lockstep"
SYSTEM_TREES = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "run", "sbin", "sys", "usr")
SYSTEM_DIRECTORIES = ("/", "/home", "/root", "/tmp", "/var", "/var/lib", "/var/log", "/var/tmp", "/var/run", "/var/lock")
MODULE_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?")


def read_cluster(config_dir: Path) -> ClusterConfig:
    """`cluster.toml`, or a `ConfigError` with all that is wrong with it."""
    text = read_config_text(config_dir / CLUSTER_FILE, "is missing; it names the cluster and its nodes, see docs/interfaces.md.")
    model, text, complaints = _validate(ClusterModel, text)
    if model is not None:
        complaints += _check_cluster(model, text)
    if complaints or model is None:
        raise ConfigError(complaints)
    nodes = {node.name: NodeConfig(node.name, dict(node.addresses)) for node in model.node}
    interval_s, timeout_s = parse_duration_s(model.heartbeat.interval), parse_duration_s(model.heartbeat.timeout)
    third = model.witness
    witness, ping = tuple(third.etcd), tuple(third.ping)
    health = HealthConfig(*split_listen(model.health.listen)) if model.health is not None else None
    access = {role: tuple(people) for role, people in model.access.model_dump().items() if people}
    return ClusterConfig(model.name, model.policy, interval_s, timeout_s, nodes, ping, witness, third.ca or "", health, access)


def read_modules(config_dir: Path, cluster: ClusterConfig) -> dict[str, ModuleConfig]:
    """Every module file, or a `ConfigError` with all that is wrong with any of them."""
    complaints: list[Complaint] = []
    read: list[tuple[ConfigText, ModuleModel]] = []
    for path in sorted((config_dir / MODULES_DIR).glob("*.toml")):
        if not MODULE_NAME.fullmatch(path.stem):
            sentence = f'"{path.stem}" cannot be a module\'s name; use small letters, digits, "-" and "_".'
            complaints.append(Complaint(path, None, "", sentence))
        try:
            text = read_config_text(path, "has gone.")
        except ConfigError as error:
            complaints += error.complaints
            continue
        written = text.data
        model, text, found = _validate(ModuleModel, text)
        complaints += found
        if model is not None:
            complaints += _check_module(model, text, written, cluster)
            read.append((text, model))
    complaints += _check_together(read, cluster)
    if complaints:
        raise ConfigError(complaints)
    ports = dict(zip((text.path.stem for text, _ in read), _ports(read), strict=True))
    return {text.path.stem: _build_module(text, model, cluster, ports[text.path.stem]) for text, model in read}


# ---------------------------------------------------------------------------------------------- one value at a time


def _validate(kind: type[AnyModel], text: ConfigText) -> tuple[AnyModel | None, ConfigText, list[Complaint]]:
    """The model and the complaints; where there are some, the model of what is left, and the text it is the model of."""
    try:
        return kind.model_validate(text.data), text, []
    except ValidationError as error:
        errors = error.errors()
    complaints = [text.complain(_place(finding), _sentence(finding, kind)) for finding in errors]
    rest = copy.deepcopy(dict(text.data))
    spoilt: dict[str, set[int]] = {}
    for finding in errors:
        table, *inner = place = _place(finding)
        if finding["type"] == "extra_forbidden" or not inner:
            _remove(rest, place)
        elif isinstance(inner[0], int):
            spoilt.setdefault(str(table), set()).add(inner[0])
        else:
            _remove(rest, (table,))
    kept = {table: [index for index in range(len(rest[table])) if index not in gone] for table, gone in spoilt.items() if table in rest}
    for table, indexes in kept.items():
        rest[table] = [rest[table][index] for index in indexes]
    try:
        return kind.model_validate(rest), replace(text, data=rest, kept=kept), complaints
    except ValidationError:
        return None, text, complaints


def _remove(data: Any, location: Location) -> None:
    """Take out what is there, which may have gone with the table around it."""
    *around, last = location
    for part in around:
        data = data.get(part) if isinstance(data, dict) else data[part] if isinstance(data, list) and isinstance(part, int) else None
    if isinstance(data, dict):
        data.pop(last, None)


def _place(error: ErrorDetails) -> Location:
    """Where it stands in the file. pydantic also says that it means a key, and which kind of table where there are several."""
    location = error["loc"][:-1] if error["loc"][-1] == "[key]" else error["loc"]
    if error["type"].startswith("union_tag"):
        return (*location, "type")
    return (*location[:2], *location[3:]) if location[0] == "checker" else location


def _sentence(error: ErrorDetails, kind: type[Model]) -> str:
    """pydantic's finding in our words."""
    location, given, context = error["loc"], error["input"], error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            known = _known_keys(kind, location[:-1])
            return f"is not a key that is known here.{did_you_mean(str(location[-1]), known) or ' Known: ' + ', '.join(known) + '.'}"
        case "missing" | "union_tag_not_found":
            return "is missing."
        case "union_tag_invalid":
            words = [word.strip("' ") for word in str(context["expected_tags"]).split(",")]
            return f'"{context["tag"]}" is not one of: {", ".join(words)}.{did_you_mean(str(context["tag"]), words)}'
        case "literal_error":
            words = [word.strip("' ") for word in re.split(r",| or ", str(context["expected"]))]
            return f'"{given}" is not one of: {", ".join(words)}.{did_you_mean(str(given), words)}'
        case "value_error":
            said = str(context["error"])
            return said if said.endswith((".", "?")) else f"{said}."
        case "greater_than_equal" | "less_than_equal":
            return f"{given} must be between 1024 and 65535."
        case "too_short":
            return "is empty; give at least one."
        case other:
            wanted = {"string_type": "text in quotes", "int_type": "a whole number", "list_type": "a list in [ ]", "dict_type": "a table"}
            wanted["bool_type"] = "true or false"
            wanted |= dict.fromkeys(("model_type", "model_attributes_type"), wanted["dict_type"])
            return f"must be {wanted.get(other, error['msg'].lower())}, not {_show(given)}."


def _show(given: object) -> str:
    return f'"{given}"' if isinstance(given, str) else repr(given).lower() if isinstance(given, bool) else repr(given)


def _known_keys(kind: type[Model], location: Sequence[str | int]) -> list[str]:
    """The keys of the table at this location; where there are several kinds of it, the location names the kind."""
    current = [kind]
    for part in location:
        if not isinstance(part, str):
            continue
        if len(current) > 1:
            current = [each for each in current if part in get_args(each.model_fields["type"].annotation)]
        elif part in current[0].model_fields:
            current = _models_in(current[0].model_fields[part].annotation) or current
    return list(current[0].model_fields)


def _models_in(annotation: Any) -> list[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


# ---------------------------------------------------------------------------------------------- what spans several keys


def _check_cluster(model: ClusterModel, text: ConfigText) -> Iterator[Complaint]:
    spoilt = "node" in text.kept  # has been complained of, and says nothing about the others
    if not spoilt and not 2 <= len(model.node) <= NODES_MAX:
        sentence = f"a cluster has two to {NODES_MAX} nodes, each with its own [[node]]; here are {len(model.node)}."
        yield text.complain(("node",), sentence)
    interval_s, timeout_s = parse_duration_s(model.heartbeat.interval), parse_duration_s(model.heartbeat.timeout)
    if interval_s < 0.05:
        yield text.complain(("heartbeat", "interval"), "less than 50ms loads the network for nothing.")
    if timeout_s < 3 * interval_s:
        yield text.complain(("heartbeat", "timeout"), "must be at least three times the interval, or one lost packet is a failover.")
    seen: dict[str, str] = {}
    names: set[str] = set()
    networks = [set(node.addresses) for node in model.node]
    for index, node in enumerate(model.node):
        if node.name in names:
            yield text.complain(("node", index, "name"), f'"{node.name}" is the name of another node already.')
        names.add(node.name)
        for network, address in node.addresses.items():
            place = ("node", index, "addresses", network)
            if address in seen:
                yield text.complain(place, f"{address} is given twice; it is {seen[address]} already.")
            seen.setdefault(address, f"{node.name}'s address on {network}")
            if not spoilt and len(networks) > 1 and sum(network in others for others in networks) == 1:
                known = set.union(*networks) - {network}
                yield text.complain(place, f'only {node.name} is on network "{network}".{did_you_mean(network, known)}')
    host, port = split_listen(model.health.listen) if model.health is not None else ("::", 0)
    known = set().union(*networks)
    if host not in ("0.0.0.0", "::", *known):
        yield text.complain(("health", "listen"), f'there is no network "{host}".{did_you_mean(host, known)}')
    elif host in known and not all(host in others for others in networks):
        yield text.complain(("health", "listen"), f'not every node is on network "{host}"; write 0.0.0.0:{port}.')
    if BASE_PORT - 3 <= port < BASE_PORT:
        yield text.complain(("health", "listen"), f"{port} is a port of the cluster's own; 9010 is usual.")
    for index, address in enumerate(model.witness.ping):
        if address in seen:
            yield text.complain(("witness", "ping", index), f"{address} is {seen[address]}: a node that reaches itself proves nothing.")


def _check_module(model: ModuleModel, text: ConfigText, written: Mapping[str, Any], cluster: ClusterConfig) -> Iterator[Complaint]:
    """`written` is the file as it was before wrong values were taken out: what was given wrongly is not missing as well."""
    for index, node in enumerate(model.nodes or ()):
        if node not in cluster.nodes:
            sentence = f'the cluster has no node "{node}"; it has {cluster.names}.{did_you_mean(node, cluster.nodes)}'
            yield text.complain(("nodes", index), sentence)
    if model.mode == "light":
        yield from _check_light(model, text, written)
        yield from _check_services(model.service, text)
        yield from check_checkers(model, text, written, cluster)
        yield from check_rules(model, text, _checkers(model), _service_names(model))
        return
    if model.nodes is not None and len(set(map(repr, written["nodes"]))) != 2:
        yield text.complain(("nodes",), "a mirror module runs on two nodes; name both.")
    if "nodes" not in written and len(cluster.nodes) > 2:
        yield text.complain(("nodes",), f"is missing; a mirror module runs on two of the cluster's nodes, {cluster.names}.")
    nodes = model.nodes or list(cluster.nodes)
    if model.default_primary not in ("alone", "lastprim", *nodes):
        hint = did_you_mean(model.default_primary, ("alone", "lastprim", *nodes))
        sentence = f'"{model.default_primary}" is neither "alone" nor "lastprim" nor one of this module\'s nodes.{hint}'
        yield text.complain(("default_primary",), sentence)
    known = [node for node in dict.fromkeys(nodes) if node in cluster.nodes]
    networks = cluster.networks(known or None)
    if len(known) == 2 and not networks:
        yield text.complain(("nodes",), f"{' and '.join(known)} have no network in common.")
    elif model.replication_network is None and len(networks) != 1 and "replication_network" not in written:
        yield text.complain(("replication_network",), f"is missing; choose one of the cluster's networks: {', '.join(networks)}.")
    if model.replication_network is not None and model.replication_network not in networks:
        hint = did_you_mean(model.replication_network, networks)
        sentence = f'the cluster has no network "{model.replication_network}" on both nodes; it has {", ".join(networks) or "none"}.{hint}'
        yield text.complain(("replication_network",), sentence)
    if not written.get("replicated"):
        yield text.complain(("replicated",), "is missing; a mirror module names at least one directory in a [[replicated]].")
    for index, replicated in enumerate(model.replicated):
        if (reason := _unfit(replicated.directory)) is not None:
            yield text.complain(("replicated", index, "directory"), reason)
    for index, vip in enumerate(model.vip):
        yield from _check_vip(text, index, vip, cluster, known)
    yield from _check_services(model.service, text)
    yield from check_checkers(model, text, written, cluster)
    yield from check_rules(model, text, _checkers(model), _service_names(model))


def _check_light(model: ModuleModel, text: ConfigText, written: Mapping[str, Any]) -> Iterator[Complaint]:
    """A light module is services that run on each of its nodes, watched and restarted there: nothing moves."""
    senseless = {
        "replicated": "mirrors no directory", "vip": "has no service address", "default_primary": "has no primary",
        **dict.fromkeys(("replication_network", "ack", "devices", "setuid", "port"), "replicates nothing"),
    }
    for key, what in senseless.items():
        if key in written:
            yield text.complain((key,), f'cannot be given in a light module, which {what}; remove it, or write mode = "mirror".')
    if model.nodes is not None and len(set(map(repr, written["nodes"]))) != len(written["nodes"]):
        yield text.complain(("nodes",), "names a node twice.")


def split_listen(listen: str) -> tuple[str, int]:
    """`[::]:9010` in two."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def _unfit(directory: str) -> str | None:
    """Why this directory cannot be mirrored, whatever it holds."""
    path = PurePosixPath(directory)
    if directory in SYSTEM_DIRECTORIES or (len(path.parts) > 1 and path.parts[1] in SYSTEM_TREES):
        return f"{directory} belongs to the system; mirror a directory of your application's own."
    if PurePosixPath(STATE_DIRECTORY).is_relative_to(path) or path.is_relative_to(STATE_DIRECTORY):
        return f"{directory} and the cluster's own state in {STATE_DIRECTORY} must not contain each other."
    return None


def _check_vip(text: ConfigText, index: int, vip: VipModel, cluster: ClusterConfig, nodes: Sequence[str]) -> Iterator[Complaint]:
    wanted = ipaddress.ip_interface(vip.address)
    place = ("vip", index, "address")
    for node in cluster.nodes.values():
        for network, own in node.addresses.items():
            if own == str(wanted.ip):
                yield text.complain(place, f"{own} is {node.name}'s own address on {network}; a service address must be a free one.")
    if vip.interface is not None or wanted.version == 6:  # the nodes' IPv6 addresses are not in the file: found when it is taken
        return
    for network in cluster.networks(nodes) if nodes else ():
        if all(ipaddress.ip_address(cluster.nodes[node].addresses[network]) in wanted.network for node in nodes):
            return
    yield text.complain(place, f"{wanted.network} holds no address of both nodes; correct it, or name the interface.")


def _check_services(services: Sequence[ServiceModel], text: ConfigText) -> Iterator[Complaint]:
    names: set[str] = set()
    raw_services = text.data.get("service", [])
    for index, service in enumerate(services):
        raw = raw_services[index]
        if "unit" not in raw and "start" not in raw:
            yield text.complain(("service", index), 'a service needs either unit = "…" or start = ["…"].')
        if service.unit is not None:
            for key in ("start", "stop", "stop_signal", "user", "environment"):
                if key in raw:
                    yield text.complain(("service", index, key), "cannot be given together with unit, which says it itself.")
        name = _service_name(service)
        if name in names:
            yield text.complain(("service", index), f'two services are called "{name}"; give each a name = "…" of its own.')
        names.add(name)


def _service_name(service: ServiceModel) -> str:
    return service.name or service.unit or (PurePosixPath(service.start[0]).name if service.start else "")


def _service_names(model: ModuleModel) -> list[str]:
    return [_service_name(service) for service in model.service]


def _check_together(read: list[tuple[ConfigText, ModuleModel]], cluster: ClusterConfig) -> Iterator[Complaint]:
    """What two modules that meet on a node, or two tables of one, must not share; a service address, no two modules at all."""
    directories: list[tuple[PurePosixPath, str]] = []
    vips: dict[str, str] = {}
    sources: list[tuple[Any, str, str]] = []  # subnet, address, module
    ports: list[tuple[int, str]] = []
    nodes = {text.path.stem: set(model.nodes or cluster.nodes) for text, model in read}
    for (text, model), port in zip(read, _ports(read), strict=True):
        module = text.path.stem
        met = {other for other in nodes if nodes[other] & nodes[module]}
        for index, replicated in enumerate(model.replicated):
            path = PurePosixPath(replicated.directory)
            for other, owner in directories:
                where = "already" if owner == module else f"already, in module {owner}"
                if owner not in met:
                    continue
                if path == other:
                    yield text.complain(("replicated", index, "directory"), f"{path} is given {where}.")
                elif path.is_relative_to(other) or other.is_relative_to(path):
                    sentence = f"{path} and {other} lie in each other, and {other} is given {where}."
                    yield text.complain(("replicated", index, "directory"), sentence)
            directories.append((path, module))
        for index, vip in enumerate(model.vip):
            address = vip.address.partition("/")[0]
            if address in vips:
                yield text.complain(("vip", index, "address"), f"{address} is a service address of module {vips[address]} already.")
            vips.setdefault(address, module)
            if vip.source:
                subnet = ipaddress.ip_interface(vip.address).network
                for taken, source, owner in sources:
                    if taken == subnet and owner in met:
                        sentence = f"{source} is the source address in {subnet} already; there can be one in a subnet."
                        yield text.complain(("vip", index, "source"), sentence)
                sources.append((subnet, address, module))
        if cluster.health is not None and port == cluster.health.port:
            yield text.complain(("port",), f"{port} is where health is asked for, see cluster.toml; give port = … another number.")
        for taken_port, owner in ports:
            if port == taken_port and port and owner in met:
                yield text.complain(("port",), f"{port} is the port of module {owner} already; give port = … another number.")
        ports.append((port, module))
    yield from check_dependences(read, cluster)


def _ports(read: list[tuple[ConfigText, ModuleModel]]) -> list[int]:
    """A module without `port` takes its place in the order of names; fix it in the file before adding another module. 0: it needs none."""
    mirrors = [text.path for text, model in read if model.mode == "mirror"]
    return [
        0 if text.path not in mirrors else model.port if model.port is not None else BASE_PORT + mirrors.index(text.path)
        for text, model in read
    ]


# ---------------------------------------------------------------------------------------------- what the others get


def _replicated(model: ModuleModel) -> tuple[ReplicatedConfig, ...]:
    return tuple(
        ReplicatedConfig(entry.directory, tuple(entry.exclude), tuple(entry.only), tuple(entry.require)) for entry in model.replicated
    )


def _vips(model: ModuleModel) -> tuple[VipConfig, ...]:
    return tuple(VipConfig(vip.address, vip.interface, vip.source, vip.tcp_reset, vip.check) for vip in model.vip)


def _checkers(model: ModuleModel) -> tuple[CheckerConfig, ...]:
    """Those of the file, and those that come by themselves."""
    written = [build_checker(checker, vip_addresses(model), model.mode == "light") for checker in model.checker]
    return with_automatic(written, _vips(model), _replicated(model))


def _build_module(text: ConfigText, model: ModuleModel, cluster: ClusterConfig, port: int) -> ModuleConfig:
    max_restarts, period_s = parse_restarts(model.max_restarts)
    nodes = tuple(model.nodes or cluster.nodes)
    return ModuleConfig(
        name=text.path.stem,
        mode=model.mode,
        nodes=nodes,
        replication_network=model.replication_network or next(iter(cluster.networks(nodes)), ""),  # a light module replicates nothing
        default_primary=model.default_primary,
        boot=model.boot,
        max_restarts=max_restarts,
        max_restarts_period_s=period_s,
        replicated=_replicated(model),
        vips=_vips(model),
        services=tuple(_build_service(service) for service in model.service),
        port=port,
        scripts_dir=text.path.with_suffix(""),
        ack=model.ack,
        devices=model.devices,
        setuid=model.setuid,
        script_start_timeout_s=parse_duration_s(model.scripts.start_timeout),
        script_stop_timeout_s=parse_duration_s(model.scripts.stop_timeout),
        script_force_timeout_s=parse_duration_s(model.scripts.force_timeout),
        checkers=_checkers(model),
        rules=tuple(build_rule(rule) for rule in model.rule),
    )


def _build_service(service: ServiceModel) -> ServiceConfig:
    return ServiceConfig(
        name=_service_name(service),
        unit=service.unit,
        user=service.user,
        start=tuple(service.start or ()),
        stop=tuple(service.stop) if service.stop is not None else None,
        stop_signal=service.stop_signal,
        stop_timeout_s=parse_duration_s(service.stop_timeout),
        start_timeout_s=parse_duration_s(service.start_timeout),
        ready=tuple(service.ready) if service.ready is not None else None,
        environment=dict(service.environment),
        restart=service.restart,
    )

"""What the keys of a `[[checker]]` say together, and with the rest of the module: each contradiction is a sentence with its line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from orchestrator.checkers.models import (
    CommonModel,
    CustomModel,
    DiskModel,
    HttpModel,
    InterfaceModel,
    IpModel,
    OtherModuleModel,
    ProcessModel,
    WriteModel,
    build_checker,
)
from orchestrator.checkers.targets import parse_url
from orchestrator.config import CheckerConfig, ClusterConfig, listed
from orchestrator.config_errors import Complaint, did_you_mean

if TYPE_CHECKING:
    from orchestrator.config_models import ModuleModel
    from orchestrator.config_text import ConfigText

ANYWHERE = ("here", "any")


def vip_addresses(model: ModuleModel) -> list[str]:
    """Without their prefix lengths."""
    return [vip.address.partition("/")[0] for vip in model.vip]


def check_checkers(model: ModuleModel, text: ConfigText, written: Mapping[str, Any], cluster: ClusterConfig) -> Iterator[Complaint]:
    """Of one module. `written` is the file as it was before wrong values were taken out."""
    taken: set[str] = set()
    services = _service_names(written.get("service"))
    for index, checker in enumerate(model.checker):
        config = build_checker(checker, vip_addresses(model), model.mode == "light")
        for key, sentence in (
            *_window(checker, config, model.mode == "light"),
            *_services(config, services, bool(services) or _has_scripts(text)),
            *_own_keys(checker, model, text, cluster),
        ):
            yield text.complain(("checker", index, key) if key else ("checker", index), sentence)
        if config.resource in taken:
            yield text.complain(("checker", index), f'two checkers are called {config.resource}; give one a name = "…" of its own.')
        taken.add(config.resource)


Found = Iterator[tuple[str, str]]  # the key, and what is wrong with it


def _window(checker: CommonModel, config: CheckerConfig, light: bool) -> Found:
    """When it looks, and what can follow then."""
    when, action = config.when, config.action
    if when not in checker.windows:
        yield "when", f'"{when}" makes no sense for {config.type}, which only the primary can see; write when = "prim", or leave it out.'
    if light and when == "second":
        yield "when", 'a light module has no secondary; write when = "prim" or "pre".'
    if light and action == "swap":
        yield "action", 'a light module moves nowhere; write action = "restart" or "stopstart".'
    if light and checker.shared:
        yield "shared", "a light module has no peer whose view could be compared; remove it."
    if action == "wait" and when != "pre":
        yield (
            "action",
            f'"wait" works with when = "pre" only: in "{when}" nobody looks while the node waits, so it would never go on. '
            'Write when = "pre", or action = "stopstart" or "swap".',
        )
    if action == "restart" and when in ("pre", "second"):
        instead = 'write when = "prim"' + (', or action = "wait"' if when == "pre" else "")
        yield "action", f'"restart" has nothing to restart in "{when}", where the services do not run; {instead}.'
    if action == "swap" and when == "second":
        yield "action", '"swap" is for who serves, and "second" looks only while the node does not; write when = "both" or "prim".'
    if config.shared and when in ("prim", "second") and action != "none" and "pre" in checker.windows:
        yield (
            "when",
            f'what both nodes depend on must be looked at on both, or there is nothing to compare: "{when}" is never open on both. '
            'Write when = "pre" or "both", or shared = false if only this node\'s view counts.',
        )
    if checker.shared and "pre" not in checker.windows:
        yield "shared", f"only the primary can see a {config.type}, so there is nothing to compare; remove it."


def _services(config: CheckerConfig, known: Sequence[str], has_something: bool) -> Found:
    """What is restarted."""
    for service in config.services:
        if service not in known:
            has = f"it has {listed(known)}" if known else "it has none"
            yield "services", f'the module has no service "{service}"; {has}.{did_you_mean(service, known)}'
    if config.services and config.action != "restart":
        yield "services", f'says what is restarted, and action is "{config.action}"; write action = "restart", or remove it.'
    if config.action == "restart" and not has_something:
        yield "action", 'the module has no [[service]] and no scripts to restart; write action = "stopstart", "swap" or "none".'


def _own_keys(checker: CommonModel, model: ModuleModel, text: ConfigText, cluster: ClusterConfig) -> Found:
    """Each kind's."""
    directories = [replicated.directory for replicated in model.replicated]
    match checker:
        case ProcessModel():
            yield from _process(checker)
        case HttpModel(url=url) if not parse_url(url).secure:
            for key in ("ca", "verify"):
                if key in checker.model_fields_set:
                    yield key, "is about https, and the URL is http."
        case InterfaceModel():
            yield from _interface(checker, model, text, cluster)
        case IpModel(address=address):
            yield from _vip("address", address, model, text)
        case OtherModuleModel(node=node) if node not in (*ANYWHERE, *cluster.nodes):
            hint = did_you_mean(node, (*ANYWHERE, *cluster.nodes))
            yield "node", f'the cluster has no node "{node}"; write "here", "any", or one of {cluster.names}.{hint}'
        case CustomModel(name=None):
            yield "name", "is missing; whoever says how it is must call it something."
        case WriteModel() if not directories and "replicated" not in text.kept:
            yield "", "the module mirrors no directory through which something could be written; remove it."
        case WriteModel() | DiskModel():
            for directory in checker.directories:
                if isinstance(checker, WriteModel) and directory not in directories and "replicated" not in text.kept:
                    hint = did_you_mean(directory, directories)
                    yield "directories", f"{directory} is no directory of this module; it mirrors {listed(directories)}.{hint}"


def _process(checker: ProcessModel) -> Found:
    if not checker.target() and checker.user is None:
        yield "", "says not which process; give process, name_regex, argument_regex or user."
    if checker.process is not None and checker.name_regex is not None:
        yield "name_regex", "cannot be given together with process; one of them is enough."
    if checker.at_most is not None and checker.at_most < checker.at_least:
        yield "at_most", f"{checker.at_most} is less than at_least, which is {checker.at_least}."


def _interface(checker: InterfaceModel, model: ModuleModel, text: ConfigText, cluster: ClusterConfig) -> Found:
    given = [key for key in ("interface", "network", "address") if getattr(checker, key) is not None]
    if not given:
        yield "", 'says not which interface; give its name (interface = "eth0"), a network of the cluster, or a service address.'
    for key in given[1:]:
        yield key, f"cannot be given together with {given[0]}; one of them says which interface."
    if checker.network is not None:
        known = cluster.networks([node for node in model.nodes or cluster.nodes if node in cluster.nodes] or None)
        if checker.network not in known:
            hint = did_you_mean(checker.network, known)
            yield "network", f'the cluster has no network "{checker.network}" on all of the module\'s nodes; it has {listed(known)}.{hint}'
    if checker.address is not None:
        yield from _vip("address", checker.address, model, text)


def _vip(key: str, address: str, model: ModuleModel, text: ConfigText) -> Found:
    known = vip_addresses(model)
    if address not in known and "vip" not in text.kept:
        has = f"it has {listed(known)}" if known else "it has none"
        yield key, f"{address} is no service address of this module; {has}.{did_you_mean(address, known)}"


def _service_names(tables: object) -> list[str]:
    """As they are written, also where something else about them is wrong."""
    names = []
    for table in tables if isinstance(tables, list) else ():
        if isinstance(table, dict):
            start = table.get("start")
            program = PurePosixPath(str(start[0])).name if isinstance(start, list) and start else ""
            names.append(str(table.get("name") or table.get("unit") or program))
    return names


def _has_scripts(text: ConfigText) -> bool:
    """Are there scripts beside the file?"""
    directory = text.path.with_suffix("")
    return directory.is_dir() and any(directory.iterdir())


def check_dependences(read: Iterable[tuple[ConfigText, ModuleModel]], cluster: ClusterConfig) -> Iterator[Complaint]:
    """Modules that look at each other: they exist, on the same nodes, and do not wait for each other."""
    read = list(read)
    nodes = {text.path.stem: model.nodes or list(cluster.nodes) for text, model in read}
    known = {path.stem for text, _ in read for path in text.path.parent.glob("*.toml")}
    waits: dict[str, list[str]] = {}
    for text, model in read:
        module = text.path.stem
        for index, checker in enumerate(model.checker):
            if not isinstance(checker, OtherModuleModel):
                continue
            place = ("checker", index, "module")
            if checker.module == module:
                yield text.complain(place, "is this module itself; name another one.")
            elif checker.module not in known:
                others = sorted(known - {module})
                has = f"there {'is' if len(others) == 1 else 'are'} {listed(others)}" if others else "there is no other"
                yield text.complain(place, f'there is no module "{checker.module}"; {has}.{did_you_mean(checker.module, others)}')
            elif without := [node for node in nodes[module] if node not in nodes.get(checker.module, nodes[module])]:
                sentence = f"{checker.module} does not run on {listed(without)}, so nothing is known of it there; use tcp for a port of it."
                yield text.complain(place, sentence)
            elif build_checker(checker).action == "wait":
                waits.setdefault(module, []).append(checker.module)
                if circle := _circle(checker.module, module, waits):
                    way = ", which waits for ".join((*circle, module))
                    yield text.complain(place, f"{module} would wait for {way}: none of them would ever start.")


def _circle(first: str, wanted: str, waits: Mapping[str, Sequence[str]], seen: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The way from the first to the wanted one; empty: there is none."""
    if first in seen:
        return ()
    for after in waits.get(first, ()):
        if after == wanted:
            return (*seen, first)
        if way := _circle(after, wanted, waits, (*seen, first)):
            return way
    return ()

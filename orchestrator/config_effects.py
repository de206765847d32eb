"""What a change of the configuration does to what runs: one table of every key.

`live`: hactld goes on with it at once, nothing that runs is disturbed. `next-start`: applied at once, and a service or rfsmount that runs
keeps what it was started with until it is started the next time. `stopped`: the two nodes would not understand each other any more, or
something would be left behind, unless the module is stopped on its nodes while it changes; it is refused while the module runs.

Tables that may be repeated are known by what names them (a directory, an address), not by their place. `+` after a key is one that is
added, `-` one that is removed, `~` another order. A key that is not in the table belongs to the nearest one above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from orchestrator.config_documents import Document, Documents
from rfs.pairing import Files


class Effect(Enum):
    """How a change comes to count."""

    LIVE = "live"
    NEXT_START = "next-start"
    STOPPED = "stopped"


L, N, S = Effect.LIVE, Effect.NEXT_START, Effect.STOPPED

EFFECTS: Final[Mapping[str, Effect]] = {
    "cluster.name": S,
    "cluster.policy": L,
    "cluster.heartbeat.interval": L,
    "cluster.heartbeat.timeout": L,  # of hactld; a running rfsmount keeps its own as well, which is as long as it was
    "cluster.node+": L,
    "cluster.node-": S,
    "cluster.node.name": S,
    "cluster.node.addresses": S,
    "cluster.node.addresses+": L,
    "cluster.node.addresses-": S,
    "cluster.witness.etcd": S,  # hactld would trust it at once, and a running rfsmount goes on without it, or with the one of before
    "cluster.witness.ca": N,
    "cluster.witness.ping": L,
    "cluster.health": L,
    "cluster.access": L,
    "module+": L,
    "module-": S,
    "module.mode": S,
    "module.nodes": S,
    "module.replication_network": S,
    "module.default_primary": L,
    "module.boot": L,
    "module.ack": S,
    "module.devices": S,
    "module.setuid": S,
    "module.max_restarts": L,
    "module.port": S,
    "module.replicated+": L,  # the last: see BY_PLACE
    "module.replicated-": S,
    "module.replicated~": S,
    "module.replicated.directory": S,
    "module.replicated.exclude": S,
    "module.replicated.only": S,
    "module.replicated.require": N,
    "module.vip+": L,
    "module.vip-": S,
    "module.vip~": L,
    "module.vip.address": S,
    "module.vip.interface": S,
    "module.vip.source": S,
    "module.vip.tcp_reset": L,
    "module.vip.check": L,
    "module.service+": S,
    "module.service-": S,
    "module.service~": N,
    "module.service.name": S,
    "module.service.unit": S,
    "module.service.user": N,
    "module.service.start": N,
    "module.service.environment": N,
    "module.service.stop": L,
    "module.service.stop_signal": L,
    "module.service.stop_timeout": L,
    "module.service.start_timeout": L,
    "module.service.ready": L,
    "module.service.restart": L,
    "module.scripts": L,
    "module.checker": L,
    "module.rule": L,
    "module/script": L,  # a file below modules/NAME/
}
NAMED_BY: Final[Mapping[str, tuple[str, ...]]] = {
    "cluster.node": ("name",),
    "module.replicated": ("directory",),
    "module.vip": ("address",),
    "module.service": ("name",),
    "module.checker": ("type", "name"),
    "module.rule": ("name",),
}
BY_PLACE: Final = frozenset({"module.replicated"})  # the data side knows them by their places: what is added before others moves those
TABLES_OF_NAMES: Final = frozenset({"cluster.node.addresses"})  # whose keys are names, not ours


@dataclass(frozen=True, slots=True)
class Change:
    """One key that has another value, or one table more or less."""

    module: str  # empty: of the cluster
    key: str  # for people: vip[192.0.2.100/24].tcp_reset
    place: str  # in the table above
    before: Any
    after: Any
    effect: Effect
    stops: tuple[str, ...] = ()  # the modules that must be stopped

    def as_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "module": self.module,
            "key": self.key,
            "before": self.before,
            "after": self.after,
            "effect": self.effect.value,
            "stops": list(self.stops),
        }


def effect_of(place: str) -> Effect:
    """From the table; KeyError when neither the key nor any above it is there."""
    known, mark = place.rstrip("+-~"), place[len(place.rstrip("+-~")) :]
    while known:
        for candidate in (known + mark, known):
            if candidate in EFFECTS:
                return EFFECTS[candidate]
        known, mark = known.rpartition(".")[0], ""
    raise KeyError(place)


def changes_between(before: Documents, after: Documents, files_before: Files, files_after: Files) -> list[Change]:
    """Everything that differs, the cluster's first."""
    found = [_of_cluster(before, after, change) for change in _compare("", "cluster", "", before.cluster, after.cluster)]
    for name in sorted(before.modules.keys() | after.modules.keys()):
        old, new = before.modules.get(name), after.modules.get(name)
        if old is None or new is None:
            place, was, now = ("module+", None, "a module") if old is None else ("module-", "a module", None)
            found.append(_stopping(Change(name, "", place, was, now, effect_of(place))))
        else:
            found += [_stopping(change) for change in _compare(name, "module", "", old, new)]
        found += _scripts(name, files_before, files_after)
    return found


def _stopping(change: Change) -> Change:
    stops = (change.module,) if change.effect is Effect.STOPPED else ()
    return Change(change.module, change.key, change.place, change.before, change.after, change.effect, stops)


def _of_cluster(before: Documents, after: Documents, change: Change) -> Change:
    """Which modules it concerns: all mirrors; of a node's addresses, those of that node."""
    if change.effect is not Effect.STOPPED:
        return change
    node = change.key.partition("[")[2].partition("]")[0] if change.place.startswith("cluster.node") else ""
    concerned = tuple(
        name
        for name, config in {**before.configs, **after.configs}.items()
        if config.mode == "mirror" and name in before.configs and (not node or node in config.nodes or node in before.configs[name].nodes)
    )
    return Change(change.module, change.key, change.place, change.before, change.after, change.effect, concerned)


def _scripts(module: str, before: Files, after: Files) -> Iterator[Change]:
    prefix = f"modules/{module}/"
    names = sorted({name for name in before.keys() | after.keys() if name.startswith(prefix)})
    for name in names:
        old, new = before.get(name), after.get(name)
        if old is None or new is None or old[1] != new[1] or bool(old[0] & 0o111) != bool(new[0] & 0o111):
            shown = ("a script" if old else None, "a script" if new else None) if old is None or new is None else ("a script", "another")
            yield Change(module, name.removeprefix("modules/"), "module/script", *shown, effect_of("module/script"))


def _compare(module: str, place: str, shown: str, before: Document, after: Document) -> Iterator[Change]:
    """Two tables of the same kind."""
    for key in dict.fromkeys((*before, *after)):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        there, name = f"{place}.{key}", f"{shown}.{key}" if shown else key
        if there in NAMED_BY:
            yield from _compare_lists(module, there, name, old or [], new or [])
        elif there in TABLES_OF_NAMES:
            yield from _compare_names(module, there, name, old or {}, new or {})
        elif isinstance(old, dict) and isinstance(new, dict) and there not in EFFECTS:
            yield from _compare(module, there, name, old, new)
        else:
            yield Change(module, name, there, old, new, effect_of(there))


def _compare_names(module: str, place: str, shown: str, before: Document, after: Document) -> Iterator[Change]:
    for key in dict.fromkeys((*before, *after)):
        if before.get(key) != after.get(key):
            mark = "+" if key not in before else "-" if key not in after else ""
            yield Change(module, f"{shown}.{key}", place + mark, before.get(key), after.get(key), effect_of(place + mark))


def _compare_lists(module: str, place: str, shown: str, before: list[Document], after: list[Document]) -> Iterator[Change]:
    old, new = _by_name(place, before), _by_name(place, after)
    for name in dict.fromkeys((*old, *new)):
        label = f"{shown}[{name}]"
        if name not in new or name not in old:
            mark = "-" if name not in new else "+"
            yield Change(module, label, place + mark, old.get(name), new.get(name), effect_of(place + mark))
        elif old[name] != new[name]:
            yield from _compare(module, place, label, old[name], new[name])
    stay_old, stay_new = [name for name in old if name in new], [name for name in new if name in old]
    places = list(new)[: len(stay_new)] if place in BY_PLACE else stay_new
    if stay_old != places:
        yield Change(module, f"{shown} (order)", f"{place}~", stay_old, list(new), effect_of(f"{place}~"))


def _by_name(place: str, tables: list[Document]) -> dict[str, Document]:
    """A second one of the same name is known by its number as well."""
    found: dict[str, Document] = {}
    for index, table in enumerate(tables):
        name = ".".join(str(table[key]) for key in NAMED_BY[place] if table.get(key) is not None) or str(index + 1)
        found[name if name not in found else f"{name} #{index + 1}"] = table
    return found


def stopped_for(changes: list[Change]) -> dict[str, list[Change]]:
    """By module: the changes for which it must be stopped."""
    found: dict[str, list[Change]] = {}
    for change in changes:
        for module in change.stops:
            found.setdefault(module, []).append(change)
    return found


def added_addresses(before: Documents, after: Documents) -> dict[str, list[Any]]:
    """By module that was there before: the service addresses that come to it."""
    known = {vip.address for config in before.configs.values() for vip in config.vips}
    found = {
        name: [vip for vip in config.vips if vip.address not in known] for name, config in after.configs.items() if name in before.configs
    }
    return {name: vips for name, vips in found.items() if vips}


def added_directories(before: Documents, after: Documents) -> dict[str, list[Any]]:
    """The same of directories, which come last."""
    known = {name: len(config.replicated) for name, config in before.configs.items()}
    found = {name: list(config.replicated[known[name] :]) for name, config in after.configs.items() if name in known}
    return {name: directories for name, directories in found.items() if directories}

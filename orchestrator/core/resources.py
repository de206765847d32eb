"""What is known of the resources of a module, here and on the peer.

A checker looks in a *window*: `pre` from the start of the module to its end, `prim` while its services are up here, `second` while it is
SECOND, `both` in either. The core opens and closes windows by its own facts; who looks (checkers/watch.py) follows. When a window opens,
the resource is *init* until something was said; when it closes, it is gone, and unknown. So after a restart of the services nothing that
was found before counts.

The peer's resources come in its heartbeats as two sets of bits. Both nodes have the same configuration, so a bit needs no name; which
names are meant is said by a checksum of them, and a peer that has others (it was configured anew a moment ago) says nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Final

from orchestrator.core.rules_language import ResourceState, States
from orchestrator.core.states import Hold, Module, Resource, State, Summary, Surroundings

RESOURCES_MAX: Final = 60  # of a module: their bits are one number on the wire
NOTHING: Final[States] = {}


def catalogue_of(names: Collection[str]) -> int:
    """A number for these names, whatever their order; 0 for none."""
    return _catalogue(tuple(sorted(names))) if names else 0


@lru_cache(maxsize=256)
def _catalogue(names: tuple[str, ...]) -> int:
    return zlib.crc32("\n".join(names).encode()) or 1


def open_windows(module: Module) -> frozenset[str]:
    """Which checkers look now, by their `when`."""
    if not module.wanted and not module.holds:
        return frozenset()
    found = {"pre"}
    if module.services is Hold.ON and not module.restarting:
        found |= {"prim", "both"}
    if module.shown[0] is State.SECOND:
        found |= {"second", "both"}
    return frozenset(found)


def looked_at(module: Module, now: float) -> Mapping[str, Resource]:
    """The resources as they should be there now: those whose window has opened are init, those whose window has closed are gone."""
    windows = open_windows(module)
    return {
        name: module.resources.get(name) or Resource(since=now, window=module.windows + 1)
        for name, when in module.watched.items()
        if when in windows
    }


def is_looked_at(module: Module) -> bool:
    """Are all windows as they should be? Nearly always."""
    windows = open_windows(module)
    return all((when in windows) is (name in module.resources) for name, when in module.watched.items())


def here(module: Module) -> States:
    """What is known on this node."""
    return {name: resource.state for name, resource in module.resources.items()}


def there(module: Module, around: Surroundings, peer: Summary | None) -> States:
    """What the peer says of the same resources; nothing, if it does not."""
    if peer is None or around.peer_silent or not peer.catalogue or peer.catalogue != catalogue_of(module.watched):
        return NOTHING
    names = sorted(module.watched)
    known = {ResourceState.UP: peer.up, ResourceState.DOWN: peer.down}
    return {name: state for place, name in enumerate(names) for state, bits in known.items() if bits >> place & 1}


def bits(module: Module, state: ResourceState) -> int:
    """Which resources are so here, as the heartbeats say it."""
    return sum(1 << place for place, name in enumerate(sorted(module.watched)) if _is(module.resources.get(name), state))


def _is(resource: Resource | None, state: ResourceState) -> bool:
    return resource is not None and resource.state is state


def with_word(module: Module, name: str, resource: Resource) -> Mapping[str, Resource]:
    """The resources, one of them as it is now."""
    return {**module.resources, name: resource}


def spoken(before: Resource, state: ResourceState, text: str, now: float) -> Resource:
    """A resource after a word about it."""
    return replace(before, state=state, text=text, since=before.since if before.state is state else now)


def first_in(module: Module, names: Iterable[str], state: ResourceState) -> str:
    """The first of these resources that is so here, or nothing."""
    return next((name for name in names if _is(module.resources.get(name), state)), "")

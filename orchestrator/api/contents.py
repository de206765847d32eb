"""GET /v1/modules/NAME/contents: what lies in a module's directories on this node, and whether it is known to have the data.

    {"schema": "hactl.contents/1", "module", "nodes": [{"node", "known", "serves", "directories": [...] or null, "problem"}]}

`?node=all` asks every node of the module; one that does not answer, or is older than this question, has a `problem` and nothing else.
`?walk=no` leaves the directories out: whether a node is known costs nothing to say.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import trio

from orchestrator.api.server import ApiError
from orchestrator.config import ReplicatedConfig
from orchestrator.core.states import Hold, Wish
from orchestrator.effects.contents import WALK_S, Contents, survey
from orchestrator.runner import Runner

SCHEMA = "hactl.contents/1"
DEADLINE_S = 2 * WALK_S
WALKS_MAX = 2  # a hanging disk must not cost hactld more threads than these
_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("contents_limiter")


async def of_this_node(node: str, runner: Runner, name: str, replicated: Sequence[ReplicatedConfig], walk: bool) -> dict[str, Any]:
    """This node's entry. Known is who has a record, and who was told that it has the data and is about to have one."""
    module = runner.node.modules[name]
    told = module.wish in (Wish.PRIMARY, Wish.PRIMARY_FORCE)
    serves = module.view is not None and module.view.serves
    entry: dict[str, Any] = {
        "node": node,
        "known": module.has_record or told or module.rfs is not Hold.OFF,
        "serves": serves,
        "problem": "",
    }
    directories = None
    if walk:
        deadline = trio.current_time() + DEADLINE_S
        directories = [await _look(each, WALK_S / len(replicated), deadline) for each in replicated]
    return entry | {"directories": directories}


async def _look(replicated: ReplicatedConfig, walk_s: float, deadline: float) -> dict[str, Any]:
    """One directory, or the sentence why not."""
    look = partial(survey, replicated.directory, replicated.require, walk_s=walk_s)
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(WALKS_MAX)
        _limiter.set(limiter)
    with trio.move_on_at(deadline):
        return asdict(await trio.to_thread.run_sync(look, limiter=limiter, abandon_on_cancel=True))
    return asdict(Contents(replicated.directory, whole=False, problem=f"it does not answer within {DEADLINE_S:.0f} s"))


async def of_nodes(module: str, nodes: Sequence[str], ask: Callable[[str], Awaitable[Mapping[str, Any]]]) -> dict[str, Any]:
    """The document: all of them at once, in their order."""
    entries: dict[str, Mapping[str, Any]] = {}

    async def one(node: str) -> None:
        try:
            entries[node] = await ask(node)
        except ApiError as error:
            entries[node] = {"node": node, "known": None, "serves": None, "directories": None, "problem": str(error)}

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(one, node)
    return {"schema": SCHEMA, "module": module, "nodes": [dict(entries[node]) for node in nodes]}

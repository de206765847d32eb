"""A decision's evidence (core/explain.evidence, as every history keeps it), made into inputs of the rules again.

It has no times, so times are made up that mean the same: a silence is long, a pause is long ago, what is `isolated` or `unsure` is so by
the shortest way. What it lacks (when the state last changed, how often the role was given back, whether there is a record) takes no part in
taking over, going alone and fencing; a failback cannot be judged again from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.core.states import Hold, Module, Order, Readiness, RfsView, State, Summary, Surroundings, Wish

NOW = 1000.0


def replayed(inputs: Mapping[str, Any]) -> tuple[Module, Surroundings, Summary | None]:
    """Module, surroundings and peer, as far as they count."""
    ours, around, data, theirs = inputs["module"], inputs["around"], inputs["data"], inputs["peer"]
    module = Module(
        "ledger",
        wanted=ours["runs"], paused=ours["paused"], current=ours["current"], swapping=ours["swapping"],
        wish=Wish(ours["wish"]) if ours["wish"] else None, rfs=Hold(ours["rfs"]), address=Hold(ours["address"]),
        services=Hold(ours["services"]), services_failed=ours["services_failed"],
        order=Order(ours["order"]) if ours["order"] else None, restarts=(NOW,) * ours["restarts"], max_restarts=ours["restarts"],
        problem=ours["problem"], view=RfsView(**data) if data is not None else None,
    )  # fmt: skip
    heard_ago_s = around["heard_ago_s"]
    surroundings = Surroundings(
        "here", "there", policy=around["policy"], now=NOW, has_ping=around["has_ping"], has_witness=around["has_witness"],
        peer_silent=around["peer_silent"], peer_heard=around["peer_heard"],
        peer_heard_at=NOW - heard_ago_s if heard_ago_s is not None else 0.0,
        ping_ok=around["ping_ok"], ping_ok_since=NOW if around["isolated"] and around["ping_ok"] else 0.0,
        unsure_until=NOW + 1 if around["unsure"] else 0.0,
    )  # fmt: skip
    peer = None
    if theirs is not None:
        peer = Summary(**{**theirs, "state": State(theirs["state"]), "readiness": Readiness(theirs["readiness"])})
    return module, surroundings, peer

"""What the checkers of the simulated pair watch, the rules that go with it, and how chance breaks it: on one node, on both, again and
again.

A look is what the product's is: under the number of its window, a moment after the truth, and never on a node that stands still.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from orchestrator.core import events as ev
from orchestrator.core.rules_language import ResourceState, Rule, parse

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.machine import Machine

OWN, NEAR, FAR, SERVED = "script.own", "interface.lan", "ping.gateway", "tcp.db"
WATCHED: Final = {OWN: "pre", NEAR: "pre", FAR: "pre", SERVED: "prim"}
HOLD_S: Final = 2.0
ACTIONS: Final = {
    OWN: ("wait", "wait", "stopstart", "swap", "stop"),
    NEAR: ("wait",),
    FAR: ("wait", "swap"),
    SERVED: ("restart", "stopstart"),
}


def rule(name: str, action: str) -> Rule:
    """The default rule of this resource, with this action."""
    terms = [f"{name} is down", *{NEAR: [f"remote.{name} is not down"], FAR: [f"remote.{name} is up"]}.get(name, [])]
    return Rule(name, action, tuple(map(parse, terms)), (), HOLD_S if len(terms) > 1 else 0.0, ("postgres",) if action == "restart" else ())


def rules(**actions: str) -> tuple[Rule, ...]:
    """Rules by the first part of what they watch: own, near, far, served."""
    names = {"own": OWN, "near": NEAR, "far": FAR, "served": SERVED}
    return tuple(rule(names[word], action) for word, action in actions.items())


def by_chance(cluster: Cluster, seed: int) -> None:
    """A third of the lives have rules; the others are what they were before there were any."""
    if seed % 3 == 2:
        chance = random.Random(seed * 65537)
        cluster.rules = tuple(rule(name, chance.choice(actions)) for name, actions in ACTIONS.items())
        cluster.breakage = chance


def look(cluster: Cluster, machine: Machine) -> None:
    """The checkers of a node: what is not known as it is will be, soon."""
    if machine.core is None or not cluster.rules or cluster.now < cluster.blind_until:
        return
    for name, known in machine.core.modules["pg"].resources.items():
        state = ResourceState.DOWN if name in machine.down else ResourceState.UP
        if known.state is not state and cluster.random.random() < 0.5:
            event = ev.Checked(cluster.now, "pg", name, state, "as the simulator has it", known.window)
            cluster.after(0.0, 0.2, lambda event=event: cluster.deliver(machine, event))  # type: ignore[misc]


def disturb(cluster: Cluster) -> None:
    """Something breaks or heals; in a life without rules nothing is watched, and nothing happens."""
    chance = cluster.breakage
    if chance is None or chance.random() < 0.4:
        return
    name = chance.choice((OWN, OWN, NEAR, FAR, SERVED))
    machines = list(cluster.machines.values())
    for machine in machines if chance.random() < 0.3 else [chance.choice(machines)]:
        breaks = chance.random() < 0.6
        cluster.note(f"{name} of {machine.name} {'breaks' if breaks else 'heals'}")
        machine.down = machine.down | {name} if breaks else machine.down - {name}

"""All ordered sequences of faults, not those that chance picks: every one and two, a rotating share of the threes (script/soak: all).

The oracle looks after every event (cluster.check): never two writers, never old data. In the end comes peace, and with it the pair.
"""

from __future__ import annotations

import datetime
import itertools
import os
from collections.abc import Callable

import pytest

from orchestrator.core import events as ev
from tests.sim.cluster import Cluster, paired
from tests.sim.walk import make_peace

SHARES = 40  # of the threes, one is gone through a day
SHARE = os.environ.get("LOCKSTEP_SIM_SHARE", str(datetime.datetime.now(datetime.UTC).timetuple().tm_yday % SHARES))  # or "all"
PAUSE_S = 4.0  # longer than the peer's silence must last


def power_off(cluster: Cluster, name: str) -> None:
    if cluster.machines[name].powered:
        cluster.power_off(name)


def freeze(cluster: Cluster, name: str) -> None:
    """For longer than the timeout, and then it goes on."""
    machine = cluster.machines[name]
    if machine.powered and not machine.frozen:
        cluster.freeze(name)
        cluster.run(PAUSE_S)
        cluster.thaw(name)


def kill_hactld(cluster: Cluster, name: str) -> None:
    machine = cluster.machines[name]
    if machine.powered and machine.hactld:
        cluster.kill_hactld(name)
        cluster.run(1.0)
        cluster.start_hactld(name)


def reboot(cluster: Cluster, name: str) -> None:
    power_off(cluster, name)
    cluster.run(1.0)
    cluster.boot(name)


def isolate(cluster: Cluster, name: str) -> None:
    """Cut off from everything; the other one still reaches its ping address (else only a witness could judge)."""
    if all(machine.reaches_ping for machine in cluster.machines.values()):
        cluster.cut_network("lan", "repl", isolated=name)


def both(action: Callable[[Cluster, str], None], word: str) -> dict[str, Callable[[Cluster], None]]:
    """The same on either node."""
    return {f"{word} {name}": lambda cluster, name=name: action(cluster, name) for name in ("node1", "node2")}  # type: ignore[misc]


FAULTS: dict[str, Callable[[Cluster], None]] = {
    **both(power_off, "power off"),
    **both(reboot, "reboot"),
    **both(freeze, "freeze"),
    **both(kill_hactld, "hactld dies"),
    **both(lambda cluster, name: cluster.kill_rfs(name), "rfsmount dies"),
    **both(lambda cluster, name: cluster.service_dies(cluster.machines[name]), "service dies"),
    **both(isolate, "isolated"),
    "lan cut": lambda cluster: cluster.cut_network("lan"),
    "repl cut": lambda cluster: cluster.cut_network("repl"),
    "healed": lambda cluster: cluster.heal(),
    "swap": lambda cluster: cluster.command("node1", ev.Swap),
    "stopstart": lambda cluster: cluster.command("node1", ev.StopStart),
}


def parts(cluster: Cluster, name: str) -> bool:
    """Would this cut the nodes off from each other and from nothing else?"""
    cut = cluster.cut | {"lan cut": {"lan"}, "repl cut": {"repl"}}.get(name, set())
    return {"lan", "repl"} <= cut and all(machine.reaches_ping for machine in cluster.machines.values())


def live(names: tuple[str, ...], witness: bool) -> None:
    cluster = paired(sum(map(ord, "".join(names))), witness=witness)
    for name in names:
        if not witness and parts(cluster, name):
            cluster.heal()  # a true partition of two: nobody can judge that without a witness
        FAULTS[name](cluster)
        cluster.run(PAUSE_S)
    make_peace(cluster)
    for _ in range(400):
        cluster.run(0.2)
        if sorted((cluster.shown("node1"), cluster.shown("node2"))) == ["PRIM Ready", "SECOND Ready"]:
            return
    states = {name: (cluster.shown(name), cluster.reason(name)) for name in cluster.machines}
    raise AssertionError(f"{names}: no peace: {states}\n" + "\n".join(cluster.trace[-60:]))


def run_all(sequences: list[tuple[str, ...]], witness: bool) -> None:
    failed = []
    for names in sequences:
        try:
            live(names, witness)
        except AssertionError as failure:
            failed.append(f"{' -> '.join(names)}: {str(failure)[:1500]}")
    assert not failed, f"{len(failed)} of {len(sequences)} failed; the first: {failed[0]}"


@pytest.mark.parametrize("witness", [False, True], ids=["by policy", "with a witness"])
@pytest.mark.parametrize("length", [1, 2])
def test_every_sequence(length: int, witness: bool) -> None:
    run_all(list(itertools.product(FAULTS, repeat=length)), witness)


@pytest.mark.parametrize("witness", [False, True], ids=["by policy", "with a witness"])
def test_a_share_of_the_threes(witness: bool) -> None:
    threes = list(itertools.product(FAULTS, repeat=3))
    run_all(threes if SHARE == "all" else threes[int(SHARE) :: SHARES], witness)

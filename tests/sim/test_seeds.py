"""Random faults, then peace: never two writers, never old data served, and one primary and one second in the end."""

import os
import random

import pytest

from orchestrator.core import events as ev
from tests.sim.cluster import Cluster, paired

SEEDS = int(os.environ.get("LOCKSTEP_SIM_SEEDS", "60"))


def disturb(cluster: Cluster, rng: random.Random) -> None:
    name = rng.choice(("node1", "node2"))
    machine = cluster.machines[name]
    if not machine.powered:
        cluster.boot(name)
        return
    if machine.frozen:
        cluster.thaw(name)
        return
    if not machine.hactld:
        cluster.start_hactld(name)
        return
    match rng.randrange(14):
        case 0:
            cluster.power_off(name)
        case 1:
            cluster.freeze(name)
        case 2:
            cluster.kill_hactld(name)
        case 3 | 4:
            cluster.kill_rfs(name)
        case 5:
            cluster.service_dies(machine)
        case 6:
            cluster.cut_network(rng.choice(("lan", "repl")))
            partition = {"lan", "repl"} <= cluster.cut and all(other.reaches_ping for other in cluster.machines.values())
            if partition and (cluster.witness is None or rng.random() < 0.5):  # only a witness can judge a true one
                cluster.cut_network(isolated=name)
        case 7:
            if not cluster.cut:
                cluster.cut_network("lan", "repl", isolated=name)
        case 8 | 9:
            cluster.heal()
        case 10:
            cluster.command(name, rng.choice((ev.Stop, ev.Start, ev.Swap, ev.Restart, ev.Start)))
        case 11:
            cluster.command(name, ev.Swap)
        case 12:
            cluster.command(name, ev.StopStart)
        case 13:
            cluster.command(name, ev.Switch, switch="failover", value=rng.choice(("on", "on", "on", "off")))


def make_peace(cluster: Cluster) -> None:
    cluster.heal()
    for name, machine in cluster.machines.items():
        if not machine.powered:
            cluster.boot(name)
        if machine.frozen:
            cluster.thaw(name)
        if not machine.hactld:
            cluster.start_hactld(name)
        cluster.run(0.3)
        cluster.command(name, ev.Switch, switch="failover", value="on")
        cluster.command(name, ev.Start)


@pytest.mark.parametrize("witness", [False, True], ids=["by policy", "with a witness"])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_faults_then_peace(seed: int, witness: bool) -> None:
    rng = random.Random(seed * 7919)
    policy = rng.choice(("availability", "consistency"))
    default_primary = rng.choice(("alone", "lastprim", "node1", "node2"))
    cluster = paired(seed, policy, ping=not witness or rng.random() < 0.3, witness=witness, default_primary=default_primary)
    for _ in range(rng.randrange(2, 14)):
        disturb(cluster, rng)
        cluster.run(rng.choice((0.1, 0.4, 1.0, 3.0, 5.0, 12.0)))
    make_peace(cluster)
    for _ in range(600):
        cluster.run(0.2)
        if sorted((cluster.shown("node1"), cluster.shown("node2"))) == ["PRIM Ready", "SECOND Ready"]:
            break
    else:
        states = {name: (cluster.shown(name), cluster.reason(name), vars(cluster.machines[name].rfs)) for name in cluster.machines}
        raise AssertionError(f"seed {seed}: no peace: {states}\n" + "\n".join(cluster.trace[-100:]))

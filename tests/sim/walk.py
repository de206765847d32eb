"""A random life of a pair: faults that chance picks, then peace; the oracle looks all the while, and in the end both are well again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from orchestrator.core import events as ev
from orchestrator.core.states import Point
from tests.sim import resources
from tests.sim.cluster import Cluster, settle
from tests.sim.machine import Machine
from tests.sim.networks import NETWORKS

PAUSES_S = (0.1, 0.4, 1.0, 3.0, 5.0, 12.0)
PEACE_STEPS = 600

Fault = Callable[[Cluster, random.Random, str], None]


def is_judged(cluster: Cluster) -> bool:
    """Is there anybody who can tell a dead peer from one that is not heard? A witness, or the policy that promotes nobody. Without them
    the nodes must not be left apart while both reach their ping addresses: then both go on, as documented."""
    return cluster.witness is not None or cluster.policy == "consistency"


def clear_up(cluster: Cluster) -> None:
    """Where nobody judges, a bad network must not add to a cut one."""
    if not is_judged(cluster):
        cluster.networks.loss.clear()
        cluster.networks.lag_s.clear()


def cut(cluster: Cluster, chance: random.Random, name: str) -> None:
    clear_up(cluster)
    cluster.cut_network(chance.choice(NETWORKS))
    if partitioned(cluster) and not may_be_partitioned(cluster, chance):
        cluster.cut_network(isolated=name)


def partitioned(cluster: Cluster) -> bool:
    """Do both live on, each believing that the other might be dead?"""
    apart = not any(cluster.networks.connects(network) for network in NETWORKS)
    return apart and all(machine.reaches_ping for machine in cluster.machines.values())


def may_be_partitioned(cluster: Cluster, chance: random.Random) -> bool:
    """Now and then, where somebody judges."""
    return is_judged(cluster) and chance.random() < 0.5


def isolate(cluster: Cluster, chance: random.Random, name: str) -> None:
    if not cluster.cut:
        cluster.cut_network("lan", "repl", isolated=name)


def cut_one_way(cluster: Cluster, chance: random.Random, name: str) -> None:
    """What the node sends is lost. On both networks that is a partition as its peer sees it."""
    clear_up(cluster)
    networks = NETWORKS if chance.random() < 0.5 and may_be_partitioned(cluster, chance) else (chance.choice(NETWORKS),)
    cluster.note(f"{name} is not heard on {networks}")
    cluster.networks.one_way.update((network, name) for network in networks)
    if partitioned(cluster) and not is_judged(cluster):
        cluster.cut_network("lan", "repl", isolated=name)


def flap(cluster: Cluster, chance: random.Random, name: str) -> None:
    """A cable that comes and goes."""
    clear_up(cluster)
    network = chance.choice(NETWORKS)
    others = set(NETWORKS) - {network}
    if others & cluster.cut:
        return
    for _ in range(chance.randrange(2, 8)):
        cluster.cut_network(network)
        cluster.run(chance.choice((0.1, 0.6, 2.0)))
        cluster.cut.discard(network)
        cluster.run(chance.choice((0.1, 0.6, 2.0)))


def weather(cluster: Cluster, chance: random.Random, name: str) -> None:
    """A network that loses or delays datagrams."""
    if not is_judged(cluster) and (cluster.cut or cluster.networks.one_way or cluster.networks.loss):
        return
    network = chance.choice(NETWORKS)
    cluster.note(f"{network} is bad")
    cluster.networks.loss[network] = chance.choice((0.2, 0.5, 0.9))
    cluster.networks.lag_s[network] = chance.choice((0.0, 0.3, 1.5))


def silence_of_datagrams(cluster: Cluster, chance: random.Random, name: str) -> None:
    """A firewall that lets connections pass and no datagrams."""
    if not is_judged(cluster):
        return
    cluster.note("no datagram arrives")
    cluster.networks.loss.update(dict.fromkeys(NETWORKS, 1.0))


def heal(cluster: Cluster, chance: random.Random, name: str) -> None:
    cluster.heal()


def witness_dies(cluster: Cluster, chance: random.Random, name: str) -> None:
    if cluster.witness is not None:
        cluster.note("the witness dies")
        cluster.witness.out_of_reach.update(cluster.machines)


def services_hang(cluster: Cluster, chance: random.Random, name: str) -> None:
    cluster.note(f"the services of {name} hang")
    cluster.machines[name].hangs = True


def services_fail(cluster: Cluster, chance: random.Random, name: str) -> None:
    cluster.note("no service starts")
    cluster.service_fails = True


def services_recover(cluster: Cluster, chance: random.Random, name: str) -> None:
    cluster.service_fails = False
    cluster.failing_scripts.clear()
    for machine in cluster.machines.values():
        machine.hangs = False


SCRIPTS = (*(point.start_script for point in Point), *(point.stop_script for point in Point), "transition")


def scripts_fail(cluster: Cluster, chance: random.Random, name: str) -> None:
    script = chance.choice(SCRIPTS)
    cluster.note(f"{script} fails on both")
    cluster.failing_scripts.add(script)


def counted(cluster: Cluster, chance: random.Random, name: str) -> None:
    """A script counts, or a checker asks for something."""
    if chance.random() < 0.5:
        cluster.command(name, ev.Count, what=chance.choice(("count", "check", "reset")), checker="loop")
    else:
        cluster.command(name, chance.choice((ev.Restart, ev.StopStart, ev.Swap)), checker="a checker")


def checkers(cluster: Cluster, chance: random.Random, name: str) -> None:
    cluster.command(name, ev.Switch, switch="checkers", value=chance.choice(("on", "on", "off")))


def rfs_dies(cluster: Cluster, chance: random.Random, name: str) -> None:
    cluster.kill_rfs(name)


def rfs_dies_again_and_again(cluster: Cluster, chance: random.Random, name: str) -> None:
    for _ in range(chance.randrange(2, 9)):
        cluster.kill_rfs(name)
        cluster.run(chance.choice((0.2, 1.0, 4.0)))


def service_dies(cluster: Cluster, chance: random.Random, name: str) -> None:
    cluster.service_dies(cluster.machines[name])


def service_dies_again_and_again(cluster: Cluster, chance: random.Random, name: str) -> None:
    for _ in range(chance.randrange(2, 9)):
        cluster.service_dies(cluster.machines[name])
        cluster.run(chance.choice((0.5, 1.5)))


def address_is_taken_away(cluster: Cluster, chance: random.Random, name: str) -> None:
    cluster.note(f"somebody removes the address of {name}")
    cluster.machines[name].address_until = min(cluster.now, cluster.machines[name].address_until)


def slow_socket(cluster: Cluster, chance: random.Random, name: str) -> None:
    """What is so, and what is done, is heard of late."""
    cluster.slow_status_s, cluster.slow_done_s = chance.choice((0.05, 0.4)), chance.choice((0.1, 1.0))


def told(*kinds: type[ev.Command]) -> Fault:
    """A command that chance picks."""
    return lambda cluster, chance, name: cluster.command(name, chance.choice(kinds))


def told_twice(cluster: Cluster, chance: random.Random, name: str) -> None:
    """Stopped, and then one more word."""
    cluster.command(name, ev.Stop)
    cluster.run(chance.choice((0.05, 0.3, 12.0)))
    cluster.command(name, chance.choice((ev.Stop, ev.StopStart, ev.Start)))


def switch(cluster: Cluster, chance: random.Random, name: str) -> None:
    cluster.command(name, ev.Switch, switch="failover", value=chance.choice(("on", "on", "on", "off")))


def second(cluster: Cluster, chance: random.Random, name: str) -> None:
    """An administrator says that the peer has the data, and it has."""
    if cluster.other(cluster.machines[name]).rfs.serves:
        cluster.command(name, ev.Second, fullsync=chance.random() < 0.5)


def second_behind_a_cut(cluster: Cluster, chance: random.Random, name: str) -> None:
    """The same of a node that runs and cannot reach the data: its rfsmount has to go first."""
    if not cluster.other(cluster.machines[name]).rfs.serves or cluster.cut:
        return
    cluster.cut_network("repl")
    cluster.kill_hactld(name)
    cluster.power_off(name)
    cluster.run(0.5)
    cluster.boot(name)
    cluster.run(1.5)
    if cluster.other(cluster.machines[name]).rfs.serves:
        cluster.command(name, ev.Second, fullsync=True)


def peer_dies_during_a_pause(cluster: Cluster, chance: random.Random, name: str) -> None:
    """Who wakes up finds silence, and does not know what was before it."""
    cluster.freeze(name)
    cluster.run(chance.choice((2.0, 4.0)))
    if cluster.other(cluster.machines[name]).powered:
        cluster.power_off(cluster.other(cluster.machines[name]).name)
    cluster.run(chance.choice((0.2, 4.0)))
    cluster.thaw(name)


def prim(cluster: Cluster, chance: random.Random, name: str) -> None:
    """An administrator says who has the data, and is right: the other one is dead, or it is refused."""
    machine = cluster.machines[name]
    if may_claim(cluster, machine):
        cluster.command(name, ev.Prim)


def may_claim(cluster: Cluster, machine: Machine) -> bool:
    """Would that lose nothing?"""
    peer = cluster.other(machine)
    if machine.rfs.alive and (machine.rfs.linked or machine.rfs.serves):
        return True  # refused, or so already
    newest = machine.rfs.record is not None and machine.rfs.record.content == cluster.acknowledged
    return newest and not peer.powered


def prim_where_the_peer_is_dead(cluster: Cluster, chance: random.Random, name: str) -> None:
    """The word that only a person may give: it is certain that nobody is there."""
    peer = cluster.other(cluster.machines[name])
    if peer.powered:
        cluster.power_off(peer.name)
        cluster.run(chance.choice((0.2, 4.0)))
    prim(cluster, chance, name)


FAULTS: tuple[Fault, ...] = (
    lambda cluster, chance, name: cluster.power_off(name),
    lambda cluster, chance, name: cluster.freeze(name),
    lambda cluster, chance, name: cluster.freeze(name),
    lambda cluster, chance, name: cluster.kill_hactld(name),
    rfs_dies, rfs_dies, rfs_dies_again_and_again, service_dies, service_dies_again_and_again, cut, cut, isolate, cut_one_way, flap, weather,
    silence_of_datagrams, heal, heal, heal, witness_dies, services_hang, services_fail, services_recover, services_recover, slow_socket,
    address_is_taken_away, told(ev.Stop, ev.Start, ev.Swap, ev.Restart, ev.Start), told(ev.Swap), told(ev.Stop, ev.Restart),
    told(ev.StopStart), told_twice, switch, scripts_fail, scripts_fail, counted, checkers,
    second, prim, second_behind_a_cut, peer_dies_during_a_pause, prim_where_the_peer_is_dead,
)  # fmt: skip

HURRIED: tuple[Fault, ...] = (
    *(rfs_dies, rfs_dies_again_and_again, service_dies, service_dies_again_and_again, services_recover, heal, address_is_taken_away),
    *(told(ev.StopStart), told(ev.Swap, ev.Restart), told_twice, cut, services_hang, services_fail),
)


def disturb(cluster: Cluster, chance: random.Random, faults: Sequence[Fault] = FAULTS) -> None:
    """One fault, or the end of one."""
    name = chance.choice(("node1", "node2"))
    machine = cluster.machines[name]
    if not machine.powered:
        cluster.boot(name)
    elif machine.frozen:
        cluster.thaw(name)
    elif not machine.hactld:
        cluster.start_hactld(name)
    else:
        chance.choice(faults)(cluster, chance, name)


def repair(cluster: Cluster) -> Iterator[str]:
    """Nothing is broken any more; each server in turn, when it runs."""
    cluster.heal()
    cluster.slow_status_s, cluster.slow_done_s = 0.05, 0.1
    services_recover(cluster, cluster.random, "")
    for name, machine in cluster.machines.items():
        machine.down = frozenset()
        if not machine.powered:
            cluster.boot(name)
        if machine.frozen:
            cluster.thaw(name)
        if not machine.hactld:
            cluster.start_hactld(name)
        yield name


def tell_to_run(cluster: Cluster, name: str) -> None:
    """What somebody may have switched off or stopped."""
    cluster.command(name, ev.Switch, switch="failover", value="on")
    cluster.command(name, ev.Switch, switch="checkers", value="on")
    cluster.command(name, ev.Start)


def make_peace(cluster: Cluster) -> None:
    """Nothing is broken any more, and both are told to run."""
    for name in repair(cluster):
        cluster.run(0.3)
        tell_to_run(cluster, name)


def is_well(cluster: Cluster) -> bool:
    """One primary and one second."""
    return sorted((cluster.shown("node1"), cluster.shown("node2"))) == ["PRIM Ready", "SECOND Ready"]


def walk(seed: int, witness: bool, *, hurried: bool = False) -> Cluster:
    """The whole life. Hurried: what was done is heard of late, and processes die all the time."""
    chance = random.Random(seed * 7919)
    policy = chance.choice(("availability", "consistency"))
    default_primary = chance.choice(("alone", "lastprim", "node1", "node2"))
    ping = not witness or chance.random() < 0.3
    cluster = Cluster(seed, policy, ping=ping, witness=witness)
    cluster.talkative = chance.random() < 0.3
    cluster.default_primary, cluster.max_restarts = default_primary, chance.choice((3, 50))
    cluster.slow_done_s = 1.5 if hurried else cluster.slow_done_s
    resources.by_chance(cluster, seed)
    live(cluster, chance, HURRIED if hurried else FAULTS)
    return cluster


def begin_with_files(cluster: Cluster) -> None:
    """A first start that nobody said anything about, and a node whose directories are not empty."""
    cluster.machines["node2"].holds_files = True
    for name in cluster.machines:
        cluster.boot(name)
        cluster.command(name, ev.Start)
    cluster.run(1.0)
    cluster.command("node1", ev.Prim)
    cluster.command("node2", ev.Second)
    cluster.run(3.0)
    assert "moves them aside" in cluster.reason("node2")
    cluster.command("node2", ev.Second, fullsync=True)
    cluster.wait(20.0, node1="PRIM Ready", node2="SECOND Ready")


def live(cluster: Cluster, chance: random.Random, faults: Sequence[Fault]) -> None:
    """From the first start to peace."""
    if chance.random() < 0.1:
        begin_with_files(cluster)
    else:
        settle(cluster)
    for _ in range(chance.randrange(2, 14)):
        resources.disturb(cluster)
        disturb(cluster, chance, faults)
        cluster.run(chance.choice(PAUSES_S))
    make_peace(cluster)
    for _ in range(PEACE_STEPS):
        cluster.run(0.2)
        if is_well(cluster):
            break
    else:
        core = {name: vars(machine.rfs) for name, machine in cluster.machines.items()}
        states = {name: (cluster.shown(name), cluster.reason(name), core[name]) for name in cluster.machines}
        raise AssertionError(f"no peace: {states}\n" + "\n".join(cluster.trace[-100:]))
    cluster.run(0.5)
    if is_well(cluster):
        cluster.oracle.at_peace()

"""Resources that go down on one node, on both, for good or again and again: the service goes where it can be given, is never taken away
where nobody else could give it, and does not wander.
"""

from __future__ import annotations

import random

import pytest

from orchestrator.core import events as ev
from orchestrator.core.states import Hold, Readiness, State
from tests.sim import resources
from tests.sim.cluster import MODULE, Cluster, settle
from tests.sim.resources import FAR, NEAR, OWN, SERVED


def watched(seed: int = 0, *, max_restarts: int = 50, default_primary: str = "alone", **actions: str) -> Cluster:
    """A pair whose rules have these actions, in its healthy state."""
    cluster = Cluster(seed)
    cluster.rules, cluster.max_restarts, cluster.default_primary = resources.rules(**actions), max_restarts, default_primary
    settle(cluster)
    return cluster


def breaks(cluster: Cluster, resource: str, *names: str) -> None:
    for name in names:
        cluster.machines[name].down |= {resource}


def heals(cluster: Cluster, resource: str, *names: str) -> None:
    for name in names:
        cluster.machines[name].down -= {resource}


def moves(cluster: Cluster) -> int:
    """How often the role was given up so far."""
    return sum("DemoteRfs" in line for line in cluster.trace)


def stops(cluster: Cluster) -> int:
    """How often services were stopped."""
    return sum("StopServices" in line for line in cluster.trace)


def test_what_is_its_own_moves_the_role_and_nothing_moves_back() -> None:
    cluster = watched(own="wait")
    breaks(cluster, OWN, "node1")
    cluster.wait(15.0, node1="WAIT NotReady", node2="PRIM Ready")
    assert OWN in cluster.reason("node1")
    heals(cluster, OWN, "node1")
    cluster.wait(5.0, node1="SECOND Ready", node2="PRIM Ready")
    cluster.run(60.0)
    assert moves(cluster) == 1


@pytest.mark.parametrize("first", ["node1", "node2"])
@pytest.mark.parametrize("seed", range(4))
def test_with_it_down_on_both_nobody_serves_and_the_first_that_is_well_gets_the_role(seed: int, first: str) -> None:
    cluster = watched(seed, own="wait")
    breaks(cluster, OWN, "node1", "node2")
    cluster.wait(15.0, node1="WAIT NotReady", node2="WAIT NotReady")
    cluster.run(60.0)
    modes = {machine.rfs.mode for machine in cluster.machines.values()}
    assert "paired" in modes and not any(machine.services for machine in cluster.machines.values()), "the copies stay mirrored"
    heals(cluster, OWN, first)
    second = "node2" if first == "node1" else "node1"
    cluster.wait(15.0, **{first: "PRIM Ready", second: "WAIT NotReady"})
    assert moves(cluster) <= 2


@pytest.mark.parametrize("action", ["wait", "swap", "stop", "stopstart"])
def test_what_fails_for_both_at_almost_the_same_time_stops_neither(action: str) -> None:
    for seed, resource in enumerate((FAR, NEAR) if action == "wait" else (FAR,)):
        cluster = watched(seed, **{"near" if resource == NEAR else "far": action})
        for first, second in (("node1", "node2"), ("node2", "node1")):
            breaks(cluster, resource, first)
            cluster.run(resources.HOLD_S - 1.2)
            breaks(cluster, resource, second)
            cluster.run(20.0)
            assert (moves(cluster), stops(cluster)) == (0, 0), f"{resource} {action}"
            heals(cluster, resource, first)
            cluster.run(resources.HOLD_S - 1.2)
            heals(cluster, resource, second)
            cluster.run(20.0)
        assert cluster.shown("node1") == "PRIM Ready" and (moves(cluster), stops(cluster)) == (0, 0)


@pytest.mark.parametrize("action", ["wait", "swap"])
def test_who_alone_lacks_what_both_need_gives_way(action: str) -> None:
    cluster = watched(2, far=action)
    breaks(cluster, FAR, "node1")
    cluster.wait(15.0, node1="WAIT NotReady" if action == "wait" else "SECOND Ready", node2="PRIM Ready")
    breaks(cluster, FAR, "node2")  # nobody has it now
    cluster.run(30.0)
    assert cluster.shown("node2") == "PRIM Ready" and moves(cluster) == 1


def test_what_compares_takes_nothing_away_that_nobody_can_give() -> None:
    cluster = watched(3, far="wait", near="wait")
    cluster.power_off("node2")
    cluster.wait(10.0, node1="ALONE Ready")
    breaks(cluster, FAR, "node1")
    breaks(cluster, NEAR, "node1")
    cluster.run(30.0)
    assert cluster.shown("node1") == "ALONE Ready" and stops(cluster) == 0
    cluster.boot("node2")
    cluster.wait(40.0, node1="WAIT NotReady", node2="PRIM Ready")


def test_a_secondary_that_lacks_it_takes_over_when_the_primary_dies() -> None:
    cluster = watched(4, far="wait", near="wait")
    breaks(cluster, FAR, "node2")
    breaks(cluster, NEAR, "node2")
    cluster.wait(10.0, node1="PRIM Ready", node2="WAIT NotReady")
    cluster.power_off("node1")
    cluster.wait(12.0, node2="ALONE Ready")


def test_a_secondary_whose_own_is_down_does_not_until_it_is_well() -> None:
    cluster = watched(5, own="wait")
    breaks(cluster, OWN, "node2")
    cluster.wait(10.0, node1="PRIM Ready", node2="WAIT NotReady")
    cluster.power_off("node1")
    cluster.run(30.0)
    assert cluster.shown("node2") == "WAIT NotReady"
    heals(cluster, OWN, "node2")
    cluster.wait(10.0, node2="ALONE Ready")


def test_the_last_node_stops_serving_with_its_own_down_and_comes_back_by_itself() -> None:
    cluster = watched(6, own="wait")
    cluster.power_off("node2")
    cluster.wait(10.0, node1="ALONE Ready")
    breaks(cluster, OWN, "node1")
    cluster.wait(15.0, node1="WAIT NotReady")
    heals(cluster, OWN, "node1")
    cluster.wait(10.0, node1="ALONE Ready")


def test_both_down_and_swap_is_no_reason_to_wander() -> None:
    cluster = watched(7, own="swap")
    breaks(cluster, OWN, "node2")
    cluster.run(5.0)
    breaks(cluster, OWN, "node1")
    cluster.run(60.0)
    assert cluster.shown("node1") == "PRIM Ready" and moves(cluster) == 0
    heals(cluster, OWN, "node2")
    cluster.wait(15.0, node1="SECOND Ready", node2="PRIM Ready")
    cluster.run(60.0)
    assert moves(cluster) == 1


@pytest.mark.parametrize("default_primary", ["alone", "node1"])
@pytest.mark.parametrize("action", ["wait", "swap", "stopstart"])
def test_what_flaps_on_both_nodes_moves_the_role_only_so_often(action: str, default_primary: str) -> None:
    cluster = watched(8, max_restarts=3, default_primary=default_primary, own=action)
    chance = random.Random(8)
    for _ in range(45):
        breaks(cluster, OWN, chance.choice(("node1", "node2")))
        cluster.run(chance.choice((1.0, 3.0, 8.0)))
        heals(cluster, OWN, "node1", "node2")
        cluster.run(chance.choice((1.0, 3.0, 8.0)))
    assert moves(cluster) <= 2 * (3 + 1) + 3, "each node may fail four times, and give the role back three times"
    given_up = [name for name in cluster.machines if cluster.core(name).services_failed]
    assert given_up, "somebody has to look"
    for name in cluster.machines:
        cluster.command(name, ev.Start)
    cluster.run(30.0)
    assert sorted(cluster.shown(name) for name in cluster.machines) == ["PRIM Ready", "SECOND Ready"]


def test_services_that_fail_their_check_are_restarted_and_then_given_to_the_peer() -> None:
    cluster = watched(9, max_restarts=3, served="restart")
    breaks(cluster, SERVED, "node1")
    cluster.wait(60.0, node2="PRIM Ready")
    assert sum("RestartServices" in line for line in cluster.trace) == 3 and cluster.core("node1").services_failed
    assert stops(cluster) == 1, "the others stayed up"


def test_a_new_hactld_knows_nothing_and_disturbs_nothing() -> None:
    cluster = watched(10, own="wait", near="wait", far="wait", served="restart")
    stopped, run = stops(cluster), {name: len(machine.scripts) for name, machine in cluster.machines.items()}
    for name in ("node1", "node2"):
        cluster.kill_hactld(name)
        cluster.run(0.5)
        cluster.start_hactld(name)
        cluster.blind_until = cluster.now + 5.0
        cluster.run(8.0)
    assert cluster.shown("node1") == "PRIM Ready" and (stops(cluster), moves(cluster)) == (stopped, 0)
    for name, machine in cluster.machines.items():
        assert set(machine.scripts[run[name] :]) <= {"transition"}, "no point is left, and none entered"


def test_nothing_is_begun_before_the_first_word() -> None:
    cluster = Cluster(11)
    cluster.rules = resources.rules(own="wait")
    for name in cluster.machines:
        breaks(cluster, OWN, name)
        cluster.boot(name)
    cluster.run(1.0)
    cluster.command("node1", ev.Prim)
    cluster.command("node2", ev.Second)
    cluster.run(30.0)
    assert "StartServices" not in "".join(cluster.trace)
    heals(cluster, OWN, "node1")
    cluster.wait(15.0, node1="PRIM Ready", node2="WAIT NotReady")
    heals(cluster, OWN, "node2")
    cluster.wait(15.0, node1="PRIM Ready", node2="SECOND Ready")


def test_a_first_word_that_comes_late_is_waited_for() -> None:
    cluster = Cluster(16)
    cluster.rules, cluster.blind_until = resources.rules(own="wait"), 20.0
    for name in cluster.machines:
        cluster.boot(name)
    cluster.run(1.0)
    cluster.command("node1", ev.Prim)
    cluster.command("node2", ev.Second)
    cluster.run(15.0)
    assert cluster.shown("node1") == "WAIT Transient" and cluster.reason("node1") == f"waiting for the first word about {OWN}"
    assert "StartServices" not in "".join(cluster.trace)
    cluster.wait(15.0, node1="PRIM Ready", node2="SECOND Ready")


def test_what_stays_down_is_followed_once() -> None:
    cluster = watched(17, own="stopstart")
    cluster.power_off("node2")
    cluster.wait(10.0, node1="ALONE Ready")
    breaks(cluster, OWN, "node1")
    cluster.run(90.0)
    assert cluster.shown("node1") == "ALONE Ready" and stops(cluster) == 1


def test_the_administrators_switch_serves_nevertheless() -> None:
    cluster = watched(12, own="wait")
    breaks(cluster, OWN, "node1", "node2")
    cluster.wait(15.0, node1="WAIT NotReady", node2="WAIT NotReady")
    serving = "node1" if cluster.machines["node1"].rfs.role == "primary" else "node2"
    assert cluster.machines[serving].rfs.role == "primary"
    cluster.command(serving, ev.Switch, switch="checkers", value="off")
    cluster.wait(15.0, **{serving: "PRIM Ready"})
    assert cluster.machines[serving].memory.unchecked


def test_paused_nothing_moves() -> None:
    cluster = watched(13, own="swap", far="wait")
    for name in cluster.machines:
        cluster.command(name, ev.Switch, switch="failover", value="off")
    breaks(cluster, OWN, "node1")
    breaks(cluster, FAR, "node1")
    cluster.run(30.0)
    assert cluster.shown("node1") == "PRIM Ready" and moves(cluster) == 0
    for name in cluster.machines:
        cluster.command(name, ev.Switch, switch="failover", value="on")
    cluster.wait(15.0, node2="PRIM Ready")


@pytest.mark.parametrize("nosync", [False, True])
def test_who_may_not_serve_hands_over_by_a_word_while_nothing_moves_by_itself(nosync: bool) -> None:
    cluster = watched(13, own="wait")
    for name in cluster.machines:
        cluster.command(name, ev.Switch, switch="failover", value="off")
    breaks(cluster, OWN, "node1")
    cluster.wait(15.0, node1="WAIT NotReady", node2="SECOND Ready")
    for fullsync in (False, True):
        cluster.command("node1", ev.Second, fullsync=fullsync)
    cluster.command("node2", ev.Prim)
    cluster.run(5.0)
    assert (cluster.shown("node1"), cluster.shown("node2")) == ("WAIT NotReady", "SECOND Ready"), "it has the data, and keeps them"
    cluster.command("node1", ev.Swap, nosync=nosync)
    cluster.wait(15.0, node1="WAIT NotReady", node2="PRIM Ready")


def test_a_rule_that_stops_leaves_the_role_to_the_peer_and_stays_stopped() -> None:
    cluster = watched(14, own="stop")
    breaks(cluster, OWN, "node1")
    cluster.wait(20.0, node1="STOP NotReady", node2="ALONE Ready")
    heals(cluster, OWN, "node1")
    cluster.run(30.0)
    assert cluster.shown("node1") == "STOP NotReady"


def test_what_is_known_of_the_peer_is_what_it_knows() -> None:
    cluster = watched(15, own="none", far="none")
    breaks(cluster, FAR, "node2")
    cluster.run(5.0)
    core = cluster.machines["node1"].core
    assert core is not None
    said = core.peer_modules[MODULE]
    assert (said.state, said.readiness) == (State.SECOND, Readiness.READY) and said.down and not said.unfit
    assert cluster.core("node1").services is Hold.ON

"""The script points in SafeKit's order, whatever happens around them; light modules; an administrator's and a checker's words."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from orchestrator.core import actions as act
from orchestrator.core import events as ev
from orchestrator.core.failover_rules import Goal
from orchestrator.core.machine import step
from orchestrator.core.points import BY_STATE, due, move_of, wanted
from orchestrator.core.states import Hold, Lane, Level, Module, Move, Point, Readiness, Script, State
from tests.sim.cluster import Cluster, paired
from tests.unit.test_core_machine import node_with


def scripts_of(cluster: Cluster, name: str) -> list[str]:
    """What ran since the last look."""
    ran, cluster.machines[name].scripts = cluster.machines[name].scripts, []
    return ran


def without_announcements(scripts: list[str]) -> list[str]:
    return [name for name in scripts if name != "transition"]


def test_the_first_start() -> None:
    cluster = paired(1)
    assert without_announcements(scripts_of(cluster, "node1"))[:3] == ["prestart", "start_both", "start_prim"]
    assert without_announcements(scripts_of(cluster, "node2")) == ["prestart", "start_both", "start_second", "start_sec"]


def test_a_takeover_and_the_return() -> None:
    cluster = paired(2)
    cluster.run(5.0)
    scripts_of(cluster, "node2")
    cluster.power_off("node1")
    cluster.wait(10.0, node2="ALONE Ready")
    cluster.run(2.0)
    assert scripts_of(cluster, "node2") == ["stop_sec", "stop_second", "transition", "start_prim", "start_sec"]
    cluster.boot("node1")
    cluster.wait(30.0, node1="SECOND Ready", node2="PRIM Ready")
    cluster.run(2.0)
    assert scripts_of(cluster, "node2") == ["stop_sec", "transition"]


def test_a_swap() -> None:
    cluster = paired(3)
    cluster.run(5.0)
    for name in cluster.machines:
        scripts_of(cluster, name)
    cluster.command("node1", ev.Swap)
    cluster.wait(20.0, node1="SECOND Ready", node2="PRIM Ready")
    cluster.run(2.0)
    assert scripts_of(cluster, "node1") == ["stop_prim", "transition", "start_second", "start_sec"]
    assert scripts_of(cluster, "node2") == ["stop_sec", "stop_second", "transition", "start_prim"]


def test_a_stop_leaves_everything_inside_out() -> None:
    cluster = paired(4)
    cluster.run(5.0)
    scripts_of(cluster, "node1")
    cluster.command("node1", ev.Stop)
    cluster.wait(20.0, node1="STOP NotReady")
    assert without_announcements(scripts_of(cluster, "node1")) == ["stop_prim", "stop_both", "poststop"]
    assert not cluster.machines["node1"].entered
    cluster.command("node1", ev.Start)
    cluster.wait(30.0, node1="SECOND Ready")
    cluster.run(2.0)
    assert without_announcements(scripts_of(cluster, "node1")) == ["prestart", "start_both", "start_second", "start_sec"]


def test_a_role_that_is_lost_is_left_by_force() -> None:
    cluster = paired(5)
    cluster.run(5.0)
    cluster.trace.clear()
    cluster.kill_rfs("node1")
    cluster.wait(30.0, node2="PRIM Ready", node1="SECOND Ready")
    forced = [line for line in cluster.trace if "script='stop_prim'" in line and "node1" in line]
    assert len(forced) == 1 and "force=True" in forced[0]


def test_a_restarted_hactld_calls_nothing_twice() -> None:
    cluster = paired(6)
    cluster.run(5.0)
    scripts_of(cluster, "node1")
    cluster.kill_hactld("node1")
    cluster.run(1.0)
    cluster.start_hactld("node1")
    cluster.wait(10.0, node1="PRIM Ready")
    cluster.run(3.0)
    assert without_announcements(scripts_of(cluster, "node1")) == []


def test_prestart_that_fails_keeps_everything_down_and_says_so() -> None:
    cluster = paired(7)
    cluster.command("node2", ev.Stop)
    cluster.wait(20.0, node2="STOP NotReady")
    cluster.failing_scripts.add("prestart")
    cluster.command("node2", ev.Start)
    cluster.run(20.0)
    assert cluster.shown("node2") == "WAIT NotReady" and "prestart ended with exit code 1" in cluster.reason("node2")
    assert not cluster.machines["node2"].rfs.alive
    tries = scripts_of(cluster, "node2").count("prestart")
    assert 2 <= tries <= 12, "tried again, and not without end"
    cluster.failing_scripts.clear()
    cluster.wait(30.0, node2="SECOND Ready", node1="PRIM Ready")


def test_start_prim_that_fails_counts_and_hands_over() -> None:
    cluster = paired(8)
    cluster.run(5.0)
    cluster.max_restarts = 2
    cluster.kill_hactld("node1")
    cluster.start_hactld("node1")
    cluster.wait(10.0, node1="PRIM Ready")
    cluster.run(4.0)
    cluster.failing_scripts.add("start_prim")
    cluster.service_dies(cluster.machines["node1"])
    cluster.wait(30.0, node1="PRIM NotReady")
    cluster.failing_scripts.clear()
    cluster.wait(30.0, node2="PRIM Ready")


NOTED = ("start_second", "start_sec", "stop_sec", "stop_second", "stop_prim", "stop_both", "transition", "poststop")


@pytest.mark.parametrize("name", NOTED)
def test_other_scripts_that_fail_stop_nothing(name: str) -> None:
    cluster = paired(9)
    cluster.failing_scripts.add(name)
    cluster.command("node1", ev.Swap)
    cluster.wait(30.0, node1="SECOND Ready", node2="PRIM Ready")
    cluster.command("node1", ev.Stop)
    cluster.wait(30.0, node1="STOP NotReady", node2="ALONE Ready")
    cluster.command("node1", ev.Start)
    cluster.wait(40.0, node1="SECOND Ready", node2="PRIM Ready")


def test_every_step_comes_closer() -> None:
    """From whatever was entered, in whatever state: a finite number of scripts, in an order that `may_enter` and `may_leave` allow."""
    for state, level, services, light in itertools.product(State, Level, (Hold.OFF, Hold.ON), (False, True)):
        for number in range(2 ** len(Point)):
            entered = frozenset(point for index, point in enumerate(Point) if number >> index & 1)
            module = Module("pg", light=light, wanted=True, services=services, entered=entered, announced=state)
            goal = Goal(level)
            for _ in range(12):
                script = due(module, state, goal)
                if script is None:
                    break
                assert script.point is not None
                after = module.entered | {script.point} if script.entering else module.entered - {script.point}
                module = replace(module, entered=after)
            else:
                raise AssertionError(f"no end: {state} {level} {services} {entered}")
            if services is Hold.ON and Point.MODULE in entered and level is Level.SERVING:
                assert module.entered == wanted(module, state, goal)


def test_points_by_state_are_total() -> None:
    assert set(BY_STATE) == set(State)


def test_a_start_script_that_is_no_longer_wanted_is_cut_short() -> None:
    module = Module("pg", found=True, wanted=False, rfs=Hold.OFF, script=Script(Point.MODULE, True, State.WAIT), tickets={Lane.SCRIPTS: 1})
    _, actions = step(node_with(module), ev.Tick(100.0))
    assert [(action.script, action.ticket) for action in actions if isinstance(action, act.RunScript)] == [("poststop", 1)]


# ---- light modules -----------------------------------------------------------------------------------------------------------------


class Light:
    """One light module, every order carried out at once."""

    def __init__(self) -> None:
        self.node = node_with(Module("web", light=True, max_restarts=2), now=0.0)
        self.node = replace(self.node, modules={"web": Module("web", light=True, max_restarts=2)})
        self.orders: list[str] = []
        self.fails: set[str] = set()
        self.now = 0.0
        self.send(ev.Found(0.0, "web", False, False, False, False, False, False))

    def send(self, event: ev.Event) -> None:
        events = [event]
        while events:
            self.node, actions = step(self.node, events.pop(0))
            for action in actions:
                if isinstance(action, act.Ticketed):
                    name = action.script if isinstance(action, act.RunScript) else type(action).__name__
                    self.orders.append(name)
                    lane = act.LANE_OF[type(action)]
                    failed = ev.Failed(self.now, "web", lane, action.ticket, f"{name} fails")
                    events.append(failed if name in self.fails else ev.Done(self.now, "web", lane, action.ticket))

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds / 0.25)):
            self.now += 0.25
            self.send(ev.Tick(self.now))

    def shown(self) -> str:
        state, readiness = self.node.modules["web"].shown
        return f"{state.value} {readiness.value}"


def test_a_light_module_runs_and_ends() -> None:
    light = Light()
    assert light.shown() == "STOP NotReady"
    light.send(ev.Start(0.0, "web", 1))
    light.pass_time(1.0)
    assert light.shown() == "UP Ready"
    assert [name for name in light.orders if name not in ("transition", "VipUp")] == ["prestart", "start_both", "StartServices"]
    light.orders.clear()
    light.send(ev.Stop(0.0, "web", 2))
    light.pass_time(1.0)
    assert light.shown() == "STOP NotReady"
    assert [name for name in light.orders if name not in ("transition", "VipDown")] == ["StopServices", "stop_both", "poststop"]


def test_a_light_module_restarts_its_services_until_it_is_too_often() -> None:
    light = Light()
    light.send(ev.Start(0.0, "web", 1))
    light.pass_time(1.0)
    for _ in range(2):
        light.send(ev.ServiceDied(light.now, "web", "nginx", "it ended"))
        light.pass_time(2.0)
        assert light.shown() == "UP Ready"
    light.send(ev.ServiceDied(light.now, "web", "nginx", "it ended"))
    light.pass_time(2.0)
    assert light.shown() == "UP NotReady" and "hactl restart web" in light.node.reasons["web"]
    light.send(ev.Restart(light.now, "web", 3))
    light.pass_time(2.0)
    assert light.shown() == "UP Ready"


@pytest.mark.parametrize("kind", [ev.Swap, ev.Prim, ev.Second, ev.PeerAskedPromote, ev.PeerAskedOutdate])
def test_a_light_module_has_no_roles(kind: type[ev.Command]) -> None:
    light = Light()
    for running in (False, True):
        if running:
            light.send(ev.Start(0.0, "web", 1))
            light.pass_time(1.0)
        node, actions = step(light.node, kind(light.now, "web", 9))
        assert [action.code for action in actions if isinstance(action, act.Reply)] == [6]
        assert node.modules["web"].wanted is running


# ---- words --------------------------------------------------------------------------------------------------------------------------


def test_a_checkers_word_counts_and_one_too_many_gives_the_services_up() -> None:
    cluster = paired(20)
    cluster.max_restarts = 2
    cluster.kill_hactld("node1")
    cluster.start_hactld("node1")
    cluster.wait(10.0, node1="PRIM Ready")
    for _ in range(2):
        cluster.run(3.0)
        cluster.command("node1", ev.Restart, checker="web-check")
        cluster.run(3.0)
        assert cluster.replies[-1][0] == 0 and cluster.shown("node1") == "PRIM Ready"
    cluster.command("node1", ev.Restart, checker="web-check")
    cluster.wait(20.0, node2="PRIM Ready")
    assert any(code == 6 and "web-check asked for 'restart'" in said for code, said in cluster.replies)


def test_an_administrators_word_sets_the_count_back() -> None:
    node = node_with(Module("pg", found=True, restarts=(99.0, 99.5), max_restarts=2))
    node, actions = step(node, ev.Count(100.0, "pg", 1, "count", checker="loop"))
    assert [action.code for action in actions if isinstance(action, act.Reply)] == [1]
    _, actions = step(node, ev.Count(100.0, "pg", 2, "check"))
    assert [action.code for action in actions if isinstance(action, act.Reply)] == [1]
    node, actions = step(node, ev.Count(100.0, "pg", 3, "reset"))
    assert [action.message for action in actions if isinstance(action, act.Reply)] == ["0 failures of pg, 2 are allowed"]


def test_checkers_that_are_off_note_and_act_once_they_are_on() -> None:
    cluster = paired(21)
    cluster.command("node1", ev.Switch, switch="checkers", value="off")
    cluster.service_dies(cluster.machines["node1"])
    cluster.run(10.0)
    assert not cluster.machines["node1"].services
    assert "the checkers are off" in cluster.reason("node1")
    cluster.kill_hactld("node1")
    cluster.start_hactld("node1")
    cluster.run(3.0)
    assert cluster.machines["node1"].memory.unchecked, "over a restart"
    cluster.command("node1", ev.Switch, switch="checkers", value="on")
    cluster.wait(20.0, node1="PRIM Ready")
    cluster.run(3.0)
    assert cluster.machines["node1"].services


def test_the_whole_copy_of_the_peer_is_compared_when_that_is_said() -> None:
    cluster = paired(22)
    cluster.command("node1", ev.Prim, fullsync=True)
    cluster.run(1.0)
    assert any("RecopyRfs" in line for line in cluster.trace)
    assert cluster.core("node1").recopy is False


def test_swap_nosync_serves_the_old_copy_and_overwrites_nothing() -> None:
    cluster = paired(23)
    cluster.cut_network("repl")
    cluster.wait(20.0, node1="ALONE Ready")
    cluster.run(3.0)
    cluster.command("node1", ev.Swap)
    assert cluster.replies[-1][0] == 6, "without the word it is refused"
    cluster.forgive_old_data = True
    cluster.command("node1", ev.Swap, nosync=True)
    cluster.wait(30.0, node2="ALONE Ready")
    assert not cluster.machines["node1"].services
    record = cluster.machines["node1"].rfs.record
    assert record is not None and record.content >= cluster.acknowledged > 0
    before = record.content
    cluster.run(5.0)
    cluster.heal()
    cluster.run(20.0)
    one, two = (cluster.machines[name].rfs.record for name in ("node1", "node2"))
    assert one is not None and two is not None and one.content == before, "what only node1 has is still there"
    assert one.lineage != two.lineage and cluster.machines["node1"].rfs.link == "diverged"


def test_a_primary_that_was_cut_off_waits_for_a_peer_whose_rfsmount_is_not_there_yet() -> None:
    """The peer may have served meanwhile: that its rfsmount does not run (its node just boots) says nothing about its data."""
    cluster = paired(24)
    cluster.cut_network("lan", "repl", isolated="node1")
    cluster.wait(15.0, node2="ALONE Ready")
    cluster.run(5.0)
    cluster.power_off("node2")
    cluster.heal()
    cluster.boot("node2")
    cluster.machines["node2"].rfs.record, kept = None, cluster.machines["node2"].rfs.record  # rfsmount does not start before it is back
    cluster.failing_scripts.add("prestart")
    cluster.run(15.0)
    assert cluster.shown("node1") == "ALONE NotReady" and "may have served meanwhile" in cluster.reason("node1")
    cluster.machines["node2"].rfs.record = kept
    cluster.failing_scripts.clear()
    cluster.wait(60.0, node2="PRIM Ready", node1="SECOND Ready")


def test_moves_are_told_in_safekits_words() -> None:
    module = Module("pg", wanted=False, shown=(State.PRIM, Readiness.READY), announced=State.PRIM)
    assert move_of(module, Script(Point.PRIM, False, State.PRIM)) == Move("PRIM", "STOP", "stop")
    assert move_of(replace(module, wanted=True, cycling=True), Script(Point.PRIM, False, State.PRIM)) == Move("PRIM", "WAIT", "stopstart")
    assert move_of(replace(module, wanted=True, swapping=True), Script(Point.PRIM, False, State.PRIM)) == Move("PRIM", "SECOND", "swap")
    going = replace(module, wanted=True, shown=(State.SECOND, Readiness.READY), announced=State.SECOND)
    assert move_of(replace(going, announced=State.ALONE, came_from=State.SECOND), Script(Point.SEC, True, State.ALONE)).current == "SECOND"
    assert move_of(going, Script(Point.SECOND, False, State.ALONE)) == Move("SECOND", "ALONE", "stopwait")
    assert move_of(going, Script(Point.PRIM, True, State.ALONE)) == Move("SECOND", "ALONE", "start")
    assert move_of(going, Script(None, True, State.ALONE)) == Move("SECOND", "ALONE", "start")

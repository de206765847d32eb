"""What is imagined is what happens: each question is asked of a core, and then the simulator lets it happen to the same one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.core import events as ev
from orchestrator.core.what_if import QUESTIONS, Moment, imagine
from orchestrator.hactl.history_commands import IMAGINABLE
from tests.sim.cluster import MODULE, Cluster, paired
from tests.sim.resources import OWN
from tests.sim.test_resources import watched


def imagined(cluster: Cluster, name: str, what: str) -> tuple[tuple[Moment, ...], str]:
    core = cluster.machines[name].core
    assert core is not None
    moments, after = imagine(core, MODULE, what)
    assert cluster.machines[name].core is core, "nothing is touched"
    state, readiness = after.modules[MODULE].shown
    return moments, f"{state.value} {readiness.value}"


def other(name: str) -> str:
    return "node2" if name == "node1" else "node1"


HAPPEN: dict[str, Callable[[Cluster, str], None]] = {
    "peer-dies": lambda cluster, name: cluster.power_off(other(name)),
    "link-lost": lambda cluster, name: cluster.cut_network("repl"),
    "isolated": lambda cluster, name: cluster.cut_network("lan", "repl", isolated=name),
    "service-dies": lambda cluster, name: cluster.service_dies(cluster.machines[name]),
    "stop": lambda cluster, name: cluster.command(name, ev.Stop),
    "swap": lambda cluster, name: cluster.command(name, ev.Swap),
}


@pytest.mark.parametrize("name", ["node1", "node2"])
@pytest.mark.parametrize("what", HAPPEN)
def test_it_comes_as_imagined(what: str, name: str) -> None:
    cluster = paired(60)
    _, end = imagined(cluster, name, what)
    HAPPEN[what](cluster, name)
    cluster.run(12.0)
    assert cluster.shown(name) == end


def test_the_order_and_the_time_of_a_takeover() -> None:
    cluster = paired(61)
    moments, _ = imagined(cluster, "node2", "peer-dies")
    orders = [moment.text for moment in moments if moment.kind == "order"]
    assert orders == ["make this copy primary", "put the address up", "start the services"]
    assert all(2.0 <= moment.after_s <= 3.5 for moment in moments if moment.kind == "order")


@pytest.mark.parametrize(("action", "end"), [("wait", "WAIT NotReady"), ("stop", "STOP NotReady"), ("swap", "SECOND Ready")])
def test_a_resource_that_goes_down_and_stays_so(action: str, end: str) -> None:
    cluster = watched(64, own=action)
    core = cluster.machines["node1"].core
    assert core is not None
    moments, after = imagine(core, MODULE, "resource-down", OWN)
    state, readiness = after.modules[MODULE].shown
    assert "stop the services" in [moment.text for moment in moments]
    cluster.machines["node1"].down |= {OWN}
    cluster.run(15.0)
    assert f"{state.value} {readiness.value}" == cluster.shown("node1") == end


def test_paused_it_would_wait() -> None:
    cluster = paired(62)
    cluster.command("node2", ev.Switch, switch="failover", value="off")
    moments, end = imagined(cluster, "node2", "peer-dies")
    assert end == "WAIT NotReady" and not [moment for moment in moments if moment.kind == "order"]


@pytest.mark.parametrize("what", QUESTIONS)
def test_every_question_ends_in_every_state(what: str) -> None:
    cluster = Cluster(63)
    cluster.boot("node1")
    imagined(cluster, "node1", what)
    cluster.command("node1", ev.Start)
    cluster.run(3.0)
    imagined(cluster, "node1", what)
    cluster.command("node1", ev.Prim)
    cluster.run(5.0)
    imagined(cluster, "node1", what)


def test_hactl_offers_what_there_is() -> None:
    assert set(IMAGINABLE) == set(QUESTIONS)

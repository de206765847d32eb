"""`hactl checkers`, the rules in `hactl why`, and `hactl simulate resource-down`: what they print, and what they ask."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.unit.test_hactl_cli import STATUS, FakeHactld, Hactl, asked_for, hactl, hactld

__all__ = ["hactl", "hactld"]  # fixtures

HERE = [
    {"resource": "tcp.db", "state": "down", "text": "127.0.0.1:5432 refuses connections", "since_s": 61.0},
    {"resource": "ping.gw", "state": "up", "text": "", "since_s": 3.0},
]
THERE = [{"resource": name, "state": state, "text": "", "since_s": None} for name, state in (("tcp.db", "unknown"), ("ping.gw", "up"))]
RULES = [
    {
        "name": "tcp.db", "default": True, "action": "restart", "services": ["postgres"], "hold_s": 0.0, "holds": True, "held_s": 61.0,
        "acted": True, "why_not": "", "all": [{"term": "tcp.db is down", "holds": True}], "any": [],
    },
    {
        "name": "far", "default": False, "action": "swap", "services": [], "hold_s": 30.0, "holds": True, "held_s": 2.0, "acted": False,
        "why_not": "it has to hold for 30 s", "all": [], "any": [{"term": "remote.ping.gw is up", "holds": True}],
    },
    {
        "name": "ping.gw", "default": True, "action": "wait", "services": [], "hold_s": 15.0, "holds": False, "held_s": 0.0, "acted": False,
        "why_not": "", "all": [{"term": "ping.gw is down", "holds": False}, {"term": "remote.ping.gw is up", "holds": True}], "any": [],
    },
]  # fmt: skip
WHY = {
    "schema": "hactl.why/1", "node": "node1", "module": "pg", "state": "PRIM", "readiness": "Ready", "reason": "", "questions": [],
    "rules": RULES, "evidence": {}, "decisions": [],
}  # fmt: skip
IMAGINED = {
    "schema": "hactl.simulate/1", "node": "node1", "module": "pg", "what": "resource-down", "resource": "tcp.db",
    "moments": [{"after_s": 0.0, "kind": "order", "text": "stop the services"}], "state": "PRIM", "readiness": "Ready", "reason": "",
}  # fmt: skip


@pytest.fixture
def watched(hactld: FakeHactld) -> FakeHactld:
    status: dict[str, Any] = copy.deepcopy(STATUS)
    one, two = status["modules"][0]["nodes"]
    one["checkers"], two["checkers"] = HERE, THERE
    hactld.answers["/v1/status"] = [(200, status)]
    hactld.answers["/v1/modules/pg/why"] = [(200, WHY)]
    hactld.answers["/v1/modules/pg/checkers-off"] = [(200, {"code": 0, "message": "off", "results": []})]
    hactld.answers["/v1/modules/pg/simulate"] = [(200, IMAGINED)]
    return hactld


@pytest.mark.parametrize("words", [(), ("pg",)])
def test_every_resource_on_each_node(watched: FakeHactld, hactl: Hactl, words: tuple[str, ...]) -> None:
    code, out, err = hactl("checkers", *words)
    assert (code, err) == (0, "")
    assert [line.split(maxsplit=5) for line in out.splitlines()] == [
        ["MODULE", "NODE", "RESOURCE", "STATE", "SINCE", "FOUND"],
        ["pg", "node1", "tcp.db", "down", "1m", "1s  127.0.0.1:5432 refuses connections"],
        ["pg", "node1", "ping.gw", "up", "3s", "-"],
        ["pg", "node2", "tcp.db", "unknown", "-", "-"],
        ["pg", "node2", "ping.gw", "up", "-", "-"],
    ]


def test_the_same_for_programs(watched: FakeHactld, hactl: Hactl) -> None:
    document = json.loads(hactl("checkers", "--json")[1])
    assert document["schema"] == "hactl.checkers/1" and len(document["checkers"]) == 4
    assert document["checkers"][0] == {"module": "pg", "node": "node1", **HERE[0]}
    assert [json.loads(line)["resource"] for line in hactl("checkers", "-o", "jsonl")[1].splitlines()][:2] == ["tcp.db", "ping.gw"]


def test_the_switch_and_what_is_neither(watched: FakeHactld, hactl: Hactl) -> None:
    assert hactl("checkers", "off", "--yes")[0] == 0 and asked_for(watched) == ["/v1/modules/pg/checkers-off"]
    assert hactl("checkers", "on", "pg", "web")[0] == 2
    code, _, err = hactl("checkers", "web")
    assert code == 2 and "web" in err


def test_why_shows_the_rules_in_their_language(watched: FakeHactld, hactl: Hactl) -> None:
    code, out, _ = hactl("why", "pg")
    assert code == 0
    lines = [line for line in out.splitlines() if line]
    assert lines[1:-1] == [
        "Rule tcp.db (default): restart of postgres. It holds for 61 s, was followed.",
        "  yes  all: tcp.db is down",
        "Rule far: swap, after 30 s. It holds for 2 s, not followed: it has to hold for 30 s.",
        "  yes  any: remote.ping.gw is up",
        "Rule ping.gw (default): wait, after 15 s. It does not hold.",
        "  NO   all: ping.gw is down",
        "  yes  all: remote.ping.gw is up",
    ]
    assert json.loads(hactl("why", "pg", "--json")[1])["rules"] == RULES


def test_a_resource_that_goes_down_has_a_name(watched: FakeHactld, hactl: Hactl) -> None:
    code, out, _ = hactl("simulate", "resource-down", "--resource", "tcp.db")
    assert code == 0 and out.splitlines()[0] == "pg on node1, if resource-down tcp.db:"
    assert any("what=resource-down" in target and "resource=tcp.db" in target for _, target, _ in watched.asked)
    for words in (("simulate", "resource-down"), ("simulate", "swap", "--resource", "tcp.db")):
        code, _, err = hactl(*words)
        assert code == 2 and "--resource TYPE.NAME" in err

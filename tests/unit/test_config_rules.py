"""`[[rule]]` in a module's file: every fault at once, each with its line and the next step; and the rules that checkers bring along."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.checkers.automatic import automatic, with_automatic
from orchestrator.config import CheckerConfig, ReplicatedConfig, VipConfig, load_cluster, load_modules
from orchestrator.config_errors import ConfigError
from orchestrator.core.rules_language import parse
from orchestrator.rules import default_rule, rules_of
from tests.unit.test_config import MODULE, write

LIGHT = 'mode = "light"\n[[service]]\nunit = "nginx"\n'


def complaints(tmp_path: Path, text: str) -> list[str]:
    write(tmp_path, pg=text)
    with pytest.raises(ConfigError) as error:
        load_modules(tmp_path, load_cluster(tmp_path))
    return [f"{complaint.key}: {complaint.sentence}" for complaint in error.value.complaints]


def rule(**keys: object) -> str:
    lines = [f"{key} = {value!r}".replace("'", '"') for key, value in keys.items()]
    return "\n".join(["[[rule]]", *lines, ""])


def test_every_fault_is_found_at_once(tmp_path: Path) -> None:
    text = MODULE + "".join(
        (
            rule(name="one", all=["disk.spaces is down", "disk.space is donw"], action="stop"),
            rule(name="one", action="restart"),
            rule(name="two", all=["disk.space is up"], any=["disk.space is down", "disk.space is init"], action="swap", hold="soon"),
            rule(name="three", all=["disk.space is up"], any=["disk.space is down", "disk.space is init"], action="swap"),
            rule(name="four", all=["disk.space is down"], action="swap", services=["postgres"]),
            rule(name="five", all=["disk.space is down"], action="restart", services=["postgers"]),
            rule(name="si x", all=["disk.space is down"], action="retsart"),
            rule(name="seven", all=["http.* is down"], action="stop", holds="3s"),
        )
    )
    found = complaints(tmp_path, text)
    wanted = (
        'rule[1].all[1]: no checker here watches "disk.spaces". Did you mean "disk.space"?',
        'rule[1].all[2]: "donw" is not a state; there are init, up, down, unknown. Did you mean "down"?',
        'rule[2].name: two rules are called "one"; the names tell them apart.',
        'rule[2]: says not when; give all = ["…"] or any = ["…"].',
        'rule[3].hold: "soon" is not a duration; write for example 500ms, 3s, 5m or 24h.',
        'rule[4].all: can never hold: "disk.space is up" and "disk.space is down" and "disk.space is init" cannot be so together.',
        'rule[5].services: says what is restarted, and action is "swap"; write action = "restart", or remove it.',
        'rule[6].services: the module has no service "postgers"; it has postgres. Did you mean "postgres"?',
        'rule[7].name: "si x" cannot be a rule\'s name; use letters, digits and "_.:@-".',
        'rule[7].action: "retsart" is not one of: wait, stop, stopstart, restart, swap, none. Did you mean "restart"?',
        'rule[8].holds: is not a key that is known here. Did you mean "hold"?',
        'rule[8].all[1]: nothing here is watched as http.*.',
    )
    assert sorted(found) == sorted(wanted)


def test_a_light_module_has_no_peer(tmp_path: Path) -> None:
    found = complaints(tmp_path, LIGHT + rule(name="a", all=["disk.space is down"], action="swap"))
    assert found == [
        'rule[1].all[1]: no checker here watches "disk.space".',
        'rule[1].action: a light module moves nowhere; write "restart", "stopstart", "stop" or "wait".',
    ]


def test_a_rule_of_the_file_stands_in_the_place_of_the_default(tmp_path: Path) -> None:
    text = MODULE + rule(name="disk.space", all=["disk.space is down"], action="stopstart", hold="30s") + rule(
        name="far", all=["interface.* is down", "remote.interface.* is up"], action="swap"
    )
    write(tmp_path, pg=text)
    config = load_modules(tmp_path, load_cluster(tmp_path))["pg"]
    rules = {each.name: each for each in rules_of(config)}
    assert list(rules) == ["interface.192.0.2.100", "disk.space", "far"]
    assert (rules["disk.space"].action, rules["disk.space"].hold_s, rules["disk.space"].is_default) == ("stopstart", 30.0, False)
    assert rules["far"].text == "interface.192.0.2.100 is down and remote.interface.192.0.2.100 is up"
    assert rules["interface.192.0.2.100"].text == "interface.192.0.2.100 is down and remote.interface.192.0.2.100 is not down"
    assert rules["interface.192.0.2.100"].action == "wait" and rules["interface.192.0.2.100"].is_default


def test_checkers_that_come_by_themselves() -> None:
    vips = (VipConfig("192.0.2.100/24"), VipConfig("192.0.2.101/24", check=False), VipConfig("fd00::5/64", interface="eth7"))
    found = automatic(vips, (ReplicatedConfig("/srv/data"),))
    assert [checker.resource for checker in found] == ["interface.192.0.2.100", "interface.eth7", "disk.space"]
    assert [checker.action for checker in found] == ["wait", "wait", "none"]
    own = CheckerConfig("disk", "space", "pre", "stop")
    assert with_automatic((own,), (), (ReplicatedConfig("/srv/data"),)) == (own,)
    assert automatic((), ()) == ()


def test_default_rules_by_what_is_watched() -> None:
    own = default_rule(CheckerConfig("tcp", "db", "prim", "restart", services=("db",)))
    assert (own.text, own.hold_s, own.services, own.compares) == ("tcp.db is down", 0.0, ("db",), False)
    shared = default_rule(CheckerConfig("ping", "gw", "pre", "swap", interval_s=2.0, timeout_s=1.0, fall=3, shared=True))
    assert shared.text == "ping.gw is down and remote.ping.gw is up" and shared.compares
    assert shared.hold_s == 9.0, "the peer needs that long for a verdict of its own"
    assert all(parse(str(term)) == term for term in (*own.terms, *shared.terms))


CHECKERS = """[[checker]]
type = "tcp"
name = "db"
to = "127.0.0.1:5432"
[[checker]]
type = "process"
name = "db"
process = "postgres"
[[checker]]
type = "tcp"
name = "far"
to = "192.0.2.1:80"
when = "both"
"""


@pytest.mark.parametrize("action", ["stop", "swap", "restart", "stopstart"])
@pytest.mark.parametrize(
    ("terms", "place", "better"),
    [
        ({"all": ["tcp.db is not up"]}, "all", "tcp.db is down"),
        ({"all": ["local.tcp.db is unknown"]}, "all", "tcp.db is down"),
        ({"all": ["tcp.db is not down"]}, "all", "tcp.db is up"),
        ({"any": ["disk.space is down", "tcp.db is not up"]}, "any", "tcp.db is down"),
        ({"all": ["disk.space is down", "process.* is not up"]}, "all", "process.db is down"),
        ({"all": ["tcp.far is not up"]}, "all", "tcp.far is down"),
        ({"all": ["tcp.far is up", "tcp.db is not up"]}, "all", "tcp.db is down"),
    ],
)
def test_what_is_so_where_nobody_looks_would_stop_what_does_not_serve(
    tmp_path: Path, action: str, terms: dict[str, list[str]], place: str, better: str
) -> None:
    (found,) = complaints(tmp_path, MODULE + CHECKERS + rule(name="r", action=action, **terms))
    assert found.startswith(f"rule[1].{place}: ") and "is so as well while nobody looks" in found
    assert found.endswith(f'; write "{better}", or look at it with when = "pre".')


@pytest.mark.parametrize(
    "terms",
    [
        {"all": ["tcp.db is down"]},
        {"all": ["disk.space is not up"]},  # it is looked at all the time
        {"all": ["tcp.db is not up", "tcp.db is not unknown"]},
        {"all": ["process.db is up", "tcp.db is not up"]},  # the one is looked at whenever the other is
        {"all": ["process.db is up", "tcp.far is not up"]},
        {"all": ["process.db is up"], "any": ["tcp.db is init", "tcp.db is not up"]},
        {"all": ["disk.space is down", "remote.disk.space is not down"]},
    ],
)
def test_what_is_so_only_where_somebody_looks(tmp_path: Path, terms: dict[str, list[str]]) -> None:
    write(tmp_path, pg=MODULE + CHECKERS + rule(name="r", action="stopstart", **terms))
    assert load_modules(tmp_path, load_cluster(tmp_path))["pg"].rules


def test_a_rule_that_only_warns_may_say_anything(tmp_path: Path) -> None:
    write(tmp_path, pg=MODULE + CHECKERS + rule(name="r", action="none", all=["tcp.db is not up"]))
    assert load_modules(tmp_path, load_cluster(tmp_path))["pg"].rules

"""`[[checker]]` tables: what is left out, and everything that is wrong with them, said at once with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from orchestrator.checkers.models import KINDS, CheckerModel, build_checker, kind_of, usual_action
from orchestrator.checkers.targets import Endpoint, Free, Url, name_from, parse_endpoint, parse_free, parse_status, parse_url
from orchestrator.config import CheckerAction, CheckerConfig, When, load_cluster, load_modules
from orchestrator.config_errors import ConfigError
from tests.unit.test_config import MODULE, complaints_of_modules, write

LEAST: dict[str, dict[str, Any]] = {
    "process": {"process": "postgres"},
    "service": {"unit": "postgresql@15-main.service"},
    "tcp": {"to": "127.0.0.1:5432"},
    "ping": {"to": "192.0.2.1"},
    "interface": {"network": "lan"},
    "ip": {"address": "192.0.2.100"},
    "http": {"url": "http://127.0.0.1:8080/health?deep=1"},
    "script": {"program": "/usr/local/bin/check_orders"},
    "module": {"module": "db"},
    "disk": {},
    "write": {},
    "custom": {"name": "queue"},
}
LIGHT = 'mode = "light"\n[[service]]\nname = "x"\nstart = ["/bin/x"]\n'


def built(kind: str, vips: tuple[str, ...] = ("192.0.2.100",), light: bool = False, **keys: object) -> CheckerConfig:
    return build_checker(TypeAdapter(CheckerModel).validate_python({"type": kind, **LEAST[kind], **keys}), vips, light)


def said_of(tmp_path: Path, *checkers: str, module: str = MODULE) -> list[str]:
    """The complaints, with the lines counted from the first checker."""
    above = len(module.splitlines())
    said = complaints_of_modules(tmp_path, pg=module + "".join(f"[[checker]]\n{checker}\n" for checker in checkers))
    return [f"{int(line.partition(':')[0]) - above}{line[line.index(':') :]}" for line in said]


@pytest.mark.parametrize(
    ("kind", "resource", "when", "action", "shared"),
    [
        ("process", "process.postgres", "prim", "restart", False),
        ("service", "service.postgresql@15-main", "prim", "restart", False),
        ("tcp", "tcp.127.0.0.1:5432", "prim", "restart", False),
        ("ping", "ping.192.0.2.1", "pre", "wait", True),
        ("interface", "interface.lan", "pre", "wait", False),
        ("ip", "ip.192.0.2.100", "prim", "stopstart", False),
        ("http", "http.127.0.0.1:8080-health", "prim", "restart", False),
        ("script", "script.check_orders", "prim", "none", False),
        ("module", "module.db", "pre", "wait", False),
        ("disk", "disk.space", "pre", "none", False),
        ("write", "write.mirror", "prim", "stopstart", False),
        ("custom", "custom.queue", "prim", "none", False),
    ],
)
def test_what_is_left_out(kind: str, resource: str, when: str, action: str, shared: bool) -> None:
    config = built(kind)
    assert (config.resource, config.when, config.action, config.shared) == (resource, when, action, shared)
    assert (config.rise, config.fall, config.services) == (1, 1, ())


def test_the_table_of_kinds_is_whole() -> None:
    (union, _) = get_args(CheckerModel)
    assert set(get_args(union)) == set(KINDS.values()) and set(LEAST) == set(KINDS)
    for kind, model in KINDS.items():
        assert get_args(model.model_fields["type"].annotation) == (kind,)
        assert kind_of(TypeAdapter(CheckerModel).validate_python({"type": kind, **LEAST[kind]})) == kind


def test_own_keys() -> None:
    assert built("process", name="main", user="postgres", at_most=3).options == {
        "process": "postgres", "name_regex": None, "argument_regex": None, "user": "postgres", "at_least": 1, "at_most": 3,
    }  # fmt: skip
    by_name = build_checker(TypeAdapter(CheckerModel).validate_python({"type": "process", "name": "nginx"}))
    assert by_name.resource == "process.nginx" and by_name.options["process"] == "nginx"
    by_regex = build_checker(TypeAdapter(CheckerModel).validate_python({"type": "process", "name": "app", "argument_regex": "-jar app"}))
    assert by_regex.resource == "process.app" and by_regex.options["process"] is None
    assert built("http").options["status"] == ("2xx", "3xx") and built("http", status=204).options["status"] == ("204",)
    assert built("ping", to=["192.0.2.1", "2001:DB8::1"], need="all").options == {"to": ("192.0.2.1", "2001:db8::1"), "need": "all"}
    assert built("write").timeout_s == 40.0 and built("disk").interval_s == 30.0 and built("tcp", interval="500ms").interval_s == 0.5


def test_what_lies_elsewhere_is_shared_and_looked_at_on_both_nodes() -> None:
    for there in ("10.0.0.5:389", "ldap.example:389"):
        config = built("tcp", to=there)
        assert (config.shared, config.when, config.action) == (True, "pre", "wait")
    for here in ("192.0.2.100:389", "localhost:389", "[::1]:389"):
        config = built("tcp", to=here)
        assert (config.shared, config.when, config.action) == (False, "prim", "restart")
    assert built("http", url="https://idp.example/").shared and not built("http", url="http://192.0.2.100/").shared
    assert built("module", node="any").shared and built("module", node="node2").shared
    assert not built("ping", shared=False).shared and not built("ping", light=True).shared
    asked = built("script", shared=True)
    assert (asked.shared, asked.when, asked.action) == (True, "pre", "none")


def test_what_was_started_a_moment_ago_has_time() -> None:
    assert {kind: built(kind).grace_s for kind in LEAST if built(kind).grace_s} == dict.fromkeys(
        ("process", "service", "tcp", "http", "script"), 10.0
    )
    assert built("tcp", when="pre").grace_s == 0.0 and built("tcp", when="pre", grace="3s").grace_s == 3.0


def test_the_usual_action_can_work_in_every_window() -> None:
    for usual in get_args(CheckerAction):
        for when in get_args(When):
            action = usual_action(usual, when)
            assert action != "wait" or when == "pre"
            assert action != "restart" or when == "prim"
            assert (action == "none") == (usual == "none")


def test_a_module_with_checkers(tmp_path: Path) -> None:
    written = '[[checker]]\ntype = "tcp"\nto = "127.0.0.1:5432"\naction = "restart"\nservices = ["postgres"]\n[[checker]]\ntype = "ping"\n'
    write(tmp_path, pg=MODULE + written + 'to = "192.0.2.1"\naction = "swap"\nfall = 3\n')
    tcp, ping, *automatic = load_modules(tmp_path, load_cluster(tmp_path))["pg"].checkers
    assert [checker.resource for checker in automatic] == ["interface.192.0.2.100", "disk.space"]
    options = {"to": "127.0.0.1:5432", "source": None}
    assert tcp == CheckerConfig("tcp", "127.0.0.1:5432", "prim", "restart", services=("postgres",), options=options, grace_s=10.0)
    assert (ping.resource, ping.when, ping.action, ping.fall, ping.shared) == ("ping.192.0.2.1", "pre", "swap", 3, True)


def test_everything_that_is_wrong_at_once(tmp_path: Path) -> None:
    """The golden file of bad checkers: values first, then what remains is looked at together."""
    said = said_of(
        tmp_path,
        'type = "tpc"\nto = "127.0.0.1:1"',
        'to = "127.0.0.1:1"',
        'type = "tcp"\nto = "127.0.0.1"\nintervall = "10s"',
        'type = "tcp"\nto = "127.0.0.1:5432"\naction = "wait"\nwhen = "prim"',
        'type = "http"\nurl = "ftp://x/"\nstatus = [200, "2yy"]\nrise = 0',
        'type = "process"\nname_regex = "("\ninterval = "10ms"\ntimeout = "1"',
        'type = "process"',
        'type = "process"\nprocess = "a"\nname_regex = "b"\nat_least = 3\nat_most = 2',
        'type = "ping"\nto = ["192.0.2.1", "router"]',
        'type = "ping"\nto = "192.0.2.1"\nwhen = "prim"\naction = "stopstart"',
        'type = "tcp"\nname = "db"\nto = "127.0.0.1:5432"\nservices = ["postgre"]',
        'type = "tcp"\nname = "db"\nto = "127.0.0.1:5433"\naction = "swap"\nservices = ["postgres"]',
        'type = "ip"\naddress = "192.0.2.101"\nwhen = "pre"\naction = "wait"',
        'type = "interface"',
        'type = "interface"\nnetwork = "lam"\ninterface = "eth0"',
        'type = "module"\nmodule = "pg"\nnode = "nod1"',
        'type = "module"\nmodule = "db"',
        'type = "write"\ndirectories = ["/srv/pg_wall"]\nshared = true',
        'type = "disk"\nmin_free = "5 percent"',
        'type = "script"\nprogram = "../x"\nwhen = "second"\naction = "swap"',
        'type = "custom"',
    )
    kinds = "process, service, tcp, ping, interface, ip, http, script, module, disk, write, custom"
    assert said == [
        f'2: checker[1].type: "tpc" is not one of: {kinds}. Did you mean "tcp"?',
        "4: checker[2].type: is missing.",
        '8: checker[3].to: "127.0.0.1" is not a place to connect to; write for example 127.0.0.1:5432 or [::1]:5432.',
        '9: checker[3].intervall: is not a key that is known here. Did you mean "interval"?',
        '13: checker[4].action: "wait" works with when = "pre" only: in "prim" nobody looks while the node waits, so it would never go on. '
        'Write when = "pre", or action = "stopstart" or "swap".',
        '17: checker[5].url: "ftp://x/" is not a URL that can be asked for; write for example http://127.0.0.1:8080/health.',
        '18: checker[5].status[2]: "2yy" is not an HTTP status; write for example 200 or "2xx".',
        "19: checker[5].rise: 0 must be between 1 and 100: so many looks in a row make a verdict.",
        '22: checker[6].name_regex: "(" is not a regular expression: missing ), unterminated subpattern at position 0.',
        "23: checker[6].interval: more often than every 200ms loads the machine for nothing.",
        '24: checker[6].timeout: "1" is not a duration; write for example 500ms, 3s, 5m or 24h.',
        "25: checker[7]: says not which process; give process, name_regex, argument_regex or user.",
        "30: checker[8].name_regex: cannot be given together with process; one of them is enough.",
        "32: checker[8].at_most: 2 is less than at_least, which is 3.",
        '35: checker[9].to[2]: "router" is not an IP address.',
        "39: checker[10].when: what both nodes depend on must be looked at on both, or there is nothing to compare: "
        '"prim" is never open on both. Write when = "pre" or "both", or shared = false if only this node\'s view counts.',
        '45: checker[11].services: the module has no service "postgre"; it has postgres. Did you mean "postgres"?',
        '46: checker[12]: two checkers are called tcp.db; give one a name = "…" of its own.',
        '51: checker[12].services: says what is restarted, and action is "swap"; write action = "restart", or remove it.',
        "54: checker[13].address: 192.0.2.101 is no service address of this module; it has 192.0.2.100. "
        'Did you mean "192.0.2.100"?',
        '55: checker[13].when: "pre" makes no sense for ip, which only the primary can see; write when = "prim", or leave it out.',
        "57: checker[14]: says not which interface; give its name (interface = \"eth0\"), a network of the cluster, or a service address.",
        "61: checker[15].network: cannot be given together with interface; one of them says which interface.",
        '61: checker[15].network: the cluster has no network "lam" on all of the module\'s nodes; it has lan and repl. Did you mean "lan"?',
        "65: checker[16].module: is this module itself; name another one.",
        '66: checker[16].node: the cluster has no node "nod1"; write "here", "any", or one of node1 and node2. Did you mean "node1"?',
        '69: checker[17].module: there is no module "db"; there is no other.',
        "72: checker[18].directories: /srv/pg_wall is no directory of this module; it mirrors /var/lib/postgresql/15/main and /srv/pg_wal. "
        'Did you mean "/srv/pg_wal"?',
        "73: checker[18].shared: only the primary can see a write, so there is nothing to compare; remove it.",
        '76: checker[19].min_free: "5 percent" is neither a part nor a size; write for example 5% or 1GiB.',
        '79: checker[20].program: "../x" must be an absolute path, or the name of a program beside the module\'s file.',
        "82: checker[21].name: is missing; whoever says how it is must call it something.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("checker", "expected"),
    [
        ('type = "script"\nprogram = "x"\nwhen = "second"\naction = "swap"', '5: checker[1].action: "swap" is for who serves'),
        ('type = "process"\nname = "x"\nwhen = "second"\naction = "restart"', '"restart" has nothing to restart in "second", where'),
        ('type = "process"\nname = "x"\nwhen = "pre"\naction = "restart"', 'write when = "prim", or action = "wait".'),
        ('type = "http"\nurl = "http://127.0.0.1/"\nverify = false', "4: checker[1].verify: is about https, and the URL is http."),
        ('type = "tcp"\nto = "127.0.0.1:1"\nsource = "lan"', '4: checker[1].source: "lan" is not an IP address.'),
        ('type = "module"\nmodule = "x"\nstates = ["PRIME"]', '4: checker[1].states[1]: "PRIME" is not one of: WAIT, ALONE, PRIM, SECOND'),
        ('type = "module"\nmodule = "x"\nstates = []', "4: checker[1].states: is empty; give at least one."),
        ('type = "ping"\nto = []', "3: checker[1].to: is empty; give at least one."),
        ('type = "ping"\nto = 5', '3: checker[1].to[1]: must be text in quotes, not 5.'),
        ('type = "tcp"\nto = "127.0.0.1:1"\nname = "a b"', '4: checker[1].name: "a b" cannot be a name; use letters, digits'),
        ('type = "tcp"\nto = "127.0.0.1:1"\naction = "reboot"', '"reboot" is not one of: wait, stop, stopstart, restart, swap, none.'),
        ('type = "tcp"\nto = "127.0.0.1:1"\nwhen = "primary"', '"primary" is not one of: pre, prim, second, both. Did you mean "prim"?'),
        ("type = 5", '2: checker[1].type: "5" is not one of: process,'),
        ('type = "disk"\ndirectories = ["srv"]', '3: checker[1].directories[1]: "srv" is not an absolute path.'),
    ],
)  # fmt: skip
def test_one_mistake(tmp_path: Path, checker: str, expected: str) -> None:
    said = said_of(tmp_path, checker)
    assert any(expected in complaint for complaint in said), said


def test_checkers_that_are_no_tables(tmp_path: Path) -> None:
    assert complaints_of_modules(tmp_path, pg="checker = 5\n" + MODULE) == ["1: checker: must be a list in [ ], not 5."]
    assert complaints_of_modules(tmp_path, pg="checker = [5]\n" + MODULE) == ["1: checker[1]: must be a table, not 5."]


def test_a_wrong_checker_does_not_hide_what_another_table_says(tmp_path: Path) -> None:
    """A service that is wrong is there all the same, and is not missing as well."""
    bad = MODULE.replace('stop_signal = "INT"', 'stop_signal = "INTT"')
    said = said_of(tmp_path, 'type = "tcp"\nto = "127.0.0.1:1"\nservices = ["postgres"]', 'type = "x"', module=bad)
    assert len(said) == 2 and "stop_signal" in said[0] and 'checker[2].type: "x" is not one of' in said[1]


def test_a_light_module(tmp_path: Path) -> None:
    said = said_of(
        tmp_path,
        'type = "tcp"\nto = "127.0.0.1:1"\nwhen = "second"\naction = "swap"',
        'type = "ping"\nto = "192.0.2.1"\nshared = true',
        'type = "ip"\naddress = "192.0.2.100"',
        'type = "write"',
        module=LIGHT,
    )
    assert said == [
        '4: checker[1].when: a light module has no secondary; write when = "prim" or "pre".',
        '5: checker[1].action: a light module moves nowhere; write action = "restart" or "stopstart".',
        '5: checker[1].action: "swap" is for who serves, and "second" looks only while the node does not; write when = "both" or "prim".',
        "9: checker[2].shared: a light module has no peer whose view could be compared; remove it.",
        "12: checker[3].address: 192.0.2.100 is no service address of this module; it has none.",
        "13: checker[4]: the module mirrors no directory through which something could be written; remove it.",
    ]
    write(tmp_path, pg=LIGHT + '[[checker]]\ntype = "tcp"\nto = "10.0.0.5:1"\n[[checker]]\ntype = "disk"\n')
    tcp, disk = load_modules(tmp_path, load_cluster(tmp_path))["pg"].checkers
    assert (tcp.shared, tcp.when, tcp.action, disk.options["directories"]) == (False, "prim", "restart", ())


def test_restart_needs_something_to_restart(tmp_path: Path) -> None:
    bare = MODULE.partition("[[service]]")[0]
    tcp = '[[checker]]\ntype = "tcp"\nto = "127.0.0.1:5432"\n'
    (said,) = complaints_of_modules(tmp_path, pg=bare + tcp)
    assert said.endswith(
        'checker[1].action: the module has no [[service]] and no scripts to restart; write action = "stopstart", "swap" or "none".'
    )
    (tmp_path / "modules" / "pg").mkdir()
    (tmp_path / "modules" / "pg" / "start_prim").touch()
    assert load_modules(tmp_path, load_cluster(tmp_path))["pg"].checkers[0].action == "restart"


def test_modules_that_wait_for_each_other(tmp_path: Path) -> None:
    def waits(*others: str) -> str:
        return LIGHT + "".join(f'[[checker]]\ntype = "module"\nmodule = "{other}"\n' for other in others)

    write(tmp_path, a=waits("b", "c"), b=waits("c"), c=waits())
    assert [checker.resource for checker in load_modules(tmp_path, load_cluster(tmp_path))["a"].checkers] == ["module.b", "module.c"]
    write(tmp_path, a=waits("b"), b=waits("c"), c=waits("a"))
    with pytest.raises(ConfigError) as caught:
        load_modules(tmp_path, load_cluster(tmp_path))
    (complaint,) = caught.value.complaints
    assert complaint.file.stem == "c" and complaint.line == 7
    assert complaint.sentence == "c would wait for a, which waits for b, which waits for c: none of them would ever start."
    write(tmp_path, a=waits("b"), b=waits("c"), c=waits("d"))
    with pytest.raises(ConfigError, match='there is no module "d"; there are a and b.'):
        load_modules(tmp_path, load_cluster(tmp_path))


def test_a_module_that_runs_elsewhere(tmp_path: Path) -> None:
    """A node knows only of modules that it runs itself."""
    db = LIGHT.replace("\n", '\nnodes = ["node1"]\n', 1)
    write(tmp_path, app=LIGHT + '[[checker]]\ntype = "module"\nmodule = "db"\n', db=db)
    with pytest.raises(ConfigError, match="db does not run on node2, so nothing is known of it there; use tcp for a port of it."):
        load_modules(tmp_path, load_cluster(tmp_path))


def test_targets() -> None:
    assert parse_endpoint("[::1]:80") == Endpoint("::1", 80) and str(Endpoint("::1", 80)) == "[::1]:80"
    for bad in ("::1:80", "host", ":80", "host:", "host:0", "host:65536", "a b:80", "host:８０"):
        with pytest.raises(ValueError, match="is not a place to connect to"):
            parse_endpoint(bad)
    assert parse_url("https://a.example:8443?x=1") == Url(True, Endpoint("a.example", 8443), "a.example:8443", "/?x=1")
    assert parse_url("http://[::1]/a").endpoint == Endpoint("::1", 80)
    for bad in ("a.example", "http://", "http://u@h/", "http://h/#f", "http://h:0/", "http://h:x/", "http://h/a b", "file:///etc"):
        with pytest.raises(ValueError, match="is not a URL that can be asked for"):
            parse_url(bad)
    assert parse_status("204") == range(204, 205) and 299 in parse_status("2xx") and 300 not in parse_status("2xx")
    assert parse_free("5%") == Free(percent=5.0) and parse_free("1GiB") == Free(size_bytes=1 << 30)
    assert Free(percent=5).enough(5, 100) and not Free(percent=5).enough(4, 100) and Free(percent=5).enough(0, 0)
    assert not Free(size_bytes=10).enough(9, 100)
    assert name_from("http://a/b c") == "http:-a-b-c"

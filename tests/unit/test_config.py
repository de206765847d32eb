"""Configuration files: what is right becomes the dataclasses, and everything that is wrong is said at once, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config import ClusterConfig, HealthConfig, NodeConfig, VipConfig, load_cluster, load_modules
from orchestrator.config_errors import ConfigError
from orchestrator.units import parse_duration_s, parse_restarts, parse_size_bytes, show_bytes, show_duration

CLUSTER = """\
name = "plant7"
policy = "consistency"
heartbeat = { interval = "250ms", timeout = "2s" }
[[node]]
name = "node1"
addresses = { lan = "192.0.2.11", repl = "198.51.100.11" }
[[node]]
name = "node2"
addresses = { lan = "192.0.2.12", repl = "198.51.100.12" }
[witness]
ping = ["192.0.2.1"]
"""

MODULE = """\
mode = "mirror"
nodes = ["node1", "node2"]
replication_network = "repl"
default_primary = "alone"
boot = "off"
max_restarts = "5 per 1h"

[[replicated]]
directory = "/var/lib/postgresql/15/main"
require = ["PG_VERSION"]
[[replicated]]
directory = "/srv/pg_wal/"

[[vip]]
address = "192.0.2.100/24"

[[service]]
name = "postgres"
user = "postgres"
start = ["/usr/lib/postgresql/15/bin/postgres", "-D", "/var/lib/postgresql/15/main"]
stop_signal = "INT"
stop_timeout = "1m"
environment = { PGTZ = "UTC" }
ready = ["/usr/bin/pg_isready"]
"""


def write(directory: Path, cluster: str = CLUSTER, **modules: str) -> Path:
    (directory / "modules").mkdir(exist_ok=True)
    (directory / "cluster.toml").write_text(cluster)
    for name, text in modules.items():
        (directory / "modules" / f"{name}.toml").write_text(text)
    return directory


def complaints_of_cluster(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_cluster(write(directory, text))
    return [f"{complaint.line}: {complaint.key}: {complaint.sentence}" for complaint in caught.value.complaints]


def complaints_of_modules(directory: Path, **modules: str) -> list[str]:
    write(directory, **modules)
    with pytest.raises(ConfigError) as caught:
        load_modules(directory, load_cluster(directory))
    return [f"{complaint.line}: {complaint.key}: {complaint.sentence}" for complaint in caught.value.complaints]


def test_a_good_cluster_file(tmp_path: Path) -> None:
    cluster = load_cluster(write(tmp_path))
    node1 = NodeConfig("node1", {"lan": "192.0.2.11", "repl": "198.51.100.11"})
    node2 = NodeConfig("node2", {"lan": "192.0.2.12", "repl": "198.51.100.12"})
    assert cluster == ClusterConfig("plant7", "consistency", 0.25, 2.0, {"node1": node1, "node2": node2}, ("192.0.2.1",))
    assert cluster.networks() == ("lan", "repl")


def test_a_good_module_file(tmp_path: Path) -> None:
    write(tmp_path, pg=MODULE)
    modules = load_modules(tmp_path, load_cluster(tmp_path))
    assert list(modules) == ["pg"]
    pg = modules["pg"]
    assert (pg.name, pg.mode, pg.nodes, pg.replication_network) == ("pg", "mirror", ("node1", "node2"), "repl")
    assert (pg.default_primary, pg.boot, pg.max_restarts, pg.max_restarts_period_s) == ("alone", "off", 5, 3600.0)
    assert [entry.directory for entry in pg.replicated] == ["/var/lib/postgresql/15/main", "/srv/pg_wal"]
    assert pg.replicated[0].require == ("PG_VERSION",)
    assert [(vip.address, vip.interface) for vip in pg.vips] == [("192.0.2.100/24", None)]
    (service,) = pg.services
    assert (service.name, service.unit, service.user, service.stop_signal) == ("postgres", None, "postgres", "SIGINT")
    assert (service.stop_timeout_s, service.start_timeout_s, service.stop) == (60.0, 60.0, None)
    assert (service.ready, dict(service.environment)) == (("/usr/bin/pg_isready",), {"PGTZ": "UTC"})
    assert pg.port == 5600
    assert pg.scripts_dir == tmp_path / "modules" / "pg"


def test_defaults(tmp_path: Path) -> None:
    minimal = 'name = "c"\n[[node]]\nname = "a"\naddresses = { lan = "10.0.0.1" }\n[[node]]\nname = "b"\naddresses = { lan = "10.0.0.2" }\n'
    cluster = load_cluster(write(tmp_path, minimal, m='[[replicated]]\ndirectory = "/srv/m"\n'))
    assert (cluster.policy, cluster.heartbeat_interval_s, cluster.heartbeat_timeout_s, cluster.ping) == ("availability", 0.5, 3.0, ())
    module = load_modules(tmp_path, cluster)["m"]
    assert (module.nodes, module.replication_network, module.default_primary, module.boot) == (("a", "b"), "lan", "alone", "auto")
    assert (module.max_restarts, module.max_restarts_period_s) == (3, 86400.0)


def test_ports_follow_the_order_of_names_unless_given(tmp_path: Path) -> None:
    module = 'replication_network = "repl"\n[[replicated]]\ndirectory = "/srv/{0}"\n'
    fixed = "port = 5700\n" + module.format("b")
    write(tmp_path, a=module.format("a"), b=fixed, c=module.format("c"))
    modules = load_modules(tmp_path, load_cluster(tmp_path))
    assert {name: config.port for name, config in modules.items()} == {"a": 5600, "b": 5700, "c": 5602}


def test_a_witness(tmp_path: Path) -> None:
    given = 'etcd = ["http://192.0.2.21:2379", "https://w2.example"]\nca = "/etc/lockstep/witness-ca.pem"\nping'
    cluster = load_cluster(write(tmp_path, CLUSTER.replace("ping", given)))
    assert cluster.witness == ("http://192.0.2.21:2379", "https://w2.example") and cluster.witness_ca == "/etc/lockstep/witness-ca.pem"
    assert cluster.ping == ("192.0.2.1",)


def test_all_complaints_about_a_cluster_at_once(tmp_path: Path) -> None:
    bad = """\
name = "plant 7"
polcy = "availability"
heartbeat = { interval = "500", timeout = "3s" }
[[node]]
name = "node1"
addres = { lan = "192.0.2.11" }
[[node]]
name = "node2"
addresses = { lan = "192.0.2.300", repl = "::1" }
[witness]
etcd = ["192.0.2.20:2379"]
ping = ["192.0.2.1", 5]
"""
    assert complaints_of_cluster(tmp_path, bad) == [
        '1: name: "plant 7" cannot be a name; use letters, digits, "-" and "_".',
        '2: polcy: is not a key that is known here. Did you mean "policy"?',
        '3: heartbeat.interval: "500" is not a duration; write for example 500ms, 3s, 5m or 24h.',
        "4: node[1].addresses: is missing.",
        '6: node[1].addres: is not a key that is known here. Did you mean "addresses"?',
        '9: node[2].addresses.lan: "192.0.2.300" is not an IP address.',
        "9: node[2].addresses.repl: this release has no IPv6 for the nodes themselves yet; give an IPv4 address.",
        "11: witness.etcd[1]: expected the client address of an etcd like http://192.0.2.21:2379 (a scheme, a host, a port).",
        "12: witness.ping[2]: must be text in quotes, not 5.",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"consistency"', '"consistancy"', 'policy: "consistancy" is not one of: availability, consistency. Did you mean "consistency"?'),
        ('timeout = "2s"', 'timeout = "500ms"', "heartbeat.timeout: must be at least three times the interval, or one lost packet is"),
        ('name = "node2"', 'name = "node1"', 'node[2].name: "node1" is the name of another node already.'),
        ("192.0.2.12", "192.0.2.11", "node[2].addresses.lan: 192.0.2.11 is given twice; it is node1's address on lan already."),
        ('192.0.2.1"]', '192.0.2.12"]', "ping[1]: 192.0.2.12 is node2's address on lan: a node that reaches itself proves nothing."),
        ('name = "plant7"\n', "", "name: is missing."),
        ('name = "plant7"', "name = 7", "name: must be text in quotes, not 7."),
        ('[[node]]\nname = "node2"', '[[nodes]]\nname = "node2"', "a cluster has two to 16 nodes, each with its own [[node]]; here are 1."),
    ],
)
def test_one_mistake_in_a_cluster(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in CLUSTER
    assert any(expected in complaint for complaint in complaints_of_cluster(tmp_path, CLUSTER.replace(old, new)))


def test_a_network_that_only_one_node_has(tmp_path: Path) -> None:
    said = complaints_of_cluster(tmp_path, CLUSTER.replace('repl = "198.51.100.12"', 'rpl = "198.51.100.12"'))
    assert said == [
        '6: node[1].addresses.repl: only node1 is on network "repl". Did you mean "rpl"?',
        '9: node[2].addresses.rpl: only node2 is on network "rpl". Did you mean "repl"?',
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('mode = "mirror"', 'mode = "farm"', '1: mode: this release has no "farm" modules yet; there are "mirror" and "light".'),
        ('"node2"]', '"node3"]', '2: nodes[2]: the cluster has no node "node3"; it has node1 and node2.'),
        ('"node2"]', '"node1"]', "2: nodes: a mirror module runs on two nodes; name both."),
        ('network = "repl"', 'network = "rep"', '3: replication_network: the cluster has no network "rep" on both nodes; it has lan'),
        ('network = "repl"', "network = 1", "3: replication_network: must be text in quotes, not 1."),
        ('replication_network = "repl"\n', "", "replication_network: is missing; choose one of the cluster's networks: lan, repl."),
        ('primary = "alone"', 'primary = "lastprime"', '4: default_primary: "lastprime" is neither "alone" nor "lastprim" nor one of'),
        ('primary = "alone"', 'primary = "node3"', '4: default_primary: "node3" is neither "alone" nor "lastprim" nor one of this'),
        ("5 per 1h", "five", '6: max_restarts: "five" is not a limit of restarts; write for example "3 per 24h".'),
        ("/srv/pg_wal/", "srv/pg_wal", '12: replicated[2].directory: "srv/pg_wal" is not an absolute path.'),
        ("/srv/pg_wal/", "/srv/../etc", '12: replicated[2].directory: "/srv/../etc" contains ".."; write the path it leads to.'),
        ("/srv/pg_wal/", "/usr/share", "12: replicated[2].directory: /usr/share belongs to the system; mirror a directory"),
        ("/srv/pg_wal/", "/", "12: replicated[2].directory: / belongs to the system"),
        ("/srv/pg_wal/", "/var/lib/lockstep/x", "/var/lib/lockstep must not contain each other."),
        ("/srv/pg_wal/", "/var/lib/postgresql/15/main/", "12: replicated[2].directory: /var/lib/postgresql/15/main is given already."),
        ("/srv/pg_wal/", "/var/lib/postgresql", "and /var/lib/postgresql/15/main lie in each other, and /var/lib/postgresql/15/main"),
        ("PG_VERSION", "/PG_VERSION", '10: replicated[1].require[1]: "/PG_VERSION" must be a path below the directory'),
        (
            "require =",
            "exclude = ['/tmp']\nrequire =",
            '10: replicated[1].exclude[1]: "/tmp" is not a pattern: it is an absolute path; examples are "*.tmp" and "cache/**".',
        ),
        ("192.0.2.100/24", "192.0.2.300/24", '15: vip[1].address: "192.0.2.300/24" is not an address with its prefix length'),
        ("192.0.2.100/24", "192.0.2.100", '15: vip[1].address: "192.0.2.100" lacks the prefix length; write for example 192.0.2.100/24.'),
        ("192.0.2.100/24", "192.0.2.11/24", "15: vip[1].address: 192.0.2.11 is node1's own address on lan"),
        ("192.0.2.100/24", "203.0.113.1/24", "15: vip[1].address: 203.0.113.0/24 holds no address of both nodes"),
        ("192.0.2.100/24", "192.0.2.0/24", '15: vip[1].address: "192.0.2.0/24" is the address of the network itself'),
        ("192.0.2.100/24", "2001:db8::1", '15: vip[1].address: "2001:db8::1" lacks the prefix length; write for example 2001:db8::1/64.'),
        ("192.0.2.100/24", "2001:db8::/64", '15: vip[1].address: "2001:db8::/64" is the address of the network itself'),
        ("192.0.2.100/24", "fe80::1/64", '15: vip[1].address: "fe80::1/64" is valid on one link only; give an address that clients'),
        ("192.0.2.100/24", "fd77::1%lan/64", '15: vip[1].address: "fd77::1%lan/64" is valid on one link only'),
        ("192.0.2.100/24", "ff02::5/64", '15: vip[1].address: "ff02::5/64" is not an address that another machine can reach.'),
        ("192.0.2.100/24", "::1/128", '15: vip[1].address: "::1/128" is not an address that another machine can reach.'),
        ("192.0.2.100/24", "::ffff:192.0.2.7/120", "is an IPv4 address in IPv6 clothes; give 192.0.2.7."),
        ("/24", '/24"\nsource = "yes', "16: vip[1].source: must be true or false"),
        ("/24", '/24"\ntcp_rest = "', '16: vip[1].tcp_rest: is not a key that is known here. Did you mean "tcp_reset"?'),
        ('stop_signal = "INT"', 'stop_signal = "INTT"', '21: service[1].stop_signal: "INTT" is not a signal. Did you mean "SIGINT"?'),
        ('start = ["/usr', 'start = ["usr', "20: service[1].start: a command is a list of words whose first is the program's absolute"),
        ('name = "postgres"\n', 'unit = "x"\n', "service[1].start: cannot be given together with unit, which says it itself."),
    ],
)
def test_one_mistake_in_a_module(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in MODULE
    said = complaints_of_modules(tmp_path, pg=MODULE.replace(old, new))
    assert any(expected in complaint for complaint in said), said


def test_a_wrong_value_does_not_hide_a_wrong_combination(tmp_path: Path) -> None:
    bad = MODULE.replace("boot =", "bot =").replace("/srv/pg_wal/", "/var/lib/postgresql").replace("192.0.2.100/24", "here")
    bad += '[[vip]]\naddress = "192.0.2.11/24"\n'
    assert complaints_of_modules(tmp_path, pg=bad) == [
        '5: bot: is not a key that is known here. Did you mean "boot"?',
        "12: replicated[2].directory: /var/lib/postgresql and /var/lib/postgresql/15/main lie in each other, "
        "and /var/lib/postgresql/15/main is given already.",
        '15: vip[1].address: "here" is not an address with its prefix length; write for example 192.0.2.100/24.',
        "26: vip[2].address: 192.0.2.11 is node1's own address on lan; a service address must be a free one.",
    ]


def test_modules_must_not_share(tmp_path: Path) -> None:
    said = complaints_of_modules(tmp_path, a="port = 5601\n" + MODULE, b=MODULE)
    assert any("b.port" not in line and "5601 is the port of module a already" in line for line in said)
    assert any("/srv/pg_wal is given already, in module a." in line for line in said)
    assert any("192.0.2.100 is a service address of module a already." in line for line in said)


def test_a_subnet_has_one_source_address(tmp_path: Path) -> None:
    more = '[[vip]]\naddress = "192.0.2.101/24"\nsource = true\n'
    said = complaints_of_modules(tmp_path, pg=MODULE.replace('100/24"', '100/24"\nsource = true') + more)
    assert said == ["28: vip[2].source: 192.0.2.100 is the source address in 192.0.2.0/24 already; there can be one in a subnet."]


def test_service_addresses_of_both_families(tmp_path: Path) -> None:
    more = '[[vip]]\naddress = "2001:DB8:0::64/64"\nsource = true\ntcp_reset = false\n[[vip]]\naddress = "fd00::2/64"\ninterface = "eth7"\n'
    write(tmp_path, pg=MODULE + more)
    vips = load_modules(tmp_path, load_cluster(tmp_path))["pg"].vips
    assert vips == (
        VipConfig("192.0.2.100/24"),
        VipConfig("2001:db8::64/64", source=True, tcp_reset=False),
        VipConfig("fd00::2/64", interface="eth7"),
    )


@pytest.mark.parametrize(
    ("listen", "host", "port", "on_node1"),
    [("0.0.0.0:9010", "0.0.0.0", 9010, "0.0.0.0"), ("[::]:80", "::", 80, "::"), ("lan:9010", "lan", 9010, "192.0.2.11")],
)
def test_where_health_is_asked_for(tmp_path: Path, listen: str, host: str, port: int, on_node1: str) -> None:
    cluster = load_cluster(write(tmp_path, f'{CLUSTER}[health]\nlisten = "{listen}"\n'))
    assert cluster.health == HealthConfig(host, port)
    assert cluster.health.address_of(cluster.nodes["node1"]) == on_node1


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ('listen = "9010"', '13: health.listen: "9010" is not a place to listen at; write for example 0.0.0.0:9010.'),
        ('listen = "0.0.0.0:99999"', '"0.0.0.0:99999" is not a place to listen at'),
        ('listen = "192.0.2.11:9010"', '"192.0.2.11:9010" cannot hold on every node; write 0.0.0.0:9010, [::]:9010 or NETWORK:9010.'),
        ('listen = "lam:9010"', '13: health.listen: there is no network "lam". Did you mean "lan"?'),
        ('listen = "0.0.0.0:5599"', "13: health.listen: 5599 is a port of the cluster's own; 9010 is usual."),
        ("", "12: health.listen: is missing."),
    ],
)
def test_where_health_cannot_be_asked_for(tmp_path: Path, health: str, expected: str) -> None:
    said = complaints_of_cluster(tmp_path, f"{CLUSTER}[health]\n{health}\n")
    assert any(expected in line for line in said), said


def test_health_needs_a_port_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, CLUSTER + '[health]\nlisten = "0.0.0.0:5600"\n', pg=MODULE)
    with pytest.raises(ConfigError, match="5600 is where health is asked for"):
        load_modules(tmp_path, load_cluster(tmp_path))


THREE = CLUSTER.replace(
    "[witness]", '[[node]]\nname = "node3"\naddresses = { lan = "192.0.2.13", repl = "198.51.100.13", far = "203.0.113.13" }\n[witness]'
).replace('repl = "198.51.100.12" }', 'far = "203.0.113.12" }')  # node1: lan repl, node2: lan far, node3: all of them
N_1 = MODULE.replace('"node2"]', '"node3"]')


def test_three_nodes(tmp_path: Path) -> None:
    cluster = load_cluster(write(tmp_path, THREE, a=N_1))
    assert list(cluster.nodes) == ["node1", "node2", "node3"] and cluster.names == "node1, node2 and node3"
    assert (cluster.networks(), cluster.networks(("node1", "node3")), cluster.networks(("node2", "node3"))) == (
        ("lan",), ("lan", "repl"), ("lan", "far"),
    )  # fmt: skip
    assert load_modules(tmp_path, cluster)["a"].nodes == ("node1", "node3")


def test_modules_that_do_not_meet_may_share(tmp_path: Path) -> None:
    """Directories, ports and source addresses are a node's; a service address is the network's."""
    four = THREE.replace("[witness]", '[[node]]\nname = "node4"\naddresses = { lan = "192.0.2.14", far = "203.0.113.14" }\n[witness]')
    other = MODULE.replace('nodes = ["node1", "node2"]', 'nodes = ["node2", "node4"]').replace('network = "repl"', 'network = "far"')
    fixed, source = "port = 5600\n", '100/24"\nsource = true'
    write(tmp_path, four, a=fixed + N_1.replace('100/24"', source), b=(fixed + other).replace('100/24"', source).replace("2.100", "2.101"))
    modules = load_modules(tmp_path, load_cluster(tmp_path))
    assert {name: (config.port, config.nodes) for name, config in modules.items()} == {
        "a": (5600, ("node1", "node3")), "b": (5600, ("node2", "node4")),
    }  # fmt: skip
    write(tmp_path, four, b=fixed + other.replace('"node4"', '"node3"'))
    with pytest.raises(ConfigError) as caught:
        load_modules(tmp_path, load_cluster(tmp_path))
    said = " ".join(complaint.sentence for complaint in caught.value.complaints)
    assert "in module a" in said and "5600 is the port of module a" in said and "service address of module a" in said


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('nodes = ["node1", "node3"]\n', "", "is missing; a mirror module runs on two of the cluster's nodes, node1, node2 and node3."),
        ('"node1", "node3"]', '"node1", "node2", "node3"]', "2: nodes: a mirror module runs on two nodes; name both."),
        ('"node1", "node3"]', '"node1", "node2"]', '3: replication_network: the cluster has no network "repl" on both nodes; it has lan.'),
        ('"node3"]', '"node4"]', '2: nodes[2]: the cluster has no node "node4"; it has node1, node2 and node3. Did you mean "node3"?'),
        ('primary = "alone"', 'primary = "node2"', '"node2" is neither "alone" nor "lastprim" nor one of this module\'s nodes.'),
        ("192.0.2.100/24", "203.0.113.100/24", "15: vip[1].address: 203.0.113.0/24 holds no address of both nodes"),
        ("192.0.2.100/24", "192.0.2.12/24", "15: vip[1].address: 192.0.2.12 is node2's own address on lan"),
    ],
)
def test_one_mistake_in_a_module_of_three_nodes(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in N_1
    write(tmp_path, THREE, a=N_1.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_modules(tmp_path, load_cluster(tmp_path))
    said = [f"{complaint.line}: {complaint.key}: {complaint.sentence}" for complaint in caught.value.complaints]
    assert any(expected in line for line in said), said


def test_two_nodes_that_cannot_reach_each_other(tmp_path: Path) -> None:
    apart = THREE.replace('name = "node1"\naddresses = { lan = "192.0.2.11", repl', 'name = "node1"\naddresses = { repl')
    write(tmp_path, apart, a=N_1.replace('"node3"', '"node2"').replace('replication_network = "repl"\n', ""))
    with pytest.raises(ConfigError, match="node1 and node2 have no network in common"):
        load_modules(tmp_path, load_cluster(tmp_path))


def test_a_network_of_one_among_three(tmp_path: Path) -> None:
    assert complaints_of_cluster(tmp_path, THREE.replace('far = "203.0.113.12"', 'fer = "203.0.113.12"')) == [
        '9: node[2].addresses.fer: only node2 is on network "fer". Did you mean "far"?',
        '12: node[3].addresses.far: only node3 is on network "far". Did you mean "fer"?',
    ]


def test_a_health_address_is_one_of_every_node(tmp_path: Path) -> None:
    said = complaints_of_cluster(tmp_path, THREE + '[health]\nlisten = "repl:9010"\n')
    assert said == ['16: health.listen: not every node is on network "repl"; write 0.0.0.0:9010.']
    assert load_cluster(write(tmp_path, THREE + '[health]\nlisten = "lan:9010"\n')).health == HealthConfig("lan", 9010)


def test_how_many_nodes(tmp_path: Path) -> None:
    def nodes(count: int) -> str:
        return 'name = "c"\n' + "".join(
            f'[[node]]\nname = "n{number}"\naddresses = {{ lan = "10.0.0.{number}" }}\n' for number in range(1, count + 1)
        )

    assert len(load_cluster(write(tmp_path, nodes(16))).nodes) == 16
    for count in (1, 17):
        said = complaints_of_cluster(tmp_path, nodes(count))
        assert said == [f"2: node: a cluster has two to 16 nodes, each with its own [[node]]; here are {count}."]


def test_a_light_module_on_any_nodes(tmp_path: Path) -> None:
    service = '[[service]]\nname = "x"\nstart = ["/bin/x"]\n'
    write(tmp_path, THREE, all='mode = "light"\n' + service, two='mode = "light"\nnodes = ["node1", "node2"]\n' + service)
    modules = load_modules(tmp_path, load_cluster(tmp_path))
    assert {name: config.nodes for name, config in modules.items()} == {"all": ("node1", "node2", "node3"), "two": ("node1", "node2")}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cluster.toml: is missing; it names the cluster"):
        load_cluster(tmp_path)
    assert complaints_of_cluster(tmp_path, 'name = "a"\nname = "b"\n') == ["2: : is not TOML: cannot overwrite a value."]
    (tmp_path / "cluster.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="it is not UTF-8 text"):
        load_cluster(tmp_path)
    write(tmp_path)
    (tmp_path / "modules" / "Bad Name.toml").write_text(MODULE)
    (tmp_path / "modules" / "worse.toml").write_text("[[")
    with pytest.raises(ConfigError) as caught:
        load_modules(tmp_path, load_cluster(tmp_path))
    assert len(caught.value.complaints) == 2


def test_units() -> None:
    assert [parse_duration_s(text) for text in ("500ms", "3s", "5m", "24h", "1.5s")] == [0.5, 3.0, 300.0, 86400.0, 1.5]
    assert [parse_size_bytes(text) for text in ("64KiB", "1GiB", "4096")] == [65536, 1 << 30, 4096]
    assert parse_restarts("3 per 24h") == (3, 86400.0)
    for parse, text in ((parse_duration_s, "3"), (parse_duration_s, "-3s"), (parse_size_bytes, "1GB"), (parse_restarts, "3")):
        with pytest.raises(ValueError, match="write for example"):
            parse(text)
    assert [show_duration(seconds) for seconds in (0, 42.7, 115, 273600)] == ["0s", "42s", "1m 55s", "3d 4h"]
    assert [show_bytes(count) for count in (0, 1023, 1536, 5 << 40)] == ["0 B", "1023 B", "1.5 KiB", "5.0 TiB"]

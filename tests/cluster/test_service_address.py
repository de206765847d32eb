"""The service addresses in the lab: both families move together, the source address, connections that hang on them, and the health
address beside them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from orchestrator.lab.cluster import SERVERS, VIP, LabCluster
from orchestrator.lab.lab import Lab, kill_group, prefixed
from orchestrator.lab.plan import ADDRESSES, ADDRESSES_6

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(150),
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
]

VIP6 = "fd77::100"
PORT, HEALTH_PORT = 7000, 9010
DIRECTORY = "/srv/files"
MODULE = f"""\
replication_network = "repl"
max_restarts = "20 per 24h"
[[replicated]]
directory = "{DIRECTORY}"
[[vip]]
address = "{VIP}/24"
source = true
[[vip]]
address = "{VIP6}/64"
source = true
[[service]]
name = "server"
start = ["{sys.executable}", "-m", "http.server", "--bind", "::", "--directory", "{DIRECTORY}", "{PORT}"]
stop_signal = "KILL"
"""
HEALTH = f'[health]\nlisten = "lan:{HEALTH_PORT}"\n'
# Something on the nodes that does not belong to the module, a proxy say: it holds connections at the service address.
HOLD = """
import socket, threading, time
listener = socket.create_server(("::", 7100), family=socket.AF_INET6, dualstack_ipv6=True)
kept = []
while True:
    connection, peer = listener.accept()
    connection.sendall(b"hello")
    kept.append(connection)
"""
HANG = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 7100), 5)
assert s.recv(5) == b"hello"
print("connected", flush=True)
s.settimeout(30)
try:
    print("end" if s.recv(1) == b"" else "data", time.monotonic(), flush=True)
except OSError as error:
    print(type(error).__name__, time.monotonic(), flush=True)
"""
# Who connects, as the client on the lan sees it.
WHO = """
import socket
listener = socket.create_server(("::", 7200), family=socket.AF_INET6, dualstack_ipv6=True)
print("listening", flush=True)
while True:
    print(listener.accept()[1][0].removeprefix("::ffff:"), flush=True)
"""
CALL = "import socket, sys; socket.create_connection((sys.argv[1], 7200), 5)"
# Asks as often as it can whether a node serves; tells every change and when.
WATCH = """
import http.client, sys, time
last = None
while True:
    try:
        connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=1)
        connection.request("GET", "/health/files")
        answer = connection.getresponse().status
    except OSError as error:
        answer = 0
    if answer != last:
        last = answer
        print(answer, time.monotonic(), flush=True)
    time.sleep(0.01)
"""


class Service(LabCluster):
    """The cluster, and what a client sees of it."""

    def has(self, node: str) -> set[str]:
        """Which service addresses lie on the node."""
        listing = self.lab.run(node, ["ip", "address", "show", "dev", "lan"]).stdout
        return {address for address in (VIP, VIP6) if f" {address}/" in listing}

    def holder(self, timeout_s: float = 30) -> str:
        """Who has both, as soon as exactly one node has any."""
        found: list[str] = []

        def one() -> bool:
            found[:] = [node for node in SERVERS if self.has(node)]
            return len(found) == 1 and self.has(found[0]) == {VIP, VIP6}

        self.until(one, "the addresses are not together on one node", timeout_s)
        return found[0]

    def answers(self, address: str) -> bool:
        """Does the service at the address talk to the client?"""
        host = f"[{address}]" if ":" in address else address
        asked = self.lab.run("client", ["curl", "-sf", "-o", "/dev/null", "-m", "1", f"http://{host}:{PORT}/"], check=False)
        return asked.returncode == 0

    def health(self, node: str) -> int:
        """What a load balancer hears; 0 when it hears nothing."""
        url = f"http://{ADDRESSES[node]['lan']}:{HEALTH_PORT}/health/files"
        return int(self.lab.run("client", ["curl", "-s", "-o", "/dev/null", "-m", "1", "-w", "%{http_code}", url], check=False).stdout)

    @contextmanager
    def script(self, node: str, text: str, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A Python script on a node, until the end of the block; its output can be read."""
        command = self.lab.command(node, [sys.executable, "-c", text, *words])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
            try:
                yield process
            finally:
                kill_group(process)

    def ready(self) -> tuple[str, str]:
        """Redundant, and nothing of an earlier fault left: who holds the addresses, and the other one."""
        holder = self.holder()
        self.wait_redundant(holder)

        def calm() -> bool:
            found = [self.status(node) or {} for node in SERVERS]
            heard = [verdict for status in found for verdict in status.get("networks", {"?": "?"}).values()]
            return all(verdict == "ok" for verdict in heard) and all(status["failover"]["state"] == "armed" for status in found)

        self.until(calm, "a network is still silent, or a node not trusted yet", 15)
        return holder, self.other(holder)

    def move(self) -> tuple[str, str]:
        """A swap as soon as both know that it is possible; from where to where."""
        source, target = self.ready()
        self.lab.run(source, ["hactl", "swap", "files", "--wait"], timeout_s=60)
        self.wait_redundant(target)
        return source, target


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Redundant, node1 PRIM."""
    with Lab(prefixed("vip"), disk_size_bytes=256 << 20) as lab:
        cluster = Service(lab, "files", MODULE, [DIRECTORY], name="vip", third=f'ping = ["{ADDRESSES["witness"]["lan"]}"]\n{HEALTH}')
        cluster.configure()
        cluster.bring_up()
        yield cluster


def line_of(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def test_both_families_move_together(service: Service) -> None:
    source, target = service.move()
    assert service.has(source) == set() and service.has(target) == {VIP, VIP6}
    for address in (VIP, VIP6):
        assert service.answers(address), address
    service.move()


def test_a_connection_that_hangs_on_the_address_is_reset_at_once(service: Service) -> None:
    source, _ = service.ready()
    with service.script(source, HOLD):
        probe = ["curl", "-s", "-m", "1", f"telnet://{VIP}:7100"]
        service.until(lambda: service.lab.run("client", probe, check=False).stdout == "hello", "the proxy does not listen", 10)
        own_address = ADDRESSES[source]["lan"]
        with (
            service.script("client", HANG, VIP) as four,
            service.script("client", HANG, VIP6) as six,
            service.script("client", HANG, own_address) as own,
        ):
            assert [line_of(each) for each in (four, six, own)] == [["connected"]] * 3
            last = max((event["number"] for event in service.events(source)), default=0)
            service.move()
            told = {event["kind"]: event["monotonic_s"] for event in service.events(source, last)}
            for hanging in (four, six):
                word, when = line_of(hanging)
                assert word == "ConnectionResetError" and abs(float(when) - told["vip-del"]) < 0.5, (word, when, told)
            assert own.poll() is None, "connections at the node's own address are not ours"


def test_the_source_address_is_what_others_see(service: Service) -> None:
    holder, other = service.ready()
    with service.script("client", WHO) as who:
        assert line_of(who) == ["listening"]

        def seen_from(node: str) -> list[str]:
            found = []
            for address in (ADDRESSES["client"]["lan"], ADDRESSES_6["client"]["lan"]):
                service.lab.run(node, [sys.executable, "-c", CALL, address])
                found += line_of(who)
            return found

        for _ in range(2):
            assert seen_from(holder) == [VIP, VIP6]
            assert seen_from(other) == [ADDRESSES[other]["lan"], ADDRESSES_6[other]["lan"]]
            other, holder = service.move()
        service.kill_daemon(holder)
        service.start_daemon(holder)
        service.wait_redundant(holder)
        assert seen_from(holder) == [VIP, VIP6]


def test_health_follows_a_swap_within_a_second(service: Service) -> None:
    source, target = service.ready()
    service.until(lambda: (service.health(source), service.health(target)) == (200, 503), "health does not say who serves", 5)
    place = [str(HEALTH_PORT)]
    with (
        service.script("client", WATCH, ADDRESSES[source]["lan"], *place) as old,
        service.script("client", WATCH, ADDRESSES[target]["lan"], *place) as new,
    ):
        assert (line_of(old)[0], line_of(new)[0]) == ("200", "503")
        last = max((event["number"] for event in service.events(target)), default=0)
        asked = time.monotonic()
        service.move()
        (gone, gone_at), (come, come_at) = line_of(old), line_of(new)
        ready = [
            event["monotonic_s"] for event in service.events(target, last) if "Ready cause" in event["text"] and "to=" in event["text"]
        ]
        assert (gone, come) == ("503", "200")
        assert float(gone_at) - asked < 1.0 and float(gone_at) < float(come_at), "the old one first"
        assert abs(float(come_at) - ready[0]) < 1.0
    paths = ("/var/modules/files/ready.txt", "/var/modules/other/ready.txt", "/health/other")
    base = f"http://{ADDRESSES[target]['lan']}:{HEALTH_PORT}"
    codes = [service.lab.run("client", ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", base + path]).stdout for path in paths]
    assert codes == ["200", "404", "404"]


def test_a_frozen_node_does_not_say_that_it_serves(service: Service) -> None:
    """Nor when it goes on, before it has learnt that another one serves."""
    frozen, other = service.ready()
    with service.script("client", WATCH, ADDRESSES[frozen]["lan"], str(HEALTH_PORT)) as watching:
        assert line_of(watching)[0] == "200"
        service.lab.freeze(frozen)
        service.wait_state(other, "ALONE", timeout_s=30)
        assert service.health(other) == 200
        service.lab.thaw(frozen)
        service.wait_redundant(other, timeout_s=60)
        kill_group(watching)
        assert watching.stdout is not None
        answers = [line.split()[0] for line in watching.stdout]
    assert "200" not in answers and "503" in answers, answers


def test_a_stranger_that_answers_for_the_ipv6_address_keeps_it(service: Service) -> None:
    """Nobody takes it from him, and the module says why it does not serve; when he is gone, it does. All addresses or none."""
    dead, survivor = service.ready()
    service.lab.run("witness", ["ip", "address", "add", f"{VIP6}/128", "dev", "lan", "nodad"])
    try:
        service.lab.kill(dead)
        reason = "the service address is in use by another machine"
        service.until(lambda: reason in str(service.row(survivor)["reason"]), "the stranger is not noticed", 30)
        assert VIP6 in service.row(survivor)["reason"] and service.row(survivor)["readiness"] != "Ready"
        assert service.has(survivor) == set() and service.health(survivor) == 503
    finally:
        service.lab.run("witness", ["ip", "address", "delete", f"{VIP6}/128", "dev", "lan"])
    service.wait_state(survivor, "ALONE", timeout_s=30)
    service.until(lambda: service.answers(VIP) and service.answers(VIP6), "the service is not reached", 10)
    service.boot(dead)
    service.wait_redundant(survivor)


def test_a_takeover_moves_both_and_overrides_the_frozen_primary(service: Service) -> None:
    """Its kernel answers for the addresses still; it is the peer, and it has been outlived."""
    frozen, survivor = service.ready()
    service.lab.freeze(frozen)
    service.wait_state(survivor, "ALONE", timeout_s=30)
    assert service.has(survivor) == {VIP, VIP6}
    service.until(lambda: service.answers(VIP) and service.answers(VIP6), "the client is not led to the new holder", 10)
    service.lab.thaw(frozen)
    service.wait_redundant(survivor)
    assert service.holder() == survivor

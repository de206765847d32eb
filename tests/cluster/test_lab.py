"""The lab itself: what the other cluster tests stand on must do what its commands say, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.lab import Lab, LabError, wire
from orchestrator.lab.cgroups import NodeCgroup
from orchestrator.lab.lab import kill_group
from orchestrator.lab.plan import mac_address
from orchestrator.lab.power import find_inits
from orchestrator.lab.state import STATE_ROOT
from orchestrator.lab.wire import Flaws

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root")]

DISK_SIZE_BYTES = 256 << 20
PORT = 7007

ANSWER = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", {PORT}))
while True:
    data, sender = s.recvfrom(64)
    s.sendto(data, sender)
"""

ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.1)
for attempt in range(int(sys.argv[3])):
    s.sendto(b"ping", (sys.argv[1], int(sys.argv[2])))
    try:
        if s.recv(64) == b"ping":
            sys.exit(0)
    except TimeoutError:
        pass
sys.exit(1)
"""

LISTEN = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 7008))
s.settimeout(float(sys.argv[1]))
print("listening", flush=True)
try:
    print(s.recv(64).decode(), flush=True)
except TimeoutError:
    print("nothing", flush=True)
"""

RECEIVE = """
import hashlib, socket
with socket.create_server(("0.0.0.0", 7009)) as server:
    stream, _ = server.accept()
    with stream:
        count, digest = 0, hashlib.sha256()
        while data := stream.recv(65536):
            count, _ = count + len(data), digest.update(data)
        stream.sendall(f"{count} {digest.hexdigest()}".encode())
"""

STREAM = """
import hashlib, os, socket, sys, time
data = os.urandom(1000000)
while True:
    try:
        stream = socket.create_connection((sys.argv[1], 7009), 10)
        break
    except OSError:
        time.sleep(0.05)
with stream:
    stream.sendall(data)
    stream.shutdown(socket.SHUT_WR)
    count, digest = stream.makefile().read().split()
print(count, "same" if digest == hashlib.sha256(data).hexdigest() else "changed")
"""

SEND = 'import socket, sys\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"one-way", (sys.argv[1], 7008))'


def lab_name() -> str:
    return f"test-{os.getpid()}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(lab_name(), directory=tmp_path_factory.mktemp("lab"), disk_size_bytes=DISK_SIZE_BYTES) as lab:
        yield lab


@pytest.fixture(autouse=True)
def everything_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds all nodes running and all cables whole."""
    yield
    if "lab" in request.fixturenames:
        lab: Lab = request.getfixturevalue("lab")
        lab.heal()
        for node in lab.status()["nodes"]:
            if node["power"] == "off":
                lab.boot(node["node"])
            if node["power"] == "frozen":
                lab.thaw(node["node"])


@pytest.fixture
def answering(lab: Lab) -> Iterator[None]:
    """node2 answers datagrams on both networks."""
    process = lab.spawn("node2", [sys.executable, "-c", ANSWER])
    yield
    kill_group(process)


def reaches(lab: Lab, node: str, address: str, attempts: int) -> bool:
    return lab.run(node, [sys.executable, "-c", ASK, address, str(PORT), str(attempts)], check=False).returncode == 0


def heard(lab: Lab, sender: str, receiver: str, lan: str, patience_s: float) -> str:
    """What a datagram sent from one to the other becomes: its text, or `nothing`."""
    words = lab.command(receiver, [sys.executable, "-c", LISTEN, str(patience_s)])
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "listening\n"
        lab.run(sender, [sys.executable, "-c", SEND, lab.address(receiver, lan)])
        return listener.stdout.readline().strip()


def eventually(true: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if true():
            return True
    return False


def test_nodes_are_machines_of_their_own(lab: Lab) -> None:
    assert lab.run("node1", ["hostname"]).stdout == "node1\n"
    assert lab.run("witness", ["hostname"]).stdout == "witness\n"
    assert lab.run("node1", ["cat", "/proc/1/comm"]).stdout.startswith("python")
    assert lab.run("node1", ["findmnt", "-no", "FSTYPE", "/srv"]).stdout == "ext4\n"
    lab.run("node1", ["sh", "-c", "echo mine > /tmp/here; echo mine > /run/here; echo mine > /etc/lockstep/here"])
    for path in ("/tmp/here", "/run/here", "/etc/lockstep/here"):
        assert lab.path("node1", path).read_text() == "mine\n"
        assert not lab.path("node2", path).exists()
        assert not Path(path).exists()
    assert socket.gethostname() not in ("node1", "node2")


def test_exit_codes_and_standard_streams_pass_through(lab: Lab) -> None:
    done = lab.run("node1", ["sh", "-c", "cat; echo complaint >&2; exit 7"], check=False, input="spoken")
    assert (done.returncode, done.stdout, done.stderr) == (7, "spoken", "complaint\n")
    with pytest.raises(LabError, match="on node1: false ended with 1"):
        lab.run("node1", ["false"])
    with pytest.raises(subprocess.TimeoutExpired):
        lab.run("node1", ["sleep", "60"], timeout_s=0.2)
    assert "sleep 60" not in lab.run("node1", ["ps", "ax"]).stdout
    assert lab.run("node1", ["printenv", "WORD"], env={"WORD": "of two parts"}).stdout == "of two parts\n"
    assert lab.run("node1", ["sh", "-c", "command -v python"]).stdout.strip() == str(Path(sys.prefix) / "bin/python")


def test_nodes_reach_each_other_on_both_networks(lab: Lab, answering: None) -> None:
    assert reaches(lab, "node1", lab.address("node2", "lan"), 50)
    assert reaches(lab, "node1", lab.address("node2", "repl"), 50)
    assert reaches(lab, "client", lab.address("node2", "lan"), 50)
    assert not reaches(lab, "client", lab.address("node2", "repl"), 1)


def test_a_cut_is_silent_and_heals(lab: Lab, answering: None) -> None:
    assert reaches(lab, "node1", lab.address("node2", "repl"), 50)
    lab.cut("node1", "repl")
    assert not reaches(lab, "node1", lab.address("node2", "repl"), 3)
    assert reaches(lab, "node1", lab.address("node2", "lan"), 10)
    assert "LOWER_UP" in lab.run("node1", ["ip", "link", "show", "repl"]).stdout
    lab.heal("node1")
    assert reaches(lab, "node1", lab.address("node2", "repl"), 50)


@pytest.mark.parametrize(("direction", "from_node1", "to_node1"), [("in", "one-way", "nothing"), ("out", "nothing", "one-way")])
def test_a_cable_can_be_cut_one_way(lab: Lab, answering: None, direction: str, from_node1: str, to_node1: str) -> None:
    for node in ("node1", "node2"):  # fixed neighbours: what is tested is the datagram, not ARP's
        other = "node2" if node == "node1" else "node1"
        mac = lab.run(other, ["cat", "/sys/class/net/lan/address"]).stdout.strip()
        lab.run(node, ["ip", "neighbour", "replace", lab.address(other), "lladdr", mac, "dev", "lan", "nud", "permanent"])
    lab.cut("node1", "lan", "in" if direction == "in" else "out")
    assert heard(lab, "node1", "node2", "lan", 0.5 if from_node1 == "nothing" else 5.0) == from_node1
    assert heard(lab, "node2", "node1", "lan", 0.5 if to_node1 == "nothing" else 5.0) == to_node1
    lab.heal()
    assert reaches(lab, "node1", lab.address("node2"), 50)


def test_a_killed_node_keeps_its_disk_and_gets_a_new_boot_id(lab: Lab, answering: None) -> None:
    before = lab.run("node1", ["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    everywhere = "/srv /etc/lockstep /var/lib/lockstep /var/log/lockstep /run /tmp"
    lab.run("node1", ["sh", "-c", f"for d in {everywhere}; do echo was here > $d/it; done"])
    stubborn = lab.spawn("node1", ["sh", "-c", "trap '' TERM INT HUP; while :; do sleep 1; done"])
    lab.cut("node1", "repl")
    lab.kill("node1")
    assert stubborn.wait(timeout=5.0) != 0
    with pytest.raises(LabError, match="node1 is powered off"):
        lab.run("node1", ["true"])
    lab.boot("node1")
    assert lab.run("node1", ["cat", "/proc/sys/kernel/random/boot_id"]).stdout != before
    for kept in ("/srv", "/etc/lockstep", "/var/lib/lockstep", "/var/log/lockstep"):
        assert lab.path("node1", f"{kept}/it").read_text() == "was here\n"
    for lost in ("/run", "/tmp"):
        assert not lab.path("node1", f"{lost}/it").exists()
    assert reaches(lab, "node1", lab.address("node2", "lan"), 50)
    assert not reaches(lab, "node1", lab.address("node2", "repl"), 2), "a cut cable does not mend by itself"


def test_power_loss_is_silent(lab: Lab) -> None:
    """A dead machine sends no FIN: the other end of a connection must notice by itself."""
    serve = "import socket,time; s=socket.create_server(('0.0.0.0',7009)); c=s.accept()[0]; c.send(b'x'); time.sleep(600)"
    connect = (
        "import socket,time\n"
        "for _ in range(500):\n"
        "    try:\n        s=socket.create_connection(('10.77.0.11',7009)); break\n"
        "    except OSError: time.sleep(0.01)\n"
        "s.recv(1); print('connected', flush=True); s.settimeout(1.0)\n"
        "try: print('closed' if s.recv(1) == b'' else 'data', flush=True)\n"
        "except TimeoutError: print('silence', flush=True)\n"
        "except ConnectionError: print('reset', flush=True)\n"
    )
    lab.spawn("node1", [sys.executable, "-c", serve])
    with subprocess.Popen(lab.command("node2", [sys.executable, "-c", connect]), stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "connected\n"
        lab.kill("node1")
        assert client.stdout.readline() == "silence\n"


def test_a_frozen_node_does_nothing_until_it_is_thawed(lab: Lab, answering: None) -> None:
    assert reaches(lab, "node1", lab.address("node2"), 50)
    lab.freeze("node2")
    assert not reaches(lab, "node1", lab.address("node2"), 3)
    with pytest.raises(LabError, match="node2 is frozen"):
        lab.run("node2", ["true"])
    lab.thaw("node2")
    assert reaches(lab, "node1", lab.address("node2"), 50)
    lab.freeze("node2")
    lab.kill("node2")
    lab.boot("node2")
    assert lab.run("node2", ["hostname"]).stdout == "node2\n"


def test_orphans_are_reaped(lab: Lab) -> None:
    lab.run("node1", ["sh", "-c", "(sh -c 'exit 3' &) ; (setsid sh -c 'exit 4' &)"])
    assert eventually(lambda: "defunct" not in lab.run("node1", ["ps", "ax"]).stdout)


def test_a_bad_cable_loses_doubles_and_delays_and_heals(lab: Lab, answering: None) -> None:
    address = lab.address("node2", "repl")
    lab.worsen("node2", "repl", Flaws(loss=1.0))
    assert not reaches(lab, "node1", address, 5)
    lab.worsen("node2", "repl", Flaws(loss=0.3, duplicated=0.3, reordered=0.3, delay_s=0.01, seed=1))
    assert reaches(lab, "node1", address, 20)
    lab.heal()
    assert reaches(lab, "node1", address, 3)
    assert wire.find(lab.name) == []


def test_a_bad_cable_carries_whole_frames_of_tcp(lab: Lab) -> None:
    """Segments and checksums that the kernel would leave to the card are made before: a stream arrives as it was sent."""
    lab.worsen("node2", "repl", Flaws(loss=0.02, reordered=0.1, seed=3))
    listener = lab.spawn("node2", [sys.executable, "-c", RECEIVE])
    sent = lab.run("node1", [sys.executable, "-c", STREAM, lab.address("node2", "repl")], timeout_s=60)
    assert sent.stdout.split() == ["1000000", "same"]
    assert listener.wait(10) == 0


def test_a_cable_that_parts_two_nodes_and_no_others(lab: Lab, answering: None) -> None:
    lab.worsen("node2", "lan", Flaws(without_peer=mac_address("node1", "lan")))
    address = lab.address("node2")
    assert not reaches(lab, "node1", address, 5)
    assert reaches(lab, "client", address, 10)
    assert reaches(lab, "node1", lab.address("node2", "repl"), 3)


def test_a_node_with_a_bad_cable_may_lose_its_power(lab: Lab) -> None:
    lab.worsen("node2", "lan", Flaws(loss=0.5))
    lab.kill("node2")
    lab.boot("node2")
    lab.heal()
    assert heard(lab, "client", "node2", "lan", 5.0) == "one-way"


def test_a_new_disk_is_empty(lab: Lab) -> None:
    lab.run("node1", ["sh", "-c", "echo old > /srv/old"])
    with pytest.raises(LabError, match="node1 is running"):
        lab.replace_disk("node1")
    lab.kill("node1")
    lab.replace_disk("node1")
    lab.boot("node1")
    assert not lab.path("node1", "/srv/old").exists()


def test_a_restored_disk_has_lost_what_was_not_synced(lab: Lab) -> None:
    lab.run("node1", ["sh", "-c", "echo durable > /srv/early"])
    copy = lab.sync_copy("node1")
    lab.run("node1", ["sh", "-c", "echo volatile > /srv/late; echo changed > /srv/early"])
    with pytest.raises(LabError, match="node1 is running"):
        lab.restore("node1", copy)
    lab.kill("node1")
    lab.restore("node1", copy)
    lab.boot("node1")
    assert lab.path("node1", "/srv/early").read_text() == "durable\n"
    assert not lab.path("node1", "/srv/late").exists()


def test_mistakes_get_a_sentence(lab: Lab) -> None:
    with pytest.raises(LabError, match="There is no node node3 in the lab"):
        lab.kill("node3")
    with pytest.raises(LabError, match="client is not on network repl; it is on lan"):
        lab.cut("client", "repl")
    with pytest.raises(LabError, match="node1 is running already"):
        lab.boot("node1")


def traces(name: str, directory: Path) -> list[str]:
    """Everything a lab of this name could have left on the machine."""
    mounts = Path("/proc/self/mounts").read_text()
    cgroup = NodeCgroup(name, "node1").path
    found = {
        "network namespace": f"lockstep-{name}" in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout,
        "loop device": str(directory) in subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True).stdout,
        "mount": str(directory) in mounts or f"lockstep-{name}" in mounts,
        "init": bool(find_inits(name)),
        "image": directory.exists() and any(directory.iterdir()),
        "state": (STATE_ROOT / name).exists() or (STATE_ROOT / f"{name}.lock").exists(),
        "cgroup": cgroup is not None and cgroup.parent.exists(),
    }
    return [what for what, there in found.items() if there]


def test_down_leaves_nothing_and_may_be_repeated(tmp_path: Path) -> None:
    name, directory = f"{lab_name()}-d", tmp_path
    lab = Lab(name, directory=directory, disk_size_bytes=DISK_SIZE_BYTES)
    made = [path for path in (Path("/etc/lockstep"), Path("/var/log/lockstep")) if not path.exists()]
    lab.up()
    assert set(traces(name, directory)) >= {"network namespace", "loop device", "init", "image", "state"}
    detached = lab.spawn("node1", ["setsid", "sleep", "1000"])
    lab.freeze("client")
    lab.down()
    assert traces(name, directory) == []
    assert detached.wait(timeout=5.0) != 0
    assert not [path for path in made if path.exists() and not any(STATE_ROOT.glob("*"))]
    lab.down()
    with pytest.raises(LabError, match="The lab is not up"):
        lab.status()


def test_a_lab_that_crashed_is_cleaned_up(tmp_path: Path) -> None:
    """The command that builds the lab is killed in the middle, and the state file is lost as well."""
    name, directory = f"{lab_name()}-c", tmp_path
    build = f"Lab({name!r}, directory=Path({str(directory)!r}), disk_size_bytes={DISK_SIZE_BYTES}).up()"
    code = f"from pathlib import Path; from orchestrator.lab import Lab; {build}"
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2]) as builder:
        assert eventually(lambda: len(find_inits(name)) >= 2)
        builder.send_signal(signal.SIGKILL)
    (STATE_ROOT / name / "state.json").unlink(missing_ok=True)
    lab = Lab(name, directory=directory, disk_size_bytes=DISK_SIZE_BYTES)
    lab.up()
    assert lab.run("node1", ["hostname"]).stdout == "node1\n"
    lab.down()
    assert traces(name, directory) == []

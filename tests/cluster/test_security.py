"""A whole life in the lab, looked at by somebody who means ill: what it leaves on disks, what it tells of secrets, what its doors take."""

from __future__ import annotations

import json
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.lab.cluster import SERVERS, LabCluster, ledger_module
from orchestrator.lab.lab import Lab, prefixed
from orchestrator.lab.plan import ADDRESSES
from orchestrator.lab.scenarios.pair import DIRECTORY, PORT
from rfs.keys import KeyStore
from tests.cluster.test_doctor import take
from tests.security.modes import Judge
from tests.security.scan import Probe, wrong_in
from tests.security.test_files import needs_strace, traced

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
PLANTED = "S3CRETofTheEnvironment77"
PLACES = ("/etc/lockstep", "/var/lib/lockstep", "/var/log/lockstep", "/run/lockstep")
FOUND = re.compile(r"(?P<mode>\d+) (?P<kind>\w) (?P<uid>\d+) (?P<path>.+)")


@pytest.fixture(scope="module")
def life() -> Iterator[LabCluster]:
    """Paired by two commands, started, swapped there and back, its keys replaced. A secret stands in the module's file."""
    with Lab(prefixed("life"), disk_size_bytes=1 << 28) as lab:
        for node in SERVERS:
            lab.run(node, ["sh", "-c", f"touch {MARKER}; mkdir -p {DIRECTORY}"])
        module = ledger_module(DIRECTORY, PORT, "20 per 24h") + f'environment = {{ LEDGER_PASSWORD = "{PLANTED}" }}\n'
        made = LabCluster(lab, "ledger", module, [DIRECTORY], name="life")
        made.configure()
        made.bring_up()
        made.command("node1", "swap")
        made.wait_redundant("node2")
        lab.run("node1", ["hactl", "cluster", "rotate-keys", "-H", "all"])
        made.command("node2", "swap")
        made.wait_redundant("node1")
        yield made


MARKER = "/run/before-lockstep"


def files_of(cluster: LabCluster, node: str, *words: str) -> list[re.Match[str]]:
    """`find`, on the node's own file systems."""
    command = ["find", *words, "-printf", "%m %y %U %p\\n"]
    lines = cluster.lab.run(node, command, check=False).stdout.splitlines()
    return [found for line in lines if (found := FOUND.fullmatch(line))]


def test_nothing_is_left_that_others_may_change(life: LabCluster) -> None:
    """Nothing world-writable, nothing with a suid bit, everything root's; on all the machine, not only where it should be."""
    for node in SERVERS:
        wide = ["-newer", MARKER, "!", "-type", "l", "(", "-perm", "-0002", "-o", "-perm", "/6000", ")"]
        rest = ("/etc", "/opt", "/root", "/run", "/srv", "/usr/local", "/var/lib", "/var/log", "/var/spool")
        assert [found[0] for place in rest for found in files_of(life, node, place, *wide) if found["path"] != "/run/lock"] == []
        ours = [found for place in PLACES for found in files_of(life, node, place, "!", "-type", "l")]
        assert len(ours) > 25
        for found in ours:
            mode = int(found["mode"], 8)
            assert not mode & (stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID), found[0]
            assert found["uid"] == "0", found[0]


def test_secrets_and_sockets_have_their_modes(life: LabCluster) -> None:
    for node in SERVERS:
        modes = {found["path"]: (int(found["mode"], 8), found["kind"]) for place in PLACES for found in files_of(life, node, place)}
        keys = {path: mode for path, (mode, kind) in modes.items() if path.startswith("/etc/lockstep/keys/")}
        assert modes["/etc/lockstep/keys"] == (0o700, "d") and len(keys) >= 3 and set(keys.values()) == {0o600}
        assert modes["/var/lib/lockstep/modules/ledger"] == (0o700, "d")
        assert modes["/var/lib/lockstep/modules/ledger/control.sock"] == (0o600, "s")
        assert modes["/run/lockstep/hactld.sock"][0] in (0o600, 0o660) and modes["/run/lockstep/hactld.sock"][1] == "s"
        applied = [mode for path, (mode, kind) in modes.items() if path.startswith("/var/lib/lockstep/config/") and kind == "f"]
        assert len(applied) >= 3 and set(applied) == {0o600}, "a configuration may hold secrets"


EVERYTHING_SAID = """
for process in /proc/[0-9]*; do
    tr '\\0' '\\n' <$process/cmdline 2>/dev/null
    case $(tr '\\0' ' ' <$process/cmdline 2>/dev/null) in *orchestrator.lab.ledger*) continue ;; esac
    tr '\\0' '\\n' <$process/environ 2>/dev/null
done
find /var/log/lockstep /run/lockstep -type f -exec cat {} +
cat /var/lib/lockstep/hactld/*
for words in status 'status --json' 'status --json -H all' 'status --wide' 'status --check' 'data ledger' 'data ledger --json -H all' \
    'why ledger' 'why ledger --json' 'simulate peer-dies ledger' 'events' 'events --json -H all' history 'logs ledger' \
    'logs ledger --json -H all' checkers 'config history' 'config history --json' \
    'cluster show' 'cluster show --json' doctor 'doctor --json'
do hactl $words; done
rfsmount status --state /var/lib/lockstep/modules/ledger --json; rfsmount stats --state /var/lib/lockstep/modules/ledger
rfsmount keys show --keys /etc/lockstep/keys
cat /var/lib/lockstep/modules/ledger/record /var/lib/lockstep/modules/ledger/directories | base64 -w0
"""


def test_no_secret_is_to_be_seen(life: LabCluster) -> None:
    """Private keys and a password of the configuration: not in logs, status, history, events, answers, snapshots, words and environments of
    processes (but the service's, for which it is)."""
    private = [
        line
        for node in SERVERS
        for own in KeyStore(life.lab.path(node, "/etc/lockstep/keys")).every_own()
        for line in own.private.splitlines()
        if "-----" not in line and line
    ]
    assert len(private) >= 4
    for node in SERVERS:
        said = life.lab.run(node, ["sh", "-c", EVERYTHING_SAID], check=False, timeout_s=90).stdout
        assert len(said) > 30_000 and "rfsmount" in said and "rotate-keys: the key of this node is" in said
        assert [secret for secret in (PLANTED, *private) if secret in said] == []
        snapshot = take(life, node, "/srv/help.tar.gz", code=0)  # type: ignore[arg-type]
        assert any(PLANTED not in text and "LEDGER_PASSWORD" in text for text in snapshot.values()), "the file is there, without its value"
        assert not [name for name, text in snapshot.items() if any(secret in text for secret in (PLANTED, *private))]
        assert stat.S_IMODE(life.lab.path(node, "/srv/help.tar.gz").stat().st_mode) == 0o600


def test_the_service_has_its_secret_and_nobody_else(life: LabCluster) -> None:
    """The one place where it belongs: else the test above would find nothing because there is nothing."""
    where = life.lab.run("node1", ["sh", "-c", f"grep -l {PLANTED} /proc/[0-9]*/environ 2>/dev/null; true"]).stdout.split()
    names = [life.lab.run("node1", ["cat", place.replace("environ", "cmdline")], check=False).stdout for place in where]
    serving = [name for name in names if "orchestrator.lab.ledger" in name]
    assert serving and len(serving) == len([name for name in names if name]), names


# ---- the doors ------------------------------------------------------------------------------------------------------------------------


def scan(cluster: LabCluster, node: str, port: int, lan: str, *words: str) -> list[Probe]:
    """From the other node, with its key and a stranger's."""
    here = cluster.other(node)
    stranger = KeyStore(cluster.lab.path(here, "/srv/stranger"))
    if not stranger.exists():
        stranger.make(here)
    given = ["--peer", "/etc/lockstep/keys/identity.pem", "--stranger", "/srv/stranger/identity.pem", "--source", ADDRESSES[here][lan]]
    command = [sys.executable, "-P", "-m", "tests.security.scan", f"{ADDRESSES[node][lan]}:{port}", *given, *words]
    done = cluster.lab.run(here, command, check=False, timeout_s=90, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode in (0, 1), done.stderr
    return [Probe(found["probe"], found["verdict"], found["text"]) for found in map(json.loads, done.stdout.splitlines())]


@needs_strace
def test_hactld_makes_its_files_as_they_stay(life: LabCluster) -> None:
    """By its system calls from its start to an order that it carries out: nothing is narrowed later, its socket not after it listens."""
    life.kill_daemon("node1")
    words = traced(Path("/srv/hactld.trace"), "hactld", "--foreground")
    life.lab.spawn("node1", ["sh", "-c", "umask 022; exec setsid " + " ".join(words) + " >/srv/hactld.out 2>&1"])
    life.until(lambda: life.status("node1") is not None, "hactld does not answer under strace", 30)
    life.command("node1", "pause")
    life.command("node1", "resume")
    life.lab.run("node1", ["hactl", "snapshot", "-O", "/srv/traced.tar.gz"])
    life.kill_daemon("node1")
    judge = Judge(life.lab.path("node1", "/srv/hactld.trace").read_text())
    life.start_daemon("node1")
    life.wait_redundant("node1")
    ours = [made for made in judge.made if made.path.startswith(PLACES)]
    assert len(ours) >= 8 and judge.wrong == [], judge.wrong
    assert [made.line for made in ours if made.mode & 0o022] == []
    assert [made.line for made in ours if made.path.startswith("/run/lockstep/hactld.sock") and made.mode & 0o007] == []


def test_the_doors_of_hactld_and_rfsmount(life: LabCluster) -> None:
    """The calls of a real hactld, the control link of a real rfsmount under it, from the peer's own address."""
    before = life.rfs_status("node1")
    for port, lan, words in ((5598, "lan", ()), (5598, "repl", ()), (5600, "repl", ("--preamble",))):
        found = scan(life, "node1", port, lan, *words)
        assert len(found) >= 9 and wrong_in(found) == [], (port, found)
    status = life.status("node1")
    assert status is not None
    refused = status["refused"]
    assert refused.get("wrong-key", 0) >= 2 and refused.get("old-tls", 0) >= 6 and refused.get("no-key", 0) >= 2, refused
    log = life.lab.run("node1", ["cat", "/var/log/lockstep/hactld.log"]).stdout
    assert len(re.findall(r"call refused: wrong-key", log)) == 1, "logged once"
    life.wait_redundant("node1")
    after = life.rfs_status("node1")
    assert (after["pid"], after["generation"]) == (before["pid"], before["generation"]), "and the pair was not disturbed for good"


def test_nothing_else_listens(life: LabCluster) -> None:
    """On the addresses that the configuration names, and on no others; the service's own port is its own."""
    for node in SERVERS:
        said = life.lab.run(node, ["ss", "-Hlntup"]).stdout
        ours = [line.split()[4] for line in said.splitlines() if '"hactld"' in line or '"rfsmount"' in line]
        own = {ADDRESSES[node]["lan"], ADDRESSES[node]["repl"]}
        assert len(ours) >= 5 and {address.rpartition(":")[0] for address in ours} <= own, ours
        assert {address.rpartition(":")[2] for address in ours} == {"5598", "5599", "5600"}


def test_an_inner_socket_asks_again(life: LabCluster) -> None:
    """Whoever goes past hactld to rfsmount's own socket, or has no role at hactld's, is asked by the kernel who they are, and sent away."""
    script = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for path in sys.argv[1:]:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(path)
        print("connected", path)
    except OSError as error:
        print(error.errno)
"""
    sockets = ["/run/lockstep/hactld.sock", "/var/lib/lockstep/modules/ledger/control.sock"]
    said = life.lab.run("node1", [sys.executable, "-I", "-c", script, *sockets]).stdout.split()
    assert said == ["13", "13"]

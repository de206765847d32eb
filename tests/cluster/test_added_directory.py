"""A directory is added to a module that serves: clients are answered all the time, nothing moves, and a node that takes over has it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from orchestrator.lab.cluster import SERVERS
from orchestrator.lab.scenarios import PLAIN, Theatre
from orchestrator.lab.scenarios.pair import MODULE, LedgerPair

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(200)]
MORE = "/srv/more"
SILENT_S = 1.5  # the moment in which the secondary leaves, and that in which it is back


@pytest.fixture
def pair(theatre: Theatre) -> Iterator[LedgerPair]:
    yield theatre.pair(PLAIN)
    theatre.strike()  # it has a directory more than the others expect


def test_a_module_that_serves_gets_one_more_directory(pair: LedgerPair) -> None:
    file = f"/etc/lockstep/modules/{MODULE}.toml"
    pair.wait_redundant("node1")
    more = pair.lab.run("node1", ["cat", file]).stdout.replace("[[vip]]", f'[[replicated]]\ndirectory = "{MORE}"\n[[vip]]')
    pair.put("node1", file, more)
    apply = ["hactl", "config", "apply", "--yes"]
    refused = pair.lab.run("node1", apply, check=False)
    assert refused.returncode == 6 and f"{MORE}: does not exist" in refused.stderr + refused.stdout, "nobody has made it"
    for node in SERVERS:
        pair.lab.run(node, ["mkdir", "-p", MORE])
    pair.lab.run("node2", ["touch", f"{MORE}/foreign"])
    refused = pair.lab.run("node1", apply, check=False)
    assert refused.returncode == 6 and "holds files" in refused.stderr + refused.stdout, "they would be lost"
    pair.lab.run("node2", ["rm", f"{MORE}/foreign"])
    pair.lab.run("node1", ["sh", "-c", f"for n in 1 2 3; do head -c 100000 /dev/urandom > {MORE}/file$n; done"])

    before = {node: pair.rfs_status(node)["pid"] for node in SERVERS}
    began = time.monotonic()
    said = pair.lab.run("node1", apply)
    assert "applied live" in said.stdout + said.stderr
    pair.until(lambda: all(len(pair.rfs_status(node)["directories"]) == 2 for node in SERVERS), "not both have it", 30)
    pair.directories.append(MORE)
    pair.wait_redundant("node1")
    pair.wait_acks()
    assert pair.longest_silence(began) < SILENT_S
    assert {node: pair.rfs_status(node)["pid"] for node in SERVERS} == before
    assert pair.serving() == ["node1"]
    pair.lab.run("node1", ["sh", "-c", f"echo mirrored > {MORE}/later"])
    pair.settle()

    pair.lab.kill("node1")
    pair.headless.add("node1")
    pair.wait_state("node2", "ALONE")
    assert pair.lab.run("node2", ["cat", f"{MORE}/later"]).stdout == "mirrored\n"
    pair.lab.run("node2", ["sh", "-c", f"echo alone >> {MORE}/later"])
    pair.boot("node1")
    pair.headless.discard("node1")
    pair.wait_together()
    pair.settle()

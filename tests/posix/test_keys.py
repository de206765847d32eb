"""Keys as a person handles them: two commands pair two nodes; what is not paired does not mirror; nothing secret is to be seen."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rfs import exit_codes
from rfs.keys import KeyStore
from tests.posix.node import Node, free_address, needs_mounts
from tests.unit.keyring import pair_keys

pytestmark = [pytest.mark.mount, needs_mounts]


def keys(*words: str, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rfs.cli", "keys", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, **more)  # type: ignore[call-overload,no-any-return]


def invite(node: Node, *more: str) -> tuple[subprocess.Popen[str], str]:
    """`keys init`, and the invitation that it shows."""
    command = [sys.executable, "-m", "rfs.cli", "keys", "init", "--state", str(node.state), "--node", node.name, *more]
    waiting = subprocess.Popen([*command, "--listen", free_address()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert waiting.stdout is not None
    for line in waiting.stdout:
        if found := re.search(r"keys join (\S+) --state", line):
            return waiting, found[1]
    raise AssertionError(f"no invitation: {waiting.communicate()}")


def fingerprint(text: str) -> str:
    found = re.search(r"fingerprint: (\S+)", text)
    assert found, text
    return found[1]


@pytest.fixture
def strangers(tmp_path: Path) -> tuple[Node, Node]:
    here, there = free_address(), free_address()
    return Node(tmp_path, "a", here, there), Node(tmp_path, "b", there, here)


def test_two_commands_pair_two_nodes(strangers: tuple[Node, Node]) -> None:
    a, b = strangers
    refused = a.mount("primary")
    assert refused.returncode == exit_codes.CONFIGURATION_INVALID and "keys init" in refused.stderr
    began = time.monotonic()
    waiting, invitation = invite(a)
    joined = keys("join", "-", "--state", str(b.state), "--node", "b", input=invitation + "\n")
    said, _ = waiting.communicate(timeout=10)
    assert time.monotonic() - began < 5, "pairing two fresh nodes takes less than five seconds"
    assert (joined.returncode, waiting.returncode) == (0, 0), joined.stderr
    assert fingerprint(said) == fingerprint(joined.stdout)
    shown = [json.loads(keys("show", "--state", str(node.state), "--json").stdout) for node in (a, b)]
    assert shown[0]["peers"][0]["words"] == shown[1]["peers"][0]["words"] == fingerprint(said)
    try:
        assert a.mount("primary").returncode == 0
        assert b.mount("secondary").returncode == 0
        a.until(link="paired", insecure=False, warnings=[])
        (a.directories[0] / "file").write_text("under TLS")
        assert a.tree() == b.tree()
        check_nothing_secret(a, b, invitation)
        assert keys("forget", "b", "--state", str(a.state)).returncode == 0
        b.until(link="connecting")
    finally:
        b.clean()
        a.clean()
    spent = keys("join", invitation, "--state", str(b.state))
    assert spent.returncode == exit_codes.PEER_NOT_REACHABLE and len(spent.stderr.strip().splitlines()) == 1


def check_nothing_secret(a: Node, b: Node, invitation: str) -> None:
    """Neither the key nor the code, in any form in which they are handled."""
    code = invitation.partition("@")[0]
    planted = [code, code.replace("-", "")]
    for node in (a, b):
        private = KeyStore(node.state / "keys").own().private
        planted += [line for line in private.splitlines() if line and "-----" not in line]
    seen = ""
    for node in (a, b):
        pid = (node.state / "rfsmount.pid").read_text().strip()
        seen += Path(f"/proc/{pid}/cmdline").read_text() + Path(f"/proc/{pid}/environ").read_text()
        seen += (node.state / "rfsmount.log").read_text()
        for words in (["status", "--json"], ["status"], ["stats"], ["keys", "show"], ["keys", "show", "--json"]):
            seen += node.run(*words).stdout
    assert len(seen) > 3000
    assert not [secret for secret in planted if secret in seen]


def test_a_key_is_replaced_while_the_mirror_runs(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    assert a.mount("primary").returncode == 0
    assert b.mount("secondary").returncode == 0
    a.until(link="paired")
    generation, before = a.status()["generation"], KeyStore(b.state / "keys").own().known.pin
    waiting, invitation = invite(b, "--new-key")
    assert keys("join", invitation, "--state", str(a.state)).returncode == 0
    waiting.communicate(timeout=10)
    assert waiting.returncode == 0 and KeyStore(b.state / "keys").own().known.pin != before
    assert (a.status()["link"], a.status()["generation"]) == ("paired", generation), "nothing was interrupted"
    b.kill()
    assert b.mount("secondary").returncode == 0
    b.until(link="paired")
    assert [pinned.pin for pinned in KeyStore(a.state / "keys").trust().of("b")] == [KeyStore(b.state / "keys").own().known.pin]


def test_who_is_not_paired_is_told_and_nothing_is_lost(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    assert a.mount("primary").returncode == 0
    stranger = KeyStore(b.state / "keys")
    for path in stranger.directory.iterdir():
        path.unlink()
    own = KeyStore(a.state / "keys").own()
    stranger.make("b")
    stranger.pin("a", own.known.certificate)  # it knows a; a knows another b
    refused = b.mount("secondary", "--timeout", "8")
    assert refused.returncode == exit_codes.REFUSED and "NOT_PAIRED" in refused.stderr, refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    counted = a.status()["refused_connections"]
    assert isinstance(counted, dict) and counted["wrong-key"] >= 1
    pair_keys(KeyStore(a.state / "keys"), stranger)
    b.until(link="paired", role="secondary")


def test_plain_text_and_keys_do_not_mix(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    assert a.mount("primary").returncode == 0
    refused = b.mount("secondary", "--insecure")
    assert refused.returncode == exit_codes.REFUSED and "--insecure" in refused.stderr
    assert a.status()["refused_connections"]["plaintext"] >= 1  # type: ignore[index]
    assert b.status()["insecure"] is True and [one["code"] for one in b.status()["warnings"]] == ["INSECURE"]  # type: ignore[attr-defined]

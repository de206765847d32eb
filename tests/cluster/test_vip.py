"""The service address in a network namespace of its own: found by subnet, probed, added with a lifetime, kept, removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]

SCRIPT = """
import subprocess, sys, trio
from orchestrator.effects import EffectFailed
from orchestrator.effects.vip import Vip, read_interfaces

def ip(*words):
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout

LINKS = ("link add left type veth peer name right", "link set lo up", "link set left up", "link set right up",
         "addr add 10.9.0.1/24 dev left")
for words in LINKS:
    ip(*words.split())
lost, log = [], []
vip = Vip([("10.9.0.100/24", None)], ["10.9.0.2"], lost.append, lambda kind, text: log.append(text))

async def main():
    assert not await vip.held()
    await vip.down()
    await vip.up(granted=False)
    shown = ip("addr", "show", "left")
    assert "10.9.0.100/24" in shown and "valid_lft 1" in shown, shown
    assert await vip.held()
    await vip.up(granted=False)
    await vip.keep()
    assert lost == []
    ip("addr", "del", "10.9.0.100/24", "dev", "left")
    vip._renewed_at = float("-inf")
    await vip.keep()
    assert "10.9.0.100" in lost[0]
    await vip.down()
    await vip.down()

    ip("addr", "add", "10.9.0.100/32", "dev", "right")  # somebody else has it
    try:
        await vip.up(granted=True)
        raise AssertionError("a stranger's address was taken")
    except EffectFailed as failure:
        assert "in use by another machine" in str(failure)
    vip.peer_macs.add(next(interface.mac for interface in read_interfaces() if interface.name == "right"))  # it is the peer
    try:
        await vip.up(granted=False)
        raise AssertionError("the peer's address was taken without a grant")
    except EffectFailed:
        pass
    await vip.up(granted=True)
    assert "10.9.0.100/24" in ip("addr", "show", "left")

    try:
        await Vip([("10.10.0.1/24", None)], [], lost.append, lambda kind, text: None).up(granted=False)
        raise AssertionError("an address without an interface was taken")
    except EffectFailed as failure:
        assert failure.refused and "interface" in str(failure)

trio.run(main)
"""


def test_vip() -> None:
    root = Path(__file__).parents[2]
    command = ["unshare", "--net", sys.executable, "-c", SCRIPT]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr

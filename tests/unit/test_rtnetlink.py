"""The kernel's own answers, in a network namespace of our own; `ip` is the witness."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.effects import rtnetlink

ROOT = Path(__file__).resolve().parents[2]


def shown() -> dict[str, dict[str, object]]:
    """The addresses on `wire` as `ip` shows them."""
    said = subprocess.run(["ip", "-j", "addr", "show", "wire"], capture_output=True, check=True).stdout
    return {entry["local"]: entry for entry in json.loads(said)[0]["addr_info"]}


def refusal(index: int, address: rtnetlink.Address) -> int | None:
    """Of taking it away."""
    try:
        rtnetlink.change_address("del", index, address)
    except OSError as error:
        return error.errno
    return None


def inside() -> None:
    """Run by the test below, where nothing but this is."""
    subprocess.run(["ip", "link", "add", "wire", "address", "02:00:00:00:00:07", "type", "veth", "peer", "name", "other"], check=True)
    for name in ("wire", "other"):
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
    link = next(link for link in rtnetlink.read_links() if link.name == "wire")
    assert link.mac == bytes.fromhex("020000000007")
    four, six = ipaddress.ip_interface("192.0.2.7/24"), ipaddress.ip_interface("2001:db8::7/64")
    for address in (four, six):
        rtnetlink.change_address("replace", link.index, address, valid_s=15, preferred_s=15)
    assert {four, six} <= set(next(each for each in rtnetlink.read_links() if each.name == "wire").addresses)
    assert shown()["192.0.2.7"]["broadcast"] == "192.0.2.255"
    assert shown()["192.0.2.7"]["valid_life_time"] == shown()["192.0.2.7"]["preferred_life_time"] == 15
    rtnetlink.change_address("replace", link.index, six, valid_s=30, preferred_s=0, flags=0x02 | 0x200)
    assert shown()["2001:db8::7"]["valid_life_time"] == 30 and shown()["2001:db8::7"]["deprecated"] is True
    rtnetlink.change_address("replace", link.index, four, valid_s=40, preferred_s=40)
    assert shown()["192.0.2.7"]["valid_life_time"] == 40
    for number in range(200):  # more than one answer of the kernel's holds
        rtnetlink.change_address("replace", link.index, ipaddress.ip_interface(f"198.51.100.{number + 1}/32"), valid_s=60, preferred_s=60)
    assert len(next(each for each in rtnetlink.read_links() if each.name == "wire").addresses) >= 202
    for address in (four, six):
        assert refusal(link.index, address) is None
        assert refusal(link.index, address) == errno.EADDRNOTAVAIL
    assert refusal(999, four) == errno.ENODEV


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_links_and_addresses() -> None:
    words = ["unshare", "--net", sys.executable, "-c", "from tests.unit import test_rtnetlink; test_rtnetlink.inside()"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr

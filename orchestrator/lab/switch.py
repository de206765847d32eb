"""The two networks: bridges in a network namespace of the lab's own, and what can be done to a cable.

A cut must be silent: no lost carrier, no error for the sender, only frames that never arrive. So
  both ways  the port is taken out of its bridge; what arrives there meets a machine with no address;
  in         (towards the node) the port's queue gets a limit of nothing;
  out        (from the node) frames are redirected, as they arrive at the port, into a cable that ends nowhere.
These need no packet filter and only what small kernels have too: pfifo, ingress, u32 and mirred.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from orchestrator.lab.plan import ADDRESSES, ADDRESSES_6, LANS, PREFIX_BITS, PREFIX_BITS_6, mac_address, port_name
from orchestrator.lab.tools import tool

Direction = Literal["both", "in", "out"]
NOWHERE = "nowhere"


class Switch:
    """The lab's switch; every method may be repeated."""

    def __init__(self, lab: str) -> None:
        self.namespace = f"lockstep-{lab}"

    def _ip(self, *words: str, check: bool = True) -> str:
        return tool("ip", "-n", self.namespace, *words, check=check)

    def _tc(self, *words: str, check: bool = True) -> str:
        return tool("tc", "-n", self.namespace, *words, check=check)

    def exists(self) -> bool:
        """Whether the namespace is there."""
        return any(line.split()[:1] == [self.namespace] for line in tool("ip", "netns", "list").splitlines())

    def build(self) -> None:
        """The namespace, both bridges and the cable to nowhere."""
        tool("ip", "netns", "add", self.namespace)
        # The switch itself must not speak: it has no addresses, and IPv6 would give it some.
        silence = "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $f; done"
        tool("ip", "netns", "exec", self.namespace, "sh", "-c", silence, check=False)
        self._ip("link", "set", "lo", "up")
        for lan in LANS:
            self._ip("link", "add", lan, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
            self._ip("link", "set", lan, "up")
        self._ip("link", "add", NOWHERE, "type", "veth", "peer", "name", f"{NOWHERE}.end")
        for name in (NOWHERE, f"{NOWHERE}.end"):
            self._ip("link", "set", name, "up")

    def remove(self) -> None:
        """All of it; the bridges and cables go with the namespace."""
        if self.exists():
            tool("ip", "netns", "delete", self.namespace)

    def plug(self, node: str, init_pid: int, cuts: Mapping[str, Direction]) -> None:
        """Cables from the node's namespace to its networks, addresses on them, and the cuts that were there before."""
        inside = ("nsenter", f"--target={init_pid}", "--net", "ip")
        tool(*inside, "link", "set", "lo", "up")
        for lan, address in ADDRESSES[node].items():
            port = port_name(node, lan)
            card = ("peer", "name", lan, "address", mac_address(node, lan), "netns", str(init_pid))
            self._ip("link", "add", port, "type", "veth", *card)
            self._ip("link", "set", port, "master", lan, "up")
            tool(*inside, "address", "add", f"{address}/{PREFIX_BITS}", "broadcast", "+", "dev", lan)
            tool(*inside, "link", "set", lan, "up")
            if lan in ADDRESSES_6[node]:  # where the kernel has IPv6
                tool(*inside, "address", "add", f"{ADDRESSES_6[node][lan]}/{PREFIX_BITS_6}", "dev", lan, "nodad", check=False)
            if lan in cuts:
                self.cut(node, lan, cuts[lan])

    def silence(self, node: str) -> None:
        """Nothing from or to the node any more, at once and without a word to it."""
        for lan in ADDRESSES[node]:
            self._ip("link", "set", port_name(node, lan), "nomaster", check=False)

    def unplug(self, node: str) -> None:
        """Take the cables away; they would go by themselves, but later than the next boot may want their names."""
        for lan in ADDRESSES[node]:
            self._ip("link", "delete", port_name(node, lan), check=False)

    def cut(self, node: str, lan: str, direction: Direction) -> None:
        """Frames on this cable are lost from now on."""
        self.heal(node, lan)
        port = port_name(node, lan)
        if direction == "both":
            self._ip("link", "set", port, "nomaster")
        elif direction == "in":
            self._tc("qdisc", "replace", "dev", port, "root", "pfifo", "limit", "0")
        else:
            self._tc("qdisc", "add", "dev", port, "clsact")
            match = ("ingress", "protocol", "all", "prio", "1", "u32", "match", "u32", "0", "0")
            self._tc("filter", "add", "dev", port, *match, "action", "mirred", "egress", "redirect", "dev", NOWHERE)

    def heal(self, node: str, lan: str) -> None:
        """The cable is whole."""
        port = port_name(node, lan)
        for place in ("root", "clsact"):
            self._tc("qdisc", "delete", "dev", port, place, check=False)
        self._ip("link", "set", port, "master", lan)

"""A cable that is not cut but bad: frames are lost, doubled, late, out of order, or too long to pass.

Small kernels have no netem, so the bad cable is a process: it stands between the node's port and the bridge and hands each frame on, or
not. It is found again by its command line, like a node's init, so a lab that crashed leaves none.

    python -m orchestrator.lab.wire run --lab=NAME PORT OTHER FLAWS     inside the switch's namespace, until killed
    python -m orchestrator.lab.wire plain INTERFACE                     inside a node's: frames as they will be on the wire
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

from orchestrator.lab.errors import LabError
from orchestrator.lab.plan import port_name
from orchestrator.lab.tools import command_line, process_ids, tool, wait_until

SIOCETHTOOL = 0x8946
SET_TX_CHECKSUM, SET_TSO, SET_GSO = 0x17, 0x1F, 0x24
ETH_P_ALL, ETH_ARP = 0x0003, b"\x08\x06"
FRAME_BYTES_MAX = 65536
READY_PATIENCE_S = 5.0
START_PATIENCE_S = 30.0  # of a Python process on a machine that is busy with other things
MODULE = "orchestrator.lab.wire"


@dataclass(frozen=True, slots=True)
class Flaws:
    """What is wrong with the cable, in both directions. Shares are between 0 and 1."""

    loss: float = 0.0
    duplicated: float = 0.0
    reordered: float = 0.0  # held back for a moment, so that later ones pass it
    delay_s: float = 0.0
    jitter_s: float = 0.0
    longest_bytes: int = 0  # longer frames never arrive, and nobody is told: a black hole for an MTU; 0: all pass
    without_peer: str = ""  # frames to or from this hardware address are lost
    announcements_lost: bool = False  # gratuitous ARP
    seed: int = 0


def is_announcement(frame: bytes) -> bool:
    """An ARP packet that tells of its own sender."""
    return frame[12:14] == ETH_ARP and frame[28:32] == frame[38:42]


class Wire:
    """Between two interfaces of this namespace."""

    def __init__(self, ends: tuple[str, str], flaws: Flaws) -> None:
        self.ends, self.flaws, self.random = ends, flaws, random.Random(flaws.seed)
        self.sockets = [self._open(name) for name in ends]
        self.late: list[tuple[float, int, int, bytes]] = []
        self.count = 0
        self.barred = bytes.fromhex(flaws.without_peer.replace(":", ""))

    @staticmethod
    def _open(name: str) -> socket.socket:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        opened.bind((name, 0))
        return opened

    def run(self) -> None:
        """Until killed, or until an end is gone."""
        while True:
            patience = max(0.0, self.late[0][0] - time.monotonic()) if self.late else None
            for ready in select.select(self.sockets, [], [], patience)[0]:
                try:
                    frame, sender = ready.recvfrom(FRAME_BYTES_MAX)
                except OSError:  # the interface went down, perhaps for a moment; when it is gone for good, its name is
                    socket.if_nametoindex(self.ends[self.sockets.index(ready)])
                    continue
                if sender[2] != socket.PACKET_OUTGOING:
                    self.take(frame, 1 - self.sockets.index(ready))
            while self.late and self.late[0][0] <= time.monotonic():
                _, _, to, frame = heapq.heappop(self.late)
                self.send(frame, to)

    def take(self, frame: bytes, to: int) -> None:
        """A frame on its way to an end."""
        flaws, chance = self.flaws, self.random.random
        if (
            (flaws.loss and chance() < flaws.loss)
            or (flaws.longest_bytes and len(frame) > flaws.longest_bytes)
            or (self.barred and self.barred in (frame[0:6], frame[6:12]))
            or (flaws.announcements_lost and is_announcement(frame))
        ):
            return
        for _ in range(2 if flaws.duplicated and chance() < flaws.duplicated else 1):
            late_s = flaws.delay_s + flaws.jitter_s * chance()
            if flaws.reordered and chance() < flaws.reordered:
                late_s += 0.005 + 0.02 * chance()
            if late_s:
                self.count += 1
                heapq.heappush(self.late, (time.monotonic() + late_s, self.count, to, frame))
            else:
                self.send(frame, to)

    def send(self, frame: bytes, to: int) -> None:
        """A full queue, or an interface that is not quite up, loses frames, as cables do."""
        with contextlib.suppress(OSError):
            self.sockets[to].send(frame)


def make_plain(interface: str) -> None:
    """Checksums and segments are made before the frames leave: a wire carries no promises of the kernel to itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for command in (SET_TX_CHECKSUM, SET_TSO, SET_GSO):
            value = bytearray(struct.pack("II", command, 0))
            pointer = (ctypes.c_char * len(value)).from_buffer(value)
            request = struct.pack("16sP", interface.encode(), ctypes.addressof(pointer))
            with contextlib.suppress(OSError):  # it cannot do this anyway
                fcntl.ioctl(asked, SIOCETHTOOL, request)


# ---- from outside -------------------------------------------------------------------------------------------------------------


def _ends(node: str, lan: str) -> tuple[str, str]:
    port = port_name(node, lan)
    return f"{port}.w", f"{port}.x"


def lay(lab: str, node: str, lan: str, init_pid: int, flaws: Flaws) -> None:
    """The node's cable to this network is bad from now on."""
    remove(lab, node, lan)
    namespace, port, (near, far) = f"lockstep-{lab}", port_name(node, lan), _ends(node, lan)
    here = [sys.executable, "-P", "-m", MODULE]
    tool("nsenter", f"--target={init_pid}", "--net", *here, "plain", lan)
    tool("ip", "-n", namespace, "link", "add", near, "type", "veth", "peer", "name", far)
    tool("ip", "netns", "exec", namespace, *here, "plain", far)
    for words in ((near, "up"), (far, "master", lan, "up"), (port, "nomaster")):
        tool("ip", "-n", namespace, "link", "set", *words)
    # The kernel looks at new cables once a second only; until then the bridge passes nothing on to this one.
    wait_until(lambda: '"operstate":"UP"' in tool("ip", "-n", namespace, "-j", "link", "show", "dev", far), READY_PATIENCE_S)
    # Not by `ip netns exec`: that makes a mount namespace, which here is one too many (see power.held_open).
    command = ["nsenter", f"--net=/run/netns/{namespace}", *here, "run", f"--lab={lab}", port, near, json.dumps(asdict(flaws))]
    started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    assert started.stdout is not None
    _UNREAPED.append(started)
    with started.stdout as said:
        is_ready = bool(select.select([said], [], [], START_PATIENCE_S)[0]) and said.readline() == b"ready\n"
    if not is_ready:
        raise LabError(f"The bad cable between {node} and {lan} does not begin to carry frames.")


_UNREAPED: list[subprocess.Popen[bytes]] = []  # killed by their number; their ends are collected with the next one


def find(lab: str, port: str | None = None) -> list[int]:
    """The bad cables of a lab."""
    wanted = {MODULE, "run", f"--lab={lab}"} | ({port} if port else set())
    return [pid for pid in process_ids() if wanted <= set(command_line(pid))]


def remove(lab: str, node: str | None = None, lan: str | None = None) -> None:
    """Take the bad cable out (the caller plugs the port into its bridge); without a node: all of the lab, which is being torn down."""
    for pid in find(lab, port_name(node, lan) if node and lan else None):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: command_line(pid) == (), READY_PATIENCE_S)  # type: ignore[misc]
    for process in _UNREAPED:
        process.poll()
    _UNREAPED[:] = [process for process in _UNREAPED if process.returncode is None]
    if node and lan:
        tool("ip", "-n", f"lockstep-{lab}", "link", "delete", _ends(node, lan)[0], check=False)


def main(arguments: list[str]) -> int:
    """See the module's text."""
    match arguments:
        case ["run", _, port, other, flaws]:
            wire = Wire((port, other), Flaws(**json.loads(flaws)))
            print("ready", flush=True)
            try:
                wire.run()
            except OSError as gone:  # the node lost its power, or the cable was unplugged
                print(gone, file=sys.stderr)
        case ["plain", interface]:
            make_plain(interface)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

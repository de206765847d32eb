"""Lines for systemd's journal, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram, never waited for."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path

SOCKET = Path("/run/systemd/journal/socket")
PRIORITY = {"fence": 4, "failed": 4, "rfs-gone": 4, "service-died": 4, "takeover": 5, "grant": 5}
USUAL = 6


class Journal:
    """Nothing happens where there is no journal, or it does not keep up."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, text: str, module: str, kind: str) -> None:
        """One line, with its module and kind as fields that journalctl can select by."""
        fields = {
            "MESSAGE": text, "PRIORITY": str(PRIORITY.get(kind, USUAL)), "SYSLOG_IDENTIFIER": "hactld",
            "LOCKSTEP_KIND": kind, **({"LOCKSTEP_MODULE": module} if module else {}),
        }  # fmt: skip
        with contextlib.suppress(OSError):
            self._socket.sendto(b"".join(encoded(name, value) for name, value in fields.items()), self._path)


def encoded(name: str, value: str) -> bytes:
    """NAME=value, or with its length where it has several lines."""
    data = value.encode()
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"

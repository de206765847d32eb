"""rfsmount's status of a lab node, asked from the host over the node's own control socket: about a millisecond, not a process each.

One connection is kept and made again when it breaks. None: nobody answers there (no rfsmount, a stopped one, a node without power).
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from rfs.control import protocol
from rfs.errors import PeerProtocolError

PATIENCE_S = 0.5


class RfsStatus:
    """Asks one rfsmount after the other, at one path."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._path: Path | None = None

    def ask(self, path: Path, patience_s: float = PATIENCE_S) -> dict[str, Any] | None:
        """The whole status as it is now."""
        for fresh in (False, True):  # the connection that was kept may lead to one that is dead by now
            if fresh or self._socket is None or path != self._path:
                self.close()
            try:
                return self._ask(path, patience_s)
            except TimeoutError:
                break
            except (OSError, EOFError, PeerProtocolError):
                continue
        self.close()
        return None

    def _ask(self, path: Path, patience_s: float) -> dict[str, Any] | None:
        if self._socket is None:
            self._connect(path, patience_s)
        assert self._socket is not None
        self._socket.sendall(protocol.encode(protocol.request(1, "status", {})))
        while True:
            answer = self._receive()
            if answer.get("id") == 1:
                result = answer.get("result")
                return result if isinstance(result, dict) else None

    def close(self) -> None:
        """Let the connection go."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _connect(self, path: Path, patience_s: float) -> None:
        self._socket, self._path = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path
        self._socket.settimeout(patience_s)
        self._socket.connect(str(path))
        protocol.check_hello(self._receive(), "rfsmount.control")
        self._socket.sendall(protocol.encode(protocol.client_hello()))

    def _receive(self) -> dict[str, Any]:
        return protocol.decode_body(self._exactly(protocol.decode_length(self._exactly(protocol.HEADER.size))))

    def _exactly(self, size_bytes: int) -> bytes:
        assert self._socket is not None
        pieces = bytearray()
        while len(pieces) < size_bytes:
            piece = self._socket.recv(size_bytes - len(pieces))
            if not piece:
                raise EOFError
            pieces += piece
        return bytes(pieces)

"""The control socket for the command line: blocking, one question at a time, nothing slow to import."""

import socket
from types import TracebackType
from typing import Any

from rfs import exit_codes
from rfs.control import protocol
from rfs.errors import PeerProtocolError, SaidNo


class BlockingClient:
    """A connection to a running rfsmount. Use as a context manager."""

    def __init__(self, state_directory: str, timeout_s: float | None = 5.0) -> None:
        self._path = f"{state_directory}/{protocol.SOCKET_NAME}"
        self._timeout_s = timeout_s
        self._number = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server: protocol.Message = {}

    def __enter__(self) -> "BlockingClient":
        self._socket.settimeout(5.0)
        try:
            self._socket.connect(self._path)
            self.server = self._receive()
            protocol.check_hello(self.server, "rfsmount.control")
            self._send(protocol.client_hello())
        except OSError as failure:
            self._socket.close()
            raise SaidNo(
                f"{self._path}: no rfsmount answers here ({failure.strerror or failure}); start it with 'rfsmount mount'",
                exit_codes.DAEMON_NOT_REACHABLE,
            ) from failure
        except PeerProtocolError as failure:
            self._socket.close()
            raise SaidNo(f"{self._path}: {failure}", exit_codes.FAILED) from failure
        self._socket.settimeout(self._timeout_s)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def call(self, method: str, params: dict[str, Any] | None = None) -> protocol.Message:
        """Ask, wait for the answer; a refusal is raised as SaidNo."""
        self._number += 1
        try:
            self._send(protocol.request(self._number, method, params or {}))
            while True:
                answer = self._receive()
                if answer.get("id") == self._number:
                    break
        except TimeoutError as failure:
            raise SaidNo(f"{self._path}: no answer to '{method}' within {self._timeout_s} s", exit_codes.TIMEOUT) from failure
        except (OSError, PeerProtocolError) as failure:
            raise SaidNo(f"{self._path}: rfsmount went away while '{method}' was asked ({failure})", exit_codes.FAILED) from failure
        if "error" in answer:
            raise protocol.refusal_in(answer)
        value = answer.get("result")
        return value if isinstance(value, dict) else {}

    def _send(self, message: protocol.Message) -> None:
        self._socket.sendall(protocol.encode(message))

    def _receive(self) -> protocol.Message:
        length = protocol.decode_length(self._exactly(protocol.HEADER.size))
        return protocol.decode_body(self._exactly(length))

    def _exactly(self, size_bytes: int) -> bytes:
        pieces = bytearray()
        while len(pieces) < size_bytes:
            piece = self._socket.recv(size_bytes - len(pieces))
            if not piece:
                raise ConnectionResetError("connection closed")
            pieces += piece
        return bytes(pieces)

"""What two nodes on one machine are connected by, so that it can be cut: each reaches the other through a port of ours."""

from __future__ import annotations

import socket
import threading


class Cable:
    """One way: connections to `address` go on to `target`, as long as the cable is whole."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._whole = True
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._connect, args=(here,), daemon=True).start()

    def _connect(self, here: socket.socket) -> None:
        host, _, port = self.target.rpartition(":")
        try:
            there = socket.create_connection((host, int(port)), 5)
        except OSError:
            here.close()
            return
        with self._lock:
            self._open += [here, there]
            whole = self._whole
        if not whole:
            self.cut()
        for one, other in ((here, there), (there, here)):
            threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(1 << 16):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self) -> None:
        """Nothing passes any more."""
        with self._lock:
            self._whole, broken, self._open = False, self._open, []
        for connection in broken:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            connection.close()

    def mend(self) -> None:
        """New connections pass again."""
        with self._lock:
            self._whole = True

    def close(self) -> None:
        """For good."""
        self._listener.close()
        self.cut()

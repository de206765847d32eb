"""A client of many addresses: who has which? Each is asked all the time, and when it answered goes to a file, a line each.

    python bench/many_prober.py OUT ADDRESS...

Nothing listens there. A machine that has the address refuses the connection at once, and that is the answer.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time

PORT, PATIENCE_S, PAUSE_S = 9, 0.1, 0.02


def ask(address: str) -> socket.socket:
    """A connection that is being made."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex((address, PORT))
    return sock


def probe(path: str, addresses: list[str]) -> None:
    """Until killed."""
    with open(path, "a", buffering=1) as out:
        while True:
            asked = selectors.DefaultSelector()
            sockets = [ask(address) for address in addresses]
            for sock, address in zip(sockets, addresses, strict=True):
                asked.register(sock, selectors.EVENT_WRITE, address)
            until = time.monotonic() + PATIENCE_S
            while asked.get_map() and (left_s := until - time.monotonic()) > 0:
                for key, _ in asked.select(left_s):
                    answered = key.fileobj
                    assert isinstance(answered, socket.socket)
                    asked.unregister(answered)
                    if answered.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, 111):  # ECONNREFUSED
                        out.write(f"{key.data} {time.monotonic():.6f}\n")
            asked.close()
            for sock in sockets:
                sock.close()
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    probe(sys.argv[1], sys.argv[2:])

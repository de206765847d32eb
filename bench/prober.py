"""A client that looks closely: a new connection, a line and its answer, again and again; when each was answered goes to a file.

    python bench/prober.py HOST PORT OUT

A connection that meets nobody is given up after a tenth of a second: TCP itself would ask again only after one, two, four seconds.
"""

from __future__ import annotations

import socket
import sys
import time

CONNECT_S, ANSWER_S, PAUSE_S = 0.1, 0.5, 0.005


def probe(host: str, port: int, path: str) -> None:
    """Until killed."""
    number = 0
    with open(path, "a", buffering=1) as out:
        while True:
            number += 1
            try:
                with socket.create_connection((host, port), CONNECT_S) as connection:
                    connection.settimeout(ANSWER_S)
                    connection.sendall(b"%d\n" % number)
                    if connection.makefile("rb").readline() == b"ok %d\n" % number:
                        out.write(f"{time.monotonic():.6f}\n")
            except OSError:
                pass
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    probe(sys.argv[1], int(sys.argv[2]), sys.argv[3])

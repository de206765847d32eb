"""The smallest application that cannot afford to lose a write: a ledger behind the service address.

    python -m orchestrator.lab.ledger serve FILE PORT [--no-sync]      answers "ok N" once line N is written (and synced)
                                      [--deaf]         and ignores TERM, as badly written services do
                                      after USR1 it lives on and answers nobody any more
    python -m orchestrator.lab.ledger write HOST PORT OUT [FIRST]      sends N, N+1, … for ever; appends every N it was told of to OUT

The writer never reuses a number: a line whose answer was lost may or may not be in the ledger, and that is not a lie.
"""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import sys
import threading
import time

CONNECT_TIMEOUT_S = 1.0
ANSWER_TIMEOUT_S = 3.0
RETRY_S = 0.02


def serve(path: str, port: int, sync: bool) -> None:
    """One line per request, appended and durable before the answer."""
    ledger = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    sulks = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                if sulks.is_set():
                    return
                os.write(ledger, line)
                if sync:
                    os.fdatasync(ledger)
                self.wfile.write(b"ok " + line)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("", port), Handler) as server:

        def sulk(number: int, frame: object) -> None:
            sulks.set()
            threading.Thread(target=server.shutdown).start()

        signal.signal(signal.SIGUSR1, sulk)
        server.serve_forever()
    while True:
        signal.pause()


def write(host: str, port: int, out_path: str, first: int) -> None:
    """Until killed. Every acknowledged number is on the disk of the client, with its time, before the next is sent."""
    number = first
    with open(out_path, "a", buffering=1) as out:
        while True:
            try:
                with socket.create_connection((host, port), CONNECT_TIMEOUT_S) as connection:
                    connection.settimeout(ANSWER_TIMEOUT_S)
                    answers = connection.makefile("rb")
                    while True:
                        asked, number = number, number + 1
                        connection.sendall(b"%d\n" % asked)
                        if answers.readline() != b"ok %d\n" % asked:
                            break
                        out.write(f"{asked} {time.monotonic():.6f}\n")
            except OSError:
                time.sleep(RETRY_S)


def main(arguments: list[str]) -> int:
    """See the module's text."""
    match arguments:
        case ["serve", path, port, *flags]:
            if "--deaf" in flags:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            serve(path, int(port), "--no-sync" not in flags)
        case ["write", host, port, out, *first]:
            write(host, int(port), out, int(first[0]) if first else 1)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

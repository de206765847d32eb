"""What a TLS scanner looks for, at the doors of Lockstep: which versions, suites and shortcuts are taken, and whose keys.

A door of rfsmount wants a preamble before TLS (rfs/handshake.py), which no scanner in the world sends; and no scanner has a paired key to
try what comes after. So this is one of our own, on the `ssl` module and, for what that cannot say, on `openssl s_client` behind a relay
that does the preamble. Each probe is one connection, and its verdict one word:

    refused     the other end broke off: an alert, or an end
    accepted    it took the key and waits for what we have to say
    plain       it answered, and not in TLS

    python -m tests.security.scan ADDRESS:PORT [--preamble] --peer KEYS [--stranger PEM] [--source ADDRESS]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 1.5
Connect = Callable[[], socket.socket]  # a fresh connection, at the point where TLS begins


@dataclass(frozen=True, slots=True)
class Probe:
    """How one connection was taken."""

    name: str
    verdict: str
    text: str = ""


def context_of(identity: Path | None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client that believes everything, and shows this key."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if version is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that is what is asked
            made.minimum_version = made.maximum_version = version
        made.set_ciphers("ALL:@SECLEVEL=0")
    if identity is not None:
        made.load_cert_chain(identity)
    return made


def judge(secured: ssl.SSLSocket) -> tuple[str, str]:
    """In TLS 1.3 whoever dialed learns that it was refused when it reads."""
    secured.settimeout(PATIENCE_S)
    try:
        got = secured.recv(1)
    except TimeoutError:
        return "accepted", "waits"
    except OSError as error:
        return "refused", str(error)
    return ("accepted", "speaks") if got else ("refused", "closed")


def attempt(
    name: str, connect: Connect, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[Probe, ssl.SSLSocket | None]:
    """One handshake with this context."""
    try:
        raw = connect()
    except OSError as error:
        return Probe(name, "refused", str(error)), None
    try:
        raw.settimeout(6)
        secured = context.wrap_socket(raw, session=session)
    except OSError as error:
        raw.close()
        return Probe(name, "refused", str(error)), None
    return Probe(name, *judge(secured)), secured


def version_probes(connect: Connect, identity: Path | None) -> Iterator[Probe]:
    """TLS 1.3 and nothing older, even with the right key."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2):
            yield closed(attempt(version.name, connect, context_of(identity, version)))


def closed(made: tuple[Probe, ssl.SSLSocket | None]) -> Probe:
    """The probe, without its connection."""
    probe, secured = made
    if secured is not None:
        secured.close()
    return probe


def key_probe(name: str, connect: Connect, identity: Path | None) -> Probe:
    """Is this key let in?"""
    return closed(attempt(name, connect, context_of(identity)))


def ticket_probe(connect: Connect, identity: Path) -> Probe:
    """With the right key: is a ticket handed out, with which the next connection could do without a handshake? Is anything compressed?"""
    probe, secured = attempt("tickets and compression", connect, context_of(identity))
    if secured is None or probe.verdict != "accepted":
        return Probe(probe.name, "not let in", probe.text)
    with secured:
        ticket = secured.session is not None and secured.session.has_ticket
        taken = "accepted" if ticket or secured.compression() or secured.version() != "TLSv1.3" else "refused"
        return Probe(probe.name, taken, str(secured.cipher()))


def resumption_probe(connect: Connect, identity: Path) -> Probe:
    """With the right key and a ticket of another server with the same key: is there a whole handshake all the same?"""
    context = context_of(identity)
    with ticketing_server(identity) as elsewhere:
        first, taught = attempt("a ticket from elsewhere", elsewhere, context)
        assert taught is not None and taught.session is not None and taught.session.has_ticket, f"our own server gives tickets: {first}"
        session = taught.session
        taught.close()
    probe, secured = attempt("resumption", connect, context, session)
    if secured is None or probe.verdict != "accepted":
        return Probe(probe.name, "not let in", probe.text)
    with secured:
        return Probe(probe.name, "accepted" if secured.session_reused else "refused", probe.text)


@contextlib.contextmanager
def ticketing_server(identity: Path) -> Iterator[Connect]:
    """A server with the same key that does hand out tickets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError), context.wrap_socket(listening.accept()[0], server_side=True) as secured:
                secured.sendall(b"x")
                secured.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield lambda: socket.create_connection(listening.getsockname(), 5)
        thread.join(5)


def plain_probe(connect: Connect) -> Probe:
    """Somebody who speaks no TLS."""
    with contextlib.closing(connect()) as raw:
        raw.settimeout(6)
        try:
            raw.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" + bytes(300))
            got = raw.recv(100)
        except OSError as error:
            return Probe("plaintext", "refused", str(error))
    return Probe("plaintext", "refused" if not got or got[0] == 21 else "plain", repr(got[:20]))  # 21: an alert


# ---- what only openssl can say ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def relay_to(connect: Connect) -> Iterator[str]:
    """An address on which the door can be reached by a program that knows no preamble."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def pump(one: socket.socket, other: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while piece := one.recv(65536):
                    other.sendall(piece)
                other.shutdown(socket.SHUT_WR)

        def serve() -> None:
            while True:
                try:
                    here = listening.accept()[0]
                except OSError:
                    return
                try:
                    there = connect()
                except OSError:
                    here.close()
                    continue
                there.settimeout(None)
                for pair in ((here, there), (there, here)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        host, port = listening.getsockname()
        yield f"{host}:{port}"


def s_client(address: str, identity: Path, *words: str) -> str:
    """What `openssl s_client` says of one connection."""
    command = ["openssl", "s_client", "-connect", address, "-cert", str(identity), "-key", str(identity), *words]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
    except subprocess.TimeoutExpired as late:
        return ((late.stdout or b"") + (late.stderr or b"")).decode(errors="replace")
    return (done.stdout + done.stderr).decode(errors="replace")


def openssl_probes(connect: Connect, identity: Path) -> Iterator[Probe]:
    """Suites one by one; data before the handshake (0-RTT) with a ticket from elsewhere."""
    if shutil.which("openssl") is None:
        return
    with relay_to(connect) as address, tempfile.TemporaryDirectory() as place:
        for suite in ("TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"):
            said = s_client(address, identity, "-tls1_3", "-ciphersuites", suite)
            yield Probe(suite, "accepted" if f"Cipher is {suite}" in said else "refused")
        early = Path(place, "early")
        early.write_bytes(b"early")
        ticket = early_ticket(identity, Path(place, "ticket"))
        said = s_client(address, identity, "-tls1_3", "-sess_in", str(ticket), "-early_data", str(early))
        offered = "Early data was" in said
        yield Probe("0-RTT", "accepted" if "Early data was accepted" in said or not offered else "refused", f"offered: {offered}")


def early_ticket(identity: Path, place: Path) -> Path:
    """A ticket that is good for data before the handshake, of a server with the same key."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        address = f"127.0.0.1:{found.getsockname()[1]}"
    own = ["-cert", str(identity), "-key", str(identity)]
    server = ["openssl", "s_server", "-accept", address, *own, "-tls1_3", "-early_data", "-naccept", "1"]
    client = ["openssl", "s_client", "-connect", address, "-tls1_3", "-sess_out", str(place)]
    quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as serving:
        assert serving.stdout is not None
        for line in serving.stdout:
            if line.startswith(b"ACCEPT"):
                break
        with subprocess.Popen(client, **quiet) as taking:  # type: ignore[call-overload]
            for line in serving.stdout:
                if line.startswith(b"-----END SSL SESSION"):
                    break
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline and not (place.exists() and b"-----END SSL" in place.read_bytes()):
                select.select([], [], [], 0.02)
            taking.kill()
        serving.kill()
    return place


def scan(connect: Connect, identity: Path, stranger: Path | None) -> list[Probe]:
    """Everything, at one door. `identity`: a key that is paired there."""
    found = [plain_probe(connect), *version_probes(connect, identity), key_probe("no key", connect, None)]
    if stranger is not None:
        found.append(key_probe("a stranger's key", connect, stranger))
    found += [key_probe("right key", connect, identity), ticket_probe(connect, identity), resumption_probe(connect, identity)]
    return [*found, *openssl_probes(connect, identity)]


WANTED_ACCEPTED = frozenset({"right key"})


def wrong_in(found: list[Probe]) -> list[Probe]:
    """What should have been otherwise."""
    return [probe for probe in found if probe.verdict != ("accepted" if probe.name in WANTED_ACCEPTED else "refused")]


def door(host: str, port: int, source: str = "", preamble: bytes = b"", expected: bytes = b"") -> Connect:
    """How to get to where TLS begins."""

    def connect() -> socket.socket:
        raw = socket.create_connection((host, port), 5, (source, 0) if source else None)
        if preamble:
            raw.sendall(preamble)
            got = b""
            while len(got) < len(preamble) and (piece := raw.recv(len(preamble) - len(got))):
                got += piece
            if expected and got != expected:
                raw.close()
                raise ConnectionRefusedError(f"the preamble was answered with {got!r}")
        return raw

    return connect


def control_door(host: str, port: int, source: str = "") -> Connect:
    """rfsmount's, for a control connection."""
    from rfs.handshake import Answer, Kind, Preamble, encode_preamble

    asked, granted = Preamble(Kind.CONTROL, secure=True), Preamble(Kind.CONTROL, secure=True, answer=Answer.ACCEPTED)
    return door(host, port, source, encode_preamble(asked), encode_preamble(granted))


def main(words: list[str]) -> int:
    """The exit code: 0, or 1 when a door takes what it should not."""
    parser = argparse.ArgumentParser(prog="scan", description="What a door of Lockstep takes.")
    parser.add_argument("address")
    parser.add_argument("--preamble", action="store_true", help="rfsmount's control link; else hactld's calls")
    parser.add_argument("--peer", type=Path, required=True, help="identity.pem of the paired node")
    parser.add_argument("--stranger", type=Path)
    parser.add_argument("--source", default="")
    options = parser.parse_args(words)
    host, _, port = options.address.rpartition(":")
    connect = control_door(host, int(port), options.source) if options.preamble else door(host, int(port), options.source)
    found = scan(connect, options.peer, options.stranger)
    for probe in found:
        print(json.dumps({"probe": probe.name, "verdict": probe.verdict, "text": probe.text}))
    return 1 if wrong_in(found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Heartbeats that nobody else can make, change or repeat: each datagram is sealed with AES-128-GCM.

The key. The two nodes' pinned keys agree on a secret (ECDH); every process adds a random number of its own, its *run*, and so has a key
that no other process ever had. Within a run each datagram has its own number, the nonce. Both go along in the clear, so a datagram
is opened without any conversation before it: after a power cut the first pulse already counts. With --insecure the secret is a constant:
the same bytes, no protection.

The replays. Whoever records datagrams can send them again, so a run is believed only after it has echoed a number of ours that is younger
than our first sight of that run: whoever was recorded cannot have. After that its numbers only count once (a window of 64, per network:
datagrams overtake each other). And one that was held back on one network while others went on counts as of then, not as of its arrival
(heartbeat.py). So neither yesterday's pulse nor one of an earlier process, nor one of a minute ago, says that a node lives. Who is
on *every* network's path can hold all of them back; that is a cut of all networks, or a peer that does not hear us.

Rotation. While a key is replaced both keys of either side count: what was sealed with any of them is opened. A new key is a new run.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from rfs import certificates
from rfs.errors import SaidNo
from rfs.keys import KeyStore

MAGIC: Final = b"LSHB"
VERSION: Final = 2
RUN_BYTES: Final = 16
WINDOW: Final = 64
HEADER: Final = struct.Struct("<4sBxH16sQ")  # magic, version, network, run, number
TAG_BYTES: Final = 16
OVERHEAD_BYTES: Final = HEADER.size + TAG_BYTES
UNPROVEN_MAX: Final = 64  # whoever has recorded more of the peer's processes can keep a new one waiting
INSECURE_SECRET: Final = b"lockstep --insecure"


class Unsealed(Exception):
    """These bytes are no datagram of the peer's; `kind` is what is counted."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def derive(secret: bytes, run: bytes, sender: str, receiver: str, cluster: str) -> AESGCM:
    """The key of one run in one direction."""
    info = b"\0".join([b"lockstep heartbeat/2", cluster.encode(), sender.encode(), receiver.encode()])
    return AESGCM(HKDF(hashes.SHA256(), 16, salt=run, info=info).derive(secret))


class Secrets:
    """The secrets that count between this node and its peer, the newest first; read anew when the keys change."""

    def __init__(self, keys: KeyStore | None, peer: str) -> None:
        self.keys, self.peer = keys, peer
        self._stamp: tuple[int, ...] | None = None
        self._cluster, self._secrets = "insecure", [INSECURE_SECRET] if keys is None else []
        self.trouble = ""

    def now(self) -> tuple[str, list[bytes]]:
        """The cluster's id and the secrets; none while nobody is paired. Keys that cannot be read leave what was known before."""
        if self.keys is not None and (stamp := self.keys.stamp()) != self._stamp:
            self._stamp = stamp
            try:
                trust, owns = self.keys.trust(), self.keys.every_own()
                pins = trust.of(self.peer)[::-1]
                agreed = [certificates.agree(own.private, pinned.certificate) for own in owns for pinned in pins]
            except SaidNo as trouble:
                self.trouble = trouble.sentence
            except ValueError as damage:
                self.trouble = f"{self.keys.directory}: a key cannot be read ({damage})"
            else:
                self._cluster, self._secrets, self.trouble = trust.cluster, agreed, ""
        return self._cluster, self._secrets


class Sealer:
    """Seals what this process says."""

    def __init__(self, secrets: Secrets, node: str) -> None:
        self._secrets, self._node = secrets, node
        self._made_of: tuple[str, bytes] | None = None
        self.run = b""
        self.runs: list[bytes] = []  # of this process: an echo of an earlier one is still ours

    def renew(self) -> bool:
        """Take today's key, if it is another one: a new run. False while there is nobody to talk to."""
        cluster, secrets = self._secrets.now()
        if not secrets:
            return False
        if (cluster, secrets[0]) != self._made_of:
            self._made_of, self.run = (cluster, secrets[0]), os.urandom(RUN_BYTES)
            self.runs = [*self.runs[-3:], self.run]
            self._cipher = derive(secrets[0], self.run, self._node, self._secrets.peer, cluster)
        return True

    def seal(self, text: bytes, network: int, name: str, number: int) -> bytes:
        """The datagram. Never twice the same network and number in one run."""
        header = HEADER.pack(MAGIC, VERSION, network, self.run, number)
        return header + self._cipher.encrypt(_nonce(network, number), text, header + name.encode())


def _nonce(network: int, number: int) -> bytes:
    return struct.pack("<IQ", network, number)


@dataclass(slots=True)
class Window:
    """Which numbers of one run were seen on one network."""

    newest: int = 0
    seen: int = 0  # bit n: newest - n

    def is_news(self, number: int) -> bool:
        """Never seen, and not too old to know."""
        return number > self.newest or (self.newest - number < WINDOW and not self.seen >> (self.newest - number) & 1)

    def note(self, number: int) -> None:
        """Seen now."""
        if number > self.newest:
            older = self.seen << (number - self.newest) if number - self.newest < WINDOW else 0
            self.seen = (older | 1) & ((1 << WINDOW) - 1)
            self.newest = number
        else:
            self.seen |= 1 << (self.newest - number)


@dataclass(slots=True)
class Run:
    """One process of the peer, as far as we know it."""

    cipher: AESGCM
    secret: bytes
    first_seen_at: int  # our number then
    windows: dict[int, Window] = field(default_factory=dict)


class Opener:
    """Opens what the peer says, once, and believes only who is there now."""

    def __init__(self, secrets: Secrets, node: str, our_number: Callable[[], int]) -> None:
        self._secrets, self._node, self._our_number = secrets, node, our_number
        self._runs: dict[bytes, Run] = {}  # unproven ones, and the one that is
        self.proven: bytes | None = None

    def open(self, datagram: bytes, name: str) -> tuple[bytes, bytes, int]:
        """The text, its run and its number; Unsealed for everything that is not the peer's, or not new."""
        if len(datagram) < OVERHEAD_BYTES or datagram[:4] != MAGIC:
            raise Unsealed("malformed")
        _, version, network, run, number = HEADER.unpack_from(datagram)
        if version != VERSION:
            raise Unsealed("other-version")
        known = self._runs.get(run)
        if known is not None and known.secret not in self._secrets.now()[1]:
            del self._runs[run]  # the key was replaced or revoked since
            known = None
        header, sealed = datagram[: HEADER.size], datagram[HEADER.size :]
        text, found = self._decrypt(known, run, _nonce(network, number), sealed, header + name.encode())
        window = found.windows.setdefault(network, Window()) if len(found.windows) < 16 else Window(newest=1 << 64)
        if not window.is_news(number):
            raise Unsealed("replayed")
        window.note(number)
        if known is None:
            self._remember(run, found)
        return text, run, number

    def _decrypt(self, known: Run | None, run: bytes, nonce: bytes, sealed: bytes, aad: bytes) -> tuple[bytes, Run]:
        cluster, secrets = self._secrets.now()
        fresh = (Run(derive(secret, run, self._secrets.peer, self._node, cluster), secret, self._our_number()) for secret in secrets)
        for candidate in [known] if known is not None else fresh:
            try:
                return candidate.cipher.decrypt(nonce, sealed, aad), candidate
            except InvalidTag:
                continue
        raise Unsealed("not-authentic")

    def _remember(self, run: bytes, found: Run) -> None:
        for old in self.unproven[: max(len(self.unproven) - UNPROVEN_MAX + 1, 0)]:
            del self._runs[old]
        self._runs[run] = found

    @property
    def unproven(self) -> list[bytes]:
        """The runs that have yet to show that they are there now, the newest last."""
        return [run for run in self._runs if run != self.proven]

    def believes(self, run: bytes, echo: int) -> bool:
        """Is this the peer of now? `echo`: the newest number of *our own* run that it has heard; 0: none."""
        if run == self.proven:
            return True
        if echo <= self._runs[run].first_seen_at:
            return False
        if self.proven is not None:
            self._runs.pop(self.proven, None)
        self.proven = run
        return True

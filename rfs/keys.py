"""A node's key, and whose keys it trusts: one directory that only root can read.

    identity.pem   this node's private key and certificate, in one file so that both are replaced at once; a few words for people above
    next.pem       the key to come, while a rotation is under way
    former.pem     the key of before, until the peer has been told (heartbeats made with it are still understood)
    trust.json     the cluster's id, the peers' pinned keys (two of one peer while it replaces its key), the revoked ones
    lock           held while any of them is changed

Every connection reads them anew, so that a key that is paired, replaced or revoked counts from then on without a restart. Reading
needs no cryptography but the standard library's.
"""

import fcntl
import hashlib
import json
import os
import secrets
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from rfs import exit_codes
from rfs.durably import sync_directory, write_durably
from rfs.errors import SaidNo
from rfs.foreign import from_json

IDENTITY: Final = "identity.pem"
NEXT: Final = "next.pem"
FORMER: Final = "former.pem"
TRUST: Final = "trust.json"
PINS_MAX: Final = 2
RETIRED_MAX: Final = 16
SOON_S: Final = 30 * 86400


@dataclass(frozen=True, slots=True)
class Pinned:
    """A key that is trusted: the SHA-256 of the public key, the certificate that carried it, and until when that is valid."""

    pin: str
    certificate: str
    expires: int

    @property
    def digest(self) -> bytes:
        """SHA-256 of the certificate itself."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate)).digest()


@dataclass(frozen=True, slots=True)
class Own:
    """This node's key: never printed, never logged."""

    node: str
    known: Pinned
    private: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom this node believes. Of each peer the newest key is last."""

    cluster: str = ""
    peers: dict[str, tuple[Pinned, ...]] = field(default_factory=dict)
    retired: dict[str, tuple[str, ...]] = field(default_factory=dict)  # replaced in order: a session may still run under one
    revoked: tuple[str, ...] = ()

    def of(self, peer: str) -> tuple[Pinned, ...]:
        """The keys of a peer that count."""
        return tuple(pinned for pinned in self.peers.get(peer, ()) if pinned.pin not in self.revoked)


class KeyStore:
    """The directory. Calls block for small files; what is wrong with them is one sentence."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._stamped = [str(self.directory / name) for name in (IDENTITY, NEXT, FORMER, TRUST)]

    # ---- reading ------------------------------------------------------------------------------------------------------------------------

    @property
    def identity_path(self) -> Path:
        """What TLS loads."""
        return self.directory / IDENTITY

    def exists(self) -> bool:
        """Has this node a key?"""
        return self.identity_path.exists()

    def own(self, name: str = IDENTITY) -> Own:
        """This node's key of today."""
        text = self._read(name)
        words = dict(line.split(": ", 1) for line in text.partition("-----BEGIN")[0].splitlines() if ": " in line)
        blocks = [f"-----BEGIN{block}" for block in text.split("-----BEGIN")[1:]]
        try:
            private = next(block for block in blocks if "PRIVATE KEY" in block)
            certificate = next(block for block in blocks if "CERTIFICATE" in block)
            return Own(words["node"], Pinned(words["pin"], certificate, int(words["expires"])), private)
        except (StopIteration, KeyError, ValueError) as failure:
            raise self._bad(name, "is not a key of this program; move the directory away and pair the nodes again") from failure

    def every_own(self) -> list[Own]:
        """Today's key first, then those that count beside it during a rotation."""
        return [self.own(), *(self.own(name) for name in (NEXT, FORMER) if (self.directory / name).exists())]

    def trust(self) -> Trust:
        """Whom this node believes now."""
        try:
            raw: Any = from_json(self._read(TRUST))
            peers = {name: tuple(_pinned_from(entry) for entry in entries) for name, entries in raw["peers"].items()}
            retired = {name: tuple(pins) for name, pins in raw.get("retired", {}).items()}
            return Trust(str(raw["cluster"]), peers, retired, tuple(raw["revoked"]))
        except FileNotFoundError:
            return Trust()
        except (ValueError, KeyError, TypeError, AttributeError) as failure:
            raise self._bad(TRUST, "is damaged; pair the nodes again, or bring it back from a backup") from failure

    def stamp(self) -> tuple[int, ...]:
        """Changes with every change of the files."""
        return tuple(map(_stamp, self._stamped))

    def _read(self, name: str) -> str:
        path = self.directory / name
        try:
            with path.open() as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise self._bad(name, f"can be read by others than its owner: run 'chmod 600 {path}', and replace the key if they did")
                return file.read()
        except FileNotFoundError:
            if name == TRUST:
                raise
            raise self._bad(name, "is missing: pair the nodes first") from None
        except (OSError, UnicodeDecodeError) as failure:
            raise self._bad(name, f"cannot be read ({failure})") from failure

    def _bad(self, name: str, what: str) -> SaidNo:
        return SaidNo(f"{self.directory / name}: {what}", exit_codes.CONFIGURATION_INVALID)

    # ---- changing -----------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chmod(self.directory, 0o700)
            with open(os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as failure:
            sentence = f"{self.directory}: the keys cannot be written ({failure.strerror}); see to the disk, then run the command again"
            raise SaidNo(sentence, exit_codes.FAILED) from failure

    def _write(self, name: str, text: str) -> None:
        write_durably(self.directory / name, text.encode())

    def _write_trust(self, trust: Trust) -> None:
        peers = {name: [asdict(pinned) for pinned in pins] for name, pins in trust.peers.items() if pins}
        retired = {name: list(pins) for name, pins in trust.retired.items() if pins}
        document = {"cluster": trust.cluster, "peers": peers, "retired": retired, "revoked": list(trust.revoked)}
        self._write(TRUST, json.dumps(document, indent=1) + "\n")

    def own_of(self, node: str) -> Own:
        """This node's key, which must be the key of `node`."""
        own = self.own()
        if own.node != node:
            raise SaidNo(f"{self.directory}: is the key of node '{own.node}', not of '{node}'", exit_codes.CONFIGURATION_INVALID)
        return own

    def node_name(self) -> str:
        """The node whose key it is; the host's name while there is none."""
        return self.own().node if self.exists() else os.uname().nodename.split(".")[0]

    def expiry_alarms(self, peer: str) -> list[tuple[str, str]]:
        """Which node's certificate, this one's or the peer's newest, has run out or soon will, and the sentence about it."""
        own = self.own()
        found = [(own.node, own.known.expires), *((peer, pinned.expires) for pinned in self.trust().of(peer)[-1:])]
        return [(node, alarm) for node, expires in found if (alarm := expiry_alarm(f"node {node}", expires))]

    def make(self, node: str, *, name: str = IDENTITY, days: int | None = None) -> Own:
        """A new key of this node, and a cluster's id if there is none yet. One that is there already stays."""
        from rfs import certificates

        with self._changing():
            if (self.directory / name).exists():
                return self.own(name)
            private, certificate = certificates.make(node) if days is None else certificates.make(node, days)
            words = f"node: {certificate.node}\npin: {certificate.pin}\nexpires: {certificate.expires}\n"
            self._write(name, words + private + certificate.pem)
            trust = self.trust()
            if not trust.cluster:
                self._write_trust(replace(trust, cluster=secrets.token_hex(16)))
        return self.own(name)

    def pin(self, peer: str, certificate_pem: str, *, under: str | None = None, cluster: str | None = None) -> Pinned:
        """Trust this key of a peer, from now on. A key that was revoked stays revoked; ValueError for what is no key of the peer's.

        `under`: the key under which the peer told it, which must still count. `cluster`: become one of the cluster with this id."""
        from rfs import certificates

        found = certificates.read(certificate_pem)
        if found.node != peer:
            raise ValueError(f"a certificate of '{found.node}' where one of '{peer}' was expected")
        pinned = Pinned(found.pin, found.pem, found.expires)
        with self._changing():
            trust = self.trust()
            if under is not None and under not in [known.pin for known in trust.of(peer)]:
                raise ValueError(f"the key under which {peer} speaks does not count any more")
            if found.pin in trust.revoked:
                raise ValueError(f"this key of {peer} was revoked; {peer} must make a new one")
            # The oldest is the one in use: of a rotation that was cut short it is the key to come that gives way.
            others = tuple(known for known in trust.of(peer) if known.pin != pinned.pin)
            peers = {**trust.peers, peer: (*others[: PINS_MAX - 1], pinned)}
            self._write_trust(replace(trust, cluster=cluster or trust.cluster, peers=peers))
        return pinned

    def proven(self, peer: str, pin: str) -> None:
        """The peer has used its newest key: the one before it counts no longer."""
        pins = self.trust().of(peer)
        if len(pins) < 2 or pins[-1].pin != pin:
            return
        with self._changing():
            trust = self.trust()
            if trust.of(peer) and trust.of(peer)[-1].pin == pin:
                retired = (*trust.retired.get(peer, ()), *(known.pin for known in trust.of(peer)[:-1]))[-RETIRED_MAX:]
                peers = {**trust.peers, peer: trust.of(peer)[-1:]}
                self._write_trust(replace(trust, peers=peers, retired={**trust.retired, peer: retired}))

    def forget(self, peer: str) -> int:
        """Revoke every key of a peer, for good; how many there were."""
        with self._changing():
            trust = self.trust()
            gone = tuple(pinned.pin for pinned in trust.peers.get(peer, ()))
            peers = {name: pins for name, pins in trust.peers.items() if name != peer}
            retired = {name: pins for name, pins in trust.retired.items() if name != peer}
            revoked = (*trust.revoked, *trust.retired.get(peer, ()), *gone)
            self._write_trust(replace(trust, peers=peers, retired=retired, revoked=revoked))
        return len(gone)

    def discard_next(self) -> None:
        """A key that was to come, and will not."""
        with self._changing():
            (self.directory / NEXT).unlink(missing_ok=True)

    def activate_next(self) -> Own:
        """The staged key becomes this node's key."""
        with self._changing():
            self._write(FORMER, self._read(IDENTITY))
            os.replace(self.directory / NEXT, self.identity_path)
            sync_directory(self.directory)
        return self.own()

    def drop_former(self) -> None:
        """The peer knows the new key: the old one is not needed any more."""
        with self._changing():
            (self.directory / FORMER).unlink(missing_ok=True)
            sync_directory(self.directory)


def _pinned_from(entry: Any) -> Pinned:
    """As it was written; ValueError or TypeError for what was not."""
    found = Pinned(**entry)
    if not (isinstance(found.pin, str) and isinstance(found.certificate, str) and type(found.expires) is int):
        raise ValueError("not a key")
    return found


# ---- for people -------------------------------------------------------------------------------------------------------------------------

_CONSONANTS, _VOWELS = "bdfghjklmnprstvz", "aiou"


def _stamp(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def words(data: bytes) -> str:
    """Eight bytes as four words that can be read out (proquints): sixteen bits a word, consonants of four and vowels of two in turn."""
    spoken = []
    for at in range(0, 8, 2):
        bits = int.from_bytes(data[at : at + 2], "big")
        letters = (
            _CONSONANTS[bits >> 12],
            _VOWELS[bits >> 10 & 3],
            _CONSONANTS[bits >> 6 & 15],
            _VOWELS[bits >> 4 & 3],
            _CONSONANTS[bits & 15],
        )
        spoken.append("".join(letters))
    return "-".join(spoken)


def fingerprint(cluster: str, pins: list[str]) -> str:
    """The same words on both nodes if, and only if, they mean the same cluster and each other's keys."""
    return words(hashlib.sha256("\n".join([cluster, *sorted(pins)]).encode()).digest())


def expiry_alarm(who: str, expires: int, now: float | None = None) -> str:
    """A sentence when a certificate has run out or soon will; the clock has no other say."""
    left_s = expires - (time.time() if now is None else now)
    if left_s > SOON_S:
        return ""
    when = "has expired" if left_s <= 0 else f"expires in {int(left_s // 86400)} days"
    return f"the certificate of {who} {when}: the pair goes on, replace the key when it suits you"

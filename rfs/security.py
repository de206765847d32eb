"""How the links of one rfsmount are protected: by the keys of a directory, or, with --insecure, not at all.

`control` and `data` turn a connection whose preambles are done into one whose other end is known. There is no third way and no falling
back: a node with keys takes nothing without them, and one without keys cannot pretend.
"""

import logging
import os
from collections import Counter

import trio

from rfs import exit_codes, tls
from rfs.engine import Channel
from rfs.errors import SaidNo
from rfs.keys import KeyStore
from rfs.tls import Known, Refused

log = logging.getLogger("rfs.peer")

DATA_HANDSHAKE_TIMEOUT_S = 5.0


class Security:
    """One per process. `refused` counts, by kind, the connections that did not get in."""

    def __init__(self, keys: KeyStore | None, peer: str = "") -> None:
        self.keys = keys
        self.peer = peer  # the peer's name, as its certificate says it
        self.refused: Counter[str] = Counter()

    @property
    def is_secure(self) -> bool:
        """False: --insecure."""
        return self.keys is not None

    async def control(self, stream: trio.abc.Stream, *, dialed: bool) -> tuple[trio.abc.Stream, Known | None]:
        """The control connection, encrypted, and who is there (None: anybody). Raises tls.Refused."""
        if self.keys is None:
            return stream, None
        try:
            return await tls.secure(stream, self.keys, [self.peer], dialed=dialed)
        except SaidNo as trouble:
            raise Refused("own-keys", trouble.sentence) from trouble

    async def data(self, descriptor: int, *, dialed: bool) -> Channel:
        """The data connection as the engine takes it; the descriptor is owned by it in any case. Raises tls.Refused."""
        if self.keys is None:
            return Channel(descriptor)
        try:
            pins = [pinned.pin for pinned in self.keys.trust().of(self.peer)]
            return await Channel.secure(
                descriptor, str(self.keys.identity_path), self.peer, pins, dialed=dialed, timeout_s=DATA_HANDSHAKE_TIMEOUT_S
            )
        except OSError as failure:
            raise Refused("data-link", f"data link: {failure.strerror}") from failure
        except SaidNo as trouble:
            os.close(descriptor)
            raise Refused("own-keys", trouble.sentence) from trouble

    def is_revoked(self, known: Known | None) -> bool:
        """Was the key of this established connection revoked since?"""
        try:
            if self.keys is None or known is None:
                return False
            trust = self.keys.trust()
            return known.pin in trust.revoked or not trust.of(known.node)
        except SaidNo:
            return False  # files that cannot be read revoke nothing; `alarms` tells of them

    def alarms(self) -> list[str]:
        """What people should know of the keys: one that expires, ours or the peer's."""
        if self.keys is None:
            return []
        try:
            if self.peer and not self.keys.trust().of(self.peer):
                return [f"no key of {self.peer} is paired with this node: nothing is mirrored"]
            return [alarm for _, alarm in self.keys.expiry_alarms(self.peer)]
        except SaidNo as trouble:
            return [trouble.sentence]

    def check(self, peer_wanted: str, node: str, state_directory: str) -> None:
        """At the start: a key of this very node; which peer. SaidNo tells the next step. A peer that is named need not be paired (any
        more): a node whose peer's keys were revoked must be able to serve."""
        if self.keys is None:
            return
        if not self.keys.exists():
            raise SaidNo(
                f"this node has no key yet: run 'rfsmount keys init --state {state_directory}' on one node and the 'keys join' that it "
                "shows on the other, or add --insecure if the network is yours alone",
                exit_codes.CONFIGURATION_INVALID,
            )
        self.keys.own_of(node)
        trust = self.keys.trust()
        paired = [peer for peer in trust.peers if trust.of(peer)]
        if not peer_wanted and len(paired) != 1:
            which = f"paired with {' and '.join(paired)}: name one with --peer-node" if paired else "not paired with any peer"
            raise SaidNo(f"{self.keys.directory}: node '{node}' is {which}", exit_codes.CONFIGURATION_INVALID)
        self.peer = peer_wanted or paired[0]

    def announce(self) -> None:
        """For the log of this run."""
        if self.keys is None:
            log.warning("links are NOT protected (--insecure): whoever reaches this network can read and change the data")
        else:
            log.info("links are protected peer=%s key=%s", self.peer, self.keys.own().known.pin[:16])
        for alarm in self.alarms():
            log.warning("%s", alarm)

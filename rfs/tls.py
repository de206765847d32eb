"""TLS 1.3 between two nodes that have pinned each other's keys, on a trio stream. (The data link's is the engine's: csrc/channel.c.)

The pinned certificates are the only anchors, and they are compared themselves as well: no authority, no name service, no clock. An expired
certificate whose key is pinned is still the peer's (keys.expiry_alarm tells people). No resumption, no tickets, no older version.
"""

import hashlib
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from rfs.errors import PeerProtocolError, SaidNo
from rfs.keys import KeyStore, Pinned

log = logging.getLogger("rfs.peer")

HANDSHAKE_TIMEOUT_S = 5.0
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name


@dataclass(frozen=True, slots=True)
class Known:
    """Who is at the other end, proven."""

    node: str
    pin: str


class Refused(PeerProtocolError):
    """Whoever is there is not a peer of ours; `kind` is what is counted."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


def _context(keys: KeyStore, anchors: Sequence[Pinned], *, dialed: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if dialed else ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # names are compared by ourselves, on both sides alike
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME) | ssl.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if not dialed:
        context.num_tickets = 0
    context.load_cert_chain(keys.identity_path)
    context.load_verify_locations(cadata="".join(pinned.certificate for pinned in anchors))
    return context


async def secure(
    stream: trio.abc.Stream, keys: KeyStore, peers: Sequence[str], *, dialed: bool
) -> tuple[trio.SSLStream[trio.abc.Stream], Known]:
    """The encrypted stream and who is at its other end: one of `peers`, or Refused. The caller closes `stream` in any case.

    In TLS 1.3 whoever dialed learns that its own key was refused only when it reads: see `sentence`."""
    keys.own()  # whose sentence is better than the ssl module's when it is missing
    trust = keys.trust()
    anchors = {pinned: peer for peer in peers for pinned in trust.of(peer)}
    if not anchors:
        raise Refused("not-paired", f"no key of {' or '.join(peers) or 'a peer'} is paired with this node")
    secured = trio.SSLStream(stream, _context(keys, list(anchors), dialed=dialed), server_side=not dialed, https_compatible=True)
    try:
        with trio.fail_after(HANDSHAKE_TIMEOUT_S):
            await secured.do_handshake()
    except trio.TooSlowError as failure:
        raise Refused("silent", f"no end of the TLS handshake within {HANDSHAKE_TIMEOUT_S:.0f} s") from failure
    except (trio.BrokenResourceError, ssl.SSLError) as failure:
        raise Refused(kind_of(failure), sentence(failure)) from failure
    certificate = secured.getpeercert(binary_form=True)
    assert certificate, "a peer without a certificate does not get through the handshake"
    digest = hashlib.sha256(certificate).digest()
    for pinned, peer in anchors.items():
        if pinned.digest == digest:
            names = [name for kind, name in secured.getpeercert()["subjectAltName"] if kind == "DNS"]
            if names != [peer]:
                break
            await _note_proven(keys, peer, pinned.pin, one_of=len(trust.of(peer)))
            return secured, Known(peer, pinned.pin)
    raise Refused("wrong-key", "a certificate that is not the paired one")


async def _note_proven(keys: KeyStore, peer: str, pin: str, *, one_of: int) -> None:
    """The first use of a new key retires the old one. It is housekeeping: what cannot be written now is written at the next connection."""
    if one_of < 2:
        return
    try:
        await trio.to_thread.run_sync(keys.proven, peer, pin)
    except SaidNo as trouble:
        log.warning("the replaced key of %s still counts: %s", peer, trouble.sentence)


def _cause(failure: BaseException) -> BaseException:
    inner = failure
    while inner.__cause__ is not None and not isinstance(inner, ssl.SSLError):
        inner = inner.__cause__
    return inner


def kind_of(failure: BaseException) -> str:
    """What is counted of a handshake that failed."""
    text = str(_cause(failure))
    if "CERTIFICATE_VERIFY_FAILED" in text or "UNKNOWN_CA" in text or "CERTIFICATE_UNKNOWN" in text or "BAD_CERTIFICATE" in text:
        return "wrong-key"
    if "PEER_DID_NOT_RETURN_A_CERTIFICATE" in text:
        return "no-key"
    if "WRONG_VERSION_NUMBER" in text or "HTTP_REQUEST" in text or "RECORD" in text:
        return "not-tls"
    if "PROTOCOL" in text or "VERSION" in text:
        return "old-tls"
    return "tls"


_SENTENCES = {
    "wrong-key": "the key at the other end is not paired with this node, or this node's key not with it",
    "no-key": "the other end shows no key",
    "old-tls": "the other end does not speak TLS 1.3",
    "not-tls": "what the other end speaks is not TLS",
}


def sentence(failure: BaseException) -> str:
    """Why, for the log."""
    kind = kind_of(failure)
    if kind in _SENTENCES:
        return _SENTENCES[kind]
    inner = _cause(failure)
    reason = getattr(inner, "reason", None) or str(inner) or "the other end hung up"
    return f"TLS: {reason}"

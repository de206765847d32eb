"""Making and reading keys and certificates, by the `cryptography` library. Only who makes or pins a key imports this.

A node has one P-256 key: it signs in TLS and agrees on the heartbeats' keys. Its certificate is self-signed and says the node's name; there
is no authority above it. What is trusted is the key itself, pinned at the pairing (keys.py).
"""

import datetime
import hashlib
import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rfs.errors import SaidNo

VALID_DAYS = 3650
NODE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")
BEGINNING = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)  # whatever this node's clock says today: it has no say


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says. `pin` is the SHA-256 of the public key (SPKI), in hex; `expires` is seconds since 1970."""

    node: str
    pin: str
    expires: int
    pem: str


def make(node: str, days: int = VALID_DAYS) -> tuple[str, Certificate]:
    """A new private key (PEM) and its certificate."""
    if not NODE_NAME.fullmatch(node):
        raise SaidNo(f"'{node}' cannot be a node's name: use letters, digits, '-' and '.', at most 63", 2)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(BEGINNING, now + datetime.timedelta(days=days - 1)))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(node)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()  # fmt: skip
    return private, read(made.public_bytes(serialization.Encoding.PEM).decode())


def read(pem: str) -> Certificate:
    """A certificate as this program makes them; ValueError with the reason for any other."""
    if len(pem) > 8192:
        raise ValueError("a certificate of more than 8 KiB")
    try:
        return _read(pem)
    except ValueError:
        raise
    except Exception as failure:  # of a stranger's bytes the library raises what it likes
        raise ValueError(f"a certificate that cannot be read ({type(failure).__name__})") from failure


def _read(pem: str) -> Certificate:
    found = x509.load_pem_x509_certificate(pem.encode())
    key = found.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("a certificate whose key is not of the curve P-256")
    try:
        found.verify_directly_issued_by(found)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except (InvalidSignature, TypeError, x509.ExtensionNotFound) as failure:
        raise ValueError("a certificate that is not signed by its own key, or names no node") from failure
    if len(names) != 1 or not NODE_NAME.fullmatch(names[0]):
        raise ValueError("a certificate that does not name one node")
    public = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    # Written anew: what is stored and compared is the certificate and nothing around it.
    clean = found.public_bytes(serialization.Encoding.PEM).decode()
    return Certificate(names[0], hashlib.sha256(public).hexdigest(), int(found.not_valid_after_utc.timestamp()), clean)


def agree(private_pem: str, certificate_pem: str) -> bytes:
    """The secret that the holders of both keys share (ECDH); 32 bytes."""
    private = serialization.load_pem_private_key(private_pem.encode(), None)
    public = x509.load_pem_x509_certificate(certificate_pem.encode()).public_key()
    assert isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(public, ec.EllipticCurvePublicKey), (
        "keys of this program are P-256"
    )
    return private.exchange(ec.ECDH(), public)

"""What one rfsmount was told on its command line."""

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from rfs import exit_codes
from rfs.errors import SaidNo
from rfs.etcd_endpoint import Endpoint
from rfs.patterns import Patterns
from rfs.refuses import Refuses


class OnPeerLoss(StrEnum):
    """What a primary does that lost its peer: grant itself under the rules, or wait for somebody's grant."""

    ALONE = "alone"
    FREEZE = "freeze"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or to call: an IP address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """All of `rfsmount mount`'s options, checked for themselves but not yet against the machine."""

    directories: tuple[str, ...]
    state_directory: str
    wish_primary: bool
    listen: Address
    peer: Address
    cluster: str
    module: str
    node: str
    on_peer_loss: OnPeerLoss = OnPeerLoss.ALONE
    replace_data: bool = False
    seeded: bool = False  # the word that a new secondary's files are a copy of the peer's data
    insecure: bool = False
    keys_directory: str = ""
    peer_node: str = ""
    foreground: bool = False
    timeout_s: float = 30.0
    link_timeout_s: float = 5.0
    resync_bytes_per_s: int = 0
    required_files: tuple[str, ...] = ()
    patterns: tuple[Patterns, ...] = ()  # by the directories' positions; empty: everything is replicated
    checkpoint_s: float = 30.0  # at most so long does what is durable on both nodes stay marked
    ack_disk: bool = False  # mirrored means: on the peer's disk
    refuses: Refuses = Refuses.NOTHING  # what is not let into the directories, whoever asks
    witness: tuple[Endpoint, ...] = ()  # the members of one etcd; none: the policy grants
    witness_ca: str = ""  # a file; empty: the system's


def parse_address(text: str, option: str) -> Address:
    """`ADDR:PORT` or `[ADDR]:PORT`."""
    host, separator, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        if not separator:
            raise ValueError("the port is missing")
        ipaddress.ip_address(host)
        number = int(port)
        if not 0 < number < 65536:
            raise ValueError(f"{number} is no port")
    except ValueError as failure:
        raise SaidNo(
            f"{option} {text}: expected an IP address and a port like 192.0.2.11:5600 ({failure})", exit_codes.CONFIGURATION_INVALID
        ) from failure
    return Address(host, number)


def parse_witness(url: str) -> Endpoint:
    """`http://HOST[:PORT]` or `https://HOST[:PORT]`; etcd's port is 2379."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.username:
            raise ValueError("a scheme, a host, a port")
        return Endpoint(parts.hostname, parts.port or 2379, parts.scheme == "https")
    except ValueError as failure:
        raise SaidNo(
            f"--witness {url}: expected the client address of an etcd like http://192.0.2.21:2379 ({failure})",
            exit_codes.CONFIGURATION_INVALID,
        ) from failure

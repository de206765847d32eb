"""What checkers look at, as people write it: `127.0.0.1:5432`, `http://127.0.0.1/health`, `5%`, `2xx`.

Pure, and without pydantic: the models check with these functions, the kinds read with them.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from orchestrator.units import parse_size_bytes

_PERCENT = re.compile(r"(\d{1,2}(?:\.\d+)?)\s*%")
_STATUS = re.compile(r"[1-5](?:\d\d|xx)")
_UNFIT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.:@-]+")
NAME_CHARACTERS_MAX = 63


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host (address or name) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """`127.0.0.1:5432`, `[::1]:5432`, `db.example:5432`."""
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or (":" in bare and bare == host) or any(each.isspace() for each in text) or not _is_port(port):
        raise ValueError(f'"{text}" is not a place to connect to; write for example 127.0.0.1:5432 or [::1]:5432')
    return Endpoint(bare, int(port))


@dataclass(frozen=True, slots=True)
class Url:
    """Where an HTTP server is, and what it is asked for."""

    secure: bool
    endpoint: Endpoint
    authority: str  # as it was written: what the server is told
    target: str


def parse_url(text: str) -> Url:
    """`http://127.0.0.1:8080/health`; no user, no fragment."""
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = 0
    named = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc and not parts.fragment
    if not named or port == 0 or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f'"{text}" is not a URL that can be asked for; write for example http://127.0.0.1:8080/health')
    assert parts.hostname is not None
    secure = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(secure, Endpoint(parts.hostname, port or (443 if secure else 80)), parts.netloc, target)


def parse_status(text: str) -> range:
    """`200`, or all of `2xx`."""
    if not _STATUS.fullmatch(text):
        raise ValueError(f'"{text}" is not an HTTP status; write for example 200 or "2xx"')
    return range(int(text[0]) * 100, int(text[0]) * 100 + 100) if text.endswith("xx") else range(int(text), int(text) + 1)


@dataclass(frozen=True, slots=True)
class Free:
    """How much must be free: a part of the whole, or so many bytes."""

    percent: float = 0.0
    size_bytes: int = 0

    def enough(self, free: int, total: int) -> bool:
        """A file system that counts nothing (no inodes, say) has enough of it."""
        return total <= 0 or (free >= self.size_bytes and free * 100 >= self.percent * total)


def parse_free(text: str) -> Free:
    """`5%` or `1GiB`."""
    if percent := _PERCENT.fullmatch(text.strip()):
        return Free(percent=float(percent[1]))
    try:
        return Free(size_bytes=parse_size_bytes(text))
    except ValueError:
        raise ValueError(f'"{text}" is neither a part nor a size; write for example 5% or 1GiB') from None


def is_loopback(host: str) -> bool:
    """Is it this machine, whichever that is?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def name_from(target: str) -> str:
    """A resource's name made of what it looks at."""
    return _UNFIT_IN_A_NAME.sub("-", target).strip("-.:")[:NAME_CHARACTERS_MAX]


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text) <= 65535

"""Names and addresses replaced by others, the same one by the same one everywhere. Pure.

Addresses go into the ranges that are kept for documents and tests (RFC 5737, 2544, 3849): those of one subnet stay together in one, equal
ones stay equal, and so routes and networks still make sense. Nodes become nodeA, nodeB; users userA; directories dirA. What every machine
has (root, postgres, /var/lib, 127.0.0.1) stays. The catalogue that leads back is for the person who made it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

DOCUMENT_NETWORKS: Final = ("192.0.2", "198.51.100", "203.0.113")
BENCHMARK: Final = "198.18"
MORE_BENCHMARK: Final = "198.19"

_USERS: Final = """
root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody _apt messagebus polkitd sshd
syslog systemd-network systemd-resolve systemd-timesync systemd-journal systemd-coredump postgres mysql mariadb nginx redis
etcd ntp chrony tcpdump rpc statd dnsmasq avahi adm tty disk kmem dialout fax voice cdrom floppy tape sudo audio dip operator
src shadow utmp video sasl plugdev staff users input sgx kvm render crontab netdev ssl-cert docker wheel nogroup
"""
COMMON_USERS: Final = frozenset(_USERS.split())
_WORDS: Final = """
bin boot dev etc home lib lib32 lib64 media mnt opt proc root run sbin srv sys tmp usr var cache log local share spool mail
www html data database db pgdata main pg postgresql mysql mariadb nginx lockstep modules keys hactld scripts redis etcd log
wal pg_wal lines state kept backup conf conf.d config application app apps service services python3 sh bash env src git 15 16
17 14 13 12 8.0
"""
COMMON_WORDS: Final = frozenset(_WORDS.split())
COMMON_MODULES: Final = frozenset(["pg", "postgresql", "postgres", "mysql", "mariadb", "nginx", "web", "light", "generic", "redis"])
_FOUR: Final = re.compile(r"(?<!\d)(?<!\d\.)(?:\d{1,3}\.){3}\d{1,3}(?!\d|\.\d)")
_SIX: Final = re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])")
_HARDWARE: Final = re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}(?![\w:])")
_MAIL: Final = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")


def _letters(number: int) -> str:
    """A, B … Z, AA …"""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(65 + rest) + text
    return text


class Anonymiser:
    """One for all files of a snapshot."""

    def __init__(self) -> None:
        self.catalogue: dict[str, str] = {}  # what was, and what stands for it
        self._counts: dict[str, int] = {}
        self._subnets: dict[str, str] = {}
        self._subnets6: dict[str, str] = {}
        self._words: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None

    # ---- learning ---------------------------------------------------------------------------------------------------------

    def nodes(self, names: Iterable[str]) -> None:
        """Hosts."""
        for name in names:
            self._word(name, "node")
            if "." in name:
                self._word(name.partition(".")[0], "node")
                self._word(name.partition(".")[2], "domain")

    def cluster(self, name: str) -> None:
        """The cluster's name."""
        self._word(name, "cluster")

    def modules(self, names: Iterable[str]) -> None:
        """Those whose name says something."""
        for name in names:
            if name not in COMMON_MODULES:
                self._word(name, "module")

    def users(self, names: Iterable[str]) -> None:
        """Those that not every machine has."""
        for name in names:
            if name not in COMMON_USERS:
                self._word(name, "user")

    def paths(self, paths: Iterable[str]) -> None:
        """What is somebody's own in the names of directories and programs."""
        for path in paths:
            for piece in path.split("/"):
                if piece and piece not in COMMON_WORDS and len(piece) > 2 and not piece.isdigit():
                    self._word(piece, "dir")

    def _word(self, word: str, kind: str) -> None:
        if len(word) < 2 or word in self._words or word in ("localhost", "localdomain"):
            return
        self._words[word] = self._next(kind)
        self._pattern = None

    def _next(self, kind: str) -> str:
        number = self._counts.get(kind, 0)
        self._counts[kind] = number + 1
        return f"{kind}{_letters(number)}"

    # ---- replacing --------------------------------------------------------------------------------------------------------

    def apply(self, text: str) -> str:
        """The text with other names."""
        text = _MAIL.sub(lambda match: self._named(match[0], "mail"), text)
        text = _HARDWARE.sub(lambda match: self._hardware(match[0]), text)
        text = _SIX.sub(lambda match: self._six(match[0]), text)
        text = _FOUR.sub(lambda match: self._four(match[0]), text)
        if self._words:
            if self._pattern is None:
                longest_first = sorted(self._words, key=len, reverse=True)
                self._pattern = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, longest_first))})(?![A-Za-z0-9])")
            text = self._pattern.sub(lambda match: self._note(match[0], self._words[match[0]]), text)
        return text

    def _note(self, was: str, becomes: str) -> str:
        self.catalogue[was] = becomes
        return becomes

    def _named(self, was: str, kind: str) -> str:
        return self.catalogue[was] if was in self.catalogue else self._note(was, self._next(kind))

    def _hardware(self, was: str) -> str:
        key = was.lower()
        if key in ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"):
            return was
        if key not in self.catalogue:
            number = self._counts.get("mac", 0)
            self._counts["mac"] = number + 1
            self._note(key, f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}")
        return self.catalogue[key]

    def _four(self, was: str) -> str:
        if was in self.catalogue:
            return self.catalogue[was]
        try:
            address = ipaddress.IPv4Address(was)
        except ValueError:
            return was
        if address.is_loopback or address.is_unspecified or address.is_multicast or int(address) >> 24 == 255:
            return was
        subnet, _, host = was.rpartition(".")
        if subnet not in self._subnets:
            self._subnets[subnet] = _subnet(len(self._subnets))
        return self._note(was, f"{self._subnets[subnet]}.{host}")

    def _six(self, was: str) -> str:
        if was in self.catalogue:
            return self.catalogue[was]
        try:
            address = ipaddress.IPv6Address(was)
        except ValueError:
            return was
        if address.is_loopback or address.is_unspecified or address.is_multicast:
            return was
        local = address.is_link_local
        subnet = "fe80::" if local else f"{int(address) >> 64:x}"
        if subnet not in self._subnets6:
            self._subnets6[subnet] = "fe80::" if local else f"2001:db8:0:{len(self._subnets6) + 1:x}::"
        host = self._counts.get(subnet, 0) + 1
        self._counts[subnet] = host
        return self._note(was, f"{self._subnets6[subnet]}{host:x}")


def _subnet(number: int) -> str:
    if number < len(DOCUMENT_NETWORKS):
        return DOCUMENT_NETWORKS[number]
    number -= len(DOCUMENT_NETWORKS)
    return f"{BENCHMARK}.{number}" if number < 256 else f"{MORE_BENCHMARK}.{number % 256}"


def learn_from(anonymiser: Anonymiser, facts: Mapping[str, Any]) -> None:
    """Everything that one node's facts name. Another node's may be of another version, or of whoever has that node."""

    def table(place: str, key: str) -> dict[str, Any]:
        found = facts.get(place)
        inner = found.get(key) if isinstance(found, Mapping) else None
        return inner if isinstance(inner, dict) else {}

    def names(place: str, key: str) -> list[str]:
        found = facts.get(place)
        inner = found.get(key) if isinstance(found, Mapping) else None
        named = inner if isinstance(inner, list | dict) else [inner]
        return [name for name in named if isinstance(name, str) and name]

    anonymiser.nodes([*names("configuration", "nodes"), *names("identity", "hostname")])
    for cluster in names("configuration", "cluster"):
        anonymiser.cluster(cluster)
    anonymiser.modules(names("configuration", "modules"))
    anonymiser.users([*names("accounts", "users"), *names("accounts", "groups")])
    for owners in table("owners", "by_path").values():
        found = [owners.get(kind) for kind in ("uids", "gids")] if isinstance(owners, dict) else []
        anonymiser.users(str(name) for named in found if isinstance(named, dict) for name in named.values())
    anonymiser.paths(names("directories", "by_path"))
    services = facts.get("services")
    listed = services.get("services") if isinstance(services, Mapping) else None
    for service in listed if isinstance(listed, list) else ():
        if isinstance(service, dict):
            anonymiser.paths([str(service.get("program", ""))])

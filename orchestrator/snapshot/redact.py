"""Taking secrets out of texts. Pure.

It is done twice over. What *looks* like a secret where it stands (a private key, `PGPASSWORD=…`, `user:password@`, a bearer's token, the
environment of a service) is removed there. And its value is remembered: where the same word stands somewhere else, in a log or a list of
processes, without anything that tells what it is, it is removed as well. So all texts are read before the first one is cleaned.

When in doubt it goes: a value that was harmless is missed by nobody, one that was not cannot be taken back.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any, Final

REMOVED: Final = "[removed]"
LENGTH_MIN: Final = 4  # of what is removed wherever it stands
PLAIN_LENGTH_MIN: Final = 8  # of what stands in an environment under a harmless name

_SECRET: Final = r"(?:passw(?:or)?d|passwd|passphrase|pwd|secret|token|api[_-]?key|private[_-]?key|access[_-]?key|credentials?)"
_QUOTED: Final = r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\''
_VALUE: Final = rf"(?P<value>{_QUOTED}|[^\s,;&|)}}\]\"']+)"

PRIVATE_KEY: Final = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL)
VALUES: Final = (
    # What stands before the telling word in a name is not looked for: a pattern that begins anywhere is tried again at every letter.
    re.compile(rf"(?i)(?P<name>{_SECRET}[\w.-]{{0,64}})[\"']?\s{{0,8}}[=:]\s{{0,8}}{_VALUE}"),  # NAME=value, "name": "value", name: value
    re.compile(rf"(?i)(?P<option>{_SECRET}[\w.-]{{0,64}})(?:\s{{1,8}}|[\"']\s{{0,8}},\s{{0,8}}){_VALUE}"),  # --name value
    re.compile(r"(?i)\b(?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?(?:bearer|basic|token|digest)?\s*(?P<value>[^\s\"',;]+)"),
    re.compile(r"(?i)\bbearer\s+(?P<value>[\w.~+/=-]{8,})"),
    re.compile(r"(?<![\w+.-])[a-zA-Z][\w+.-]{0,20}://[^\s/:@\"']{0,100}:(?P<value>[^\s/@\"']{1,200})@"),  # scheme://user:password@
    re.compile(r"(?<![\w+.-])[a-zA-Z][\w+.-]{0,20}://(?P<value>[^\s/:@\"']{16,200})@"),  # scheme://token@
    re.compile(r"\b(?:mysql|mysqldump|mysqladmin|mariadb[\w-]*)\b[^\n|;]{0,300}?\s-p(?P<value>[^\s-][^\s]*)"),
    re.compile(r"\bsshpass\s+-p\s*(?P<value>\S+)"),
    re.compile(r"\bcurl\b[^\n|;]{0,300}?\s(?:-u|--user)[ =]?[\"']?[^\s:\"']+:(?P<value>[^\s\"']+)"),
    re.compile(rf"(?i)\bidentified\s+(?:with\s+\S+\s+)?by\s+(?P<value>{_QUOTED})"),
    re.compile(r"(?i)\bpassword\s+(?P<value>'[^'\n]*')"),  # ALTER USER … PASSWORD '…'
    re.compile(r"(?m)^[\w.*-]+:(?:\d+|\*):[^:\n]*:[^:\n]*:(?P<value>[^\s:]+)$"),  # .pgpass
)
TOKENS: Final = re.compile(
    r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}|xox[abprs]-[A-Za-z0-9-]{10,}|glpat-[\w-]{16,}|sk-[A-Za-z0-9_-]{20,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?)|(?<![\w-])(?:[0-9A-HJKMNP-TV-Z]{4}-){6}[0-9A-HJKMNP-TV-Z]{4}(?![\w-])"  # the last: pairing
)
NO_SECRET_NAME: Final = re.compile(r"(?i)(?:_|-|\.)?(?:file|path|dir|directory|timeout|length|min|max|policy|count|expires?)$")
NO_SECRET_VALUE: Final = frozenset({"true", "false", "null", "none", "yes", "no", "required", "[removed]", "md5", "peer", "trust"})
OPTION: Final = re.compile(r"(?<!\w)--?[\w.-]*\Z")
NAME_CHARACTERS_MAX: Final = 64
INLINE: Final = r"environment\s*=\s*\{([^}]{0,4000})\}"
ENVIRONMENT: Final = r"\[[^\]\n]{0,100}environment\]([^\[]{0,4000})"
TOML_CHARACTERS_MAX: Final = 32 << 10
HARMLESS: Final = re.compile(r"^(?:/[\w./-]*|[\d.,:]+|[a-z]{2}_[A-Z]{2}\S*|C\.\S+|POSIX)$")


class Redactor:
    """Learns from all texts, then cleans each."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self.known = {value for value in known if len(value) >= LENGTH_MIN}
        self.removed = 0

    def learn(self, text: str, *, name: str = "") -> None:
        """Remember the secret values of a text; `name`: of the file, because a module's TOML has environments."""
        for pattern in VALUES:
            for match in pattern.finditer(text):
                self._remember(_bare(match["value"]), LENGTH_MIN) if _is_secret(match) else None
        if name.endswith(".toml"):
            for variable, value in environments(text):
                telling = re.search(_SECRET, variable, re.IGNORECASE) is not None
                if telling or not HARMLESS.match(value):
                    self._remember(value, LENGTH_MIN if telling else PLAIN_LENGTH_MIN)

    def _remember(self, value: str, length_min: int) -> None:
        if len(value) >= length_min and value.lower() not in NO_SECRET_VALUE and not value.startswith(("$", "[removed")):
            self.known.add(value)

    def clean(self, text: str, *, name: str = "") -> str:
        """The text without them."""
        text = self._each(PRIVATE_KEY, text)
        if name.endswith(".toml"):
            text = self._clean_environments(text)
        for pattern in VALUES:
            text = pattern.sub(self._hide_value, text)
        text = self._each(TOKENS, text)
        if self.known:
            words = sorted(self.known, key=len, reverse=True)
            text = self._each(re.compile("|".join(re.escape(word) for word in words)), text)
        return text

    def _each(self, pattern: re.Pattern[str], text: str) -> str:
        def hide(_: re.Match[str]) -> str:
            self.removed += 1
            return REMOVED

        return pattern.sub(hide, text)

    def _hide_value(self, match: re.Match[str]) -> str:
        value = match["value"]
        if not _is_secret(match) or _bare(value) == REMOVED or value.startswith("[removed"):
            return match[0]
        self.removed += 1
        quote = value[0] if value[0] in "\"'" else ""
        at = match.start("value") - match.start()
        return match[0][:at] + f"{quote}{REMOVED}{quote}" + match[0][at + len(value) :]

    def _clean_environments(self, text: str) -> str:
        for variable, _ in environments(text):
            pattern = re.compile(rf"""(["']?{re.escape(variable)}["']?\s*=\s*)("(?:[^"\\\n]|\\.)*"|'[^'\n]*')""")
            text, count = pattern.subn(rf'\g<1>"{REMOVED}"', text)
            self.removed += count
        return text


def _bare(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] in "\"'" and value[-1] == value[0] else value


def _is_secret(match: re.Match[str]) -> bool:
    groups, value = match.groupdict(), _bare(match["value"])
    name = groups.get("name") or groups.get("option") or ""
    if NO_SECRET_NAME.search(name) or (name.lower() == "pwd" and value.startswith("/")):  # PWD: where a shell is
        return False
    if "option" in groups and not OPTION.search(match.string, max(0, match.start() - NAME_CHARACTERS_MAX), match.start()):
        return False
    return bool(value) and value.lower() not in NO_SECRET_VALUE and not value.startswith("$")


def environments(text: str) -> Iterator[tuple[str, str]]:
    """Every variable of every service's environment in a module's TOML; of a text that is none, whatever looks like it."""
    try:
        if len(text) > TOML_CHARACTERS_MAX:
            raise ValueError("longer than what anybody configures, and the parser is slow with what is none")
        found = tomllib.loads(text)
    except (ValueError, RecursionError):
        for table in re.findall(INLINE, text) + re.findall(ENVIRONMENT, text):
            yield from re.findall(r"""["']?([\w.-]+)["']?\s*=\s*["']([^"'\n]*)["']""", table)
        return
    services: Any = found.get("service", [])
    for service in services if isinstance(services, list) else []:
        variables = service.get("environment", {}) if isinstance(service, dict) else {}
        yield from ((str(name), str(value)) for name, value in variables.items()) if isinstance(variables, dict) else ()

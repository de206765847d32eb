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

from orchestrator.secret_words import NO_SECRET_VALUE, PRIVATE_KEY, TOKENS, VALUES, WORD, bare, is_secret

REMOVED: Final = "[removed]"
LENGTH_MIN: Final = 4  # of what is removed wherever it stands
PLAIN_LENGTH_MIN: Final = 8  # of what stands in an environment under a harmless name

INLINE: Final = r"environment\s*=\s*\{([^}]{0,4000})\}"
ENVIRONMENT: Final = r"\[[^\]\n]{0,100}environment\]([^\[]{0,4000})"
# What was kept beside a module's file (`pg.toml~`, `pg.toml.before-apply`, `pg.old`) has the same in it.
MODULE_FILE: Final = re.compile(r"\.toml[^/]*\Z|(?:^|/)configuration/modules/[^/]+\Z")
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
                self._remember(bare(match["value"]), LENGTH_MIN) if is_secret(match) else None
        if MODULE_FILE.search(name):
            for variable, value in environments(text):
                telling = re.search(WORD, variable, re.IGNORECASE) is not None
                if telling or not HARMLESS.match(value):
                    self._remember(value, LENGTH_MIN if telling else PLAIN_LENGTH_MIN)

    def _remember(self, value: str, length_min: int) -> None:
        if len(value) >= length_min and value.lower() not in NO_SECRET_VALUE and not value.startswith(("$", "[removed")):
            self.known.add(value)

    def clean(self, text: str, *, name: str = "") -> str:
        """The text without them."""
        text = self._each(PRIVATE_KEY, text)
        if MODULE_FILE.search(name):
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
        if not is_secret(match) or bare(value) == REMOVED or value.startswith("[removed"):
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

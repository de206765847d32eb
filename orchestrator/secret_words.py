"""What looks like a secret in a text: for the snapshot, which removes it, and for the module package, which refuses it. Pure."""

from __future__ import annotations

import re
from typing import Final

_NAMED: Final = r"(?:passw(?:or)?d|passwd|passphrase|pwd|secret|token|api[_-]?key|private[_-]?key|access[_-]?key|credentials?)"
# `pass` is a word of its own in logs ("the second pass: 300 files"), and ends others; `auth` is more often the name of a method.
_PASS: Final = r"(?:(?<!by)(?<!com)(?<!tres)(?<!sur)(?<!over)(?<!under)pass(?![a-z])|requirepass|(?:master|primary)auth)"
_AUTH: Final = r"(?<![a-z])auth(?![a-z_.-])"
WORD: Final = rf"(?:{_NAMED}|{_PASS}|{_AUTH})"  # in a name: what it names is a secret
_QUOTED: Final = r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\''
_VALUE: Final = rf"(?P<value>{_QUOTED}|[^\s,;&|)}}\]\"']+)"

PRIVATE_KEY: Final = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL)
VALUES: Final = (
    # What stands before the telling word in a name is not looked for: a pattern that begins anywhere is tried again at every letter.
    re.compile(rf"(?i)(?P<name>{_NAMED}[\w.-]{{0,64}})[\"']?\s{{0,8}}[=:]\s{{0,8}}{_VALUE}"),  # NAME=value, "name": "value", name: value
    re.compile(rf"(?i)(?P<name>{_PASS}[\w.-]{{0,64}})[\"']?(?:\s{{0,8}}=\s{{0,8}}|:){_VALUE}"),  # DB_PASS=value, openssl's pass:value
    re.compile(rf"(?i)(?<![a-z0-9] )(?P<name>{_PASS}[\w.-]{{0,64}})[\"']?\s{{0,8}}:\s{{1,8}}{_VALUE}"),  # pass: value
    re.compile(rf"(?i)(?P<name>{_AUTH})[\"']?\s{{0,8}}=\s{{0,8}}{_VALUE}"),  # REDIS_AUTH=value
    re.compile(rf"(?i)(?P<name>{_AUTH})[\"']\s{{0,8}}:\s{{0,8}}(?P<value>{_QUOTED})"),  # "auth": "value"
    re.compile(rf"(?i)\b(?:requirepass|masterauth|primaryauth|auth_pass)[\"']?[\s,]{{1,8}}{_VALUE}"),  # redis.conf, keepalived.conf
    re.compile(rf"(?i)\bauth-pass[ \t]{{1,8}}[^\s]{{1,100}}[ \t]{{1,8}}{_VALUE}"),  # sentinel auth-pass NAME value
    re.compile(rf"(?i)(?P<option>(?:{_NAMED}|{_PASS})[\w.-]{{0,64}})(?:\s{{1,8}}|[\"']\s{{0,8}},\s{{0,8}}){_VALUE}"),  # --name value
    re.compile(r"(?i)\b(?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?(?:bearer|basic|token|digest)?\s*(?P<value>[^\s\"',;]+)"),
    re.compile(r"(?i)\bbearer\s+(?P<value>[\w.~+/=-]{8,})"),
    re.compile(r"(?<![\w+.-])[a-zA-Z][\w+.-]{0,20}://[^\s/:@\"']{0,100}:(?P<value>[^\s@\"']{1,200})@"),  # scheme://user:password@
    re.compile(r"(?<![\w+.-])[a-zA-Z][\w+.-]{0,20}://(?P<value>[^\s/:@\"']{16,200})@"),  # scheme://token@
    re.compile(r"\b(?:mysql|mysqldump|mysqladmin|mariadb[\w-]*)\b[^\n|;]{0,300}?\s-p(?P<value>[^\s-][^\s]*)"),
    re.compile(r"\b(?:mysql|mysqldump|mysqladmin|mariadb[\w-]*)\b[^\n|;]{0,300}?[\"']-p(?P<value>[^\s\"'-][^\s\"']*)[\"']"),  # "-pvalue"
    re.compile(rf"\bredis-cli\b[^\n|;]{{0,300}}?[\s\"']-a(?:\s{{1,8}}|[\"']\s{{0,8}},\s{{0,8}}){_VALUE}"),
    re.compile(r"(?<![\w.-])[\w.-]{1,64}:(?P<value>[^\s\"'|]{1,200})(?:\\n)?[\"']?\s{0,8}\|\s{0,8}(?:sudo\s+)?(?:/usr/sbin/)?chpasswd\b"),
    re.compile(r"\bchpasswd\b[^\n<]{0,60}<<<\s{0,8}[\"']?[\w.-]{1,64}:(?P<value>[^\s\"']{1,200})"),
    re.compile(rf"\becho\s{{1,8}}{_VALUE}\s{{0,8}}\|\s{{0,8}}(?:sudo\s+)?passwd\s{{1,8}}--stdin"),
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
NO_SECRET_NAME: Final = re.compile(
    r"(?i)(?:_|-|\.)?(?:file|path|dir|directory|timeout|length|min|max|policy|count|expires?"
    r"|limit|size|mode|method|type|ttl|prompt|through|encryption)$"
)
NO_SECRET_VALUE: Final = frozenset(
    {"true", "false", "null", "none", "yes", "no", "required", "[removed]", "md5", "peer", "trust", "ident", "scram-sha-256"}
)
OPTION: Final = re.compile(r"(?<!\w)--?[\w.-]*\Z")
NAME_CHARACTERS_MAX: Final = 64


def bare(value: str) -> str:
    """Without its quotes."""
    return value[1:-1] if len(value) > 1 and value[0] in "\"'" and value[-1] == value[0] else value


def is_secret(match: re.Match[str]) -> bool:
    """Is what one of VALUES has found a value that nobody may see? A variable, a path's name or a word like `required` is none."""
    groups, value = match.groupdict(), bare(match["value"])
    name = groups.get("name") or groups.get("option") or ""
    if NO_SECRET_NAME.search(name) or (name.lower() == "pwd" and value.startswith("/")):  # PWD: where a shell is
        return False
    if "option" in groups and not OPTION.search(match.string, max(0, match.start() - NAME_CHARACTERS_MAX), match.start()):
        return False
    return bool(value) and value.lower() not in NO_SECRET_VALUE and not value.startswith("$")

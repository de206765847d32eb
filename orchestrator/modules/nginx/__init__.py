"""nginx: what it serves, and its settings where they lie in a mirrored directory."""

from __future__ import annotations

import re

from orchestrator.modules.machine import Machine
from orchestrator.modules.template import Directory, Draft, Line, Service, Template, Unfit, Wishes, tcp_checker, unit_service

SETTINGS_FILE = "/etc/nginx/nginx.conf"
SETTINGS = {
    "conf": f"its main file, instead of {SETTINGS_FILE}; below a mirrored directory the other node has it as well",
    "listen": "the port that is watched; by default the first one its settings listen on, else 80",
}
EXCLUDE = ("*.pid", "*.sock")
UNMIRRORED = ("/usr/", "/etc/", "/run/")  # what a package or a boot puts there, not people


def settings_text(machine: Machine, conf: str) -> str:
    """The main file and what Debian and RHEL include, without comments."""
    files = [conf]
    if conf == SETTINGS_FILE:
        files += machine.matching("/etc/nginx/conf.d/*.conf") + machine.matching("/etc/nginx/sites-enabled/*")
    return "\n".join(re.sub(r"#.*", "", machine.text(path)) for path in files)


def roots(text: str) -> list[str]:
    """What is served: every `root` that people may have files in."""
    found = re.findall(r"(?:^|[\s;{])root\s+\"?(/[^\s\";$]+)\"?\s*;", text)
    return list(dict.fromkeys(path.rstrip("/") for path in found if not path.startswith(UNMIRRORED)))


def outermost(paths: list[str]) -> tuple[str, ...]:
    """Without those that lie in another one of them."""
    return tuple(path for path in paths if not any(path.startswith(f"{other}/") for other in paths))


def port_of(text: str) -> str:
    """The first one it listens on."""
    found = re.search(r"(?:^|[\s;{])listen\s+(?:[\w.*\[\]:]*:)?(\d+)", text)
    return found[1] if found else "80"


def draft(wishes: Wishes, machine: Machine) -> Draft:
    """The module."""
    program = machine.program("/usr/sbin/nginx", "/usr/bin/nginx")
    if not program:
        raise Unfit("nginx is not installed here (no /usr/sbin/nginx): install it on both nodes first")
    conf = wishes.setting("conf", SETTINGS_FILE)
    text = settings_text(machine, conf)
    directories = wishes.directories or outermost(roots(text))
    if not directories:
        raise Unfit(f"nothing that {conf} serves can be mirrored: name the directory with --dir")
    unit = machine.first_unit("nginx") if conf == SETTINGS_FILE else ""
    patience = Line("stop_timeout", "20s", "answers under way are finished")
    notes = []
    if not any(conf.startswith(f"{directory}/") for directory in directories):
        notes.append(f"Its settings, {conf} and what it includes, are not mirrored: keep them equal on both nodes.")
    if unit:
        service = unit_service(unit, patience)
    else:
        start = (program, *(("-c", conf) if conf != SETTINGS_FILE else ()), "-g", "daemon off;")
        service = Service((Line("name", "nginx"), Line("start", start), Line("stop_signal", "QUIT", "graceful"), patience))
    replicated = tuple(Directory(path, exclude=EXCLUDE) for path in directories)
    port = wishes.setting("listen") or port_of(text)
    return Draft("nginx", replicated, (service,), (tcp_checker(f"127.0.0.1:{port}", "nobody answers: it is started again"),), tuple(notes))


def found(machine: Machine) -> str:
    """In a few words."""
    if not machine.program("/usr/sbin/nginx", "/usr/bin/nginx"):
        return ""
    served = outermost(roots(settings_text(machine, SETTINGS_FILE)))
    return f"serves {', '.join(served)}" if served else "installed"


TEMPLATE = Template("nginx", "nginx: the files it serves", draft, found, SETTINGS)

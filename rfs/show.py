"""`rfsmount status` and `stats` for a person: the verdict first, then what stands behind it. No imports that cost time.

Names of files, what a peer or a program says, lines of logs: whoever made them may have meant them for the terminal of whoever looks
(escape sequences, marks that turn the reading direction around, a line feed and then a line that looks like ours). So nothing is printed
but by `say`, which lets no such character through, and values come through `shown`, which leaves no line feed in them either. hactl does
the same with its own `say`. JSON has a way of its own, `say_json`: it escapes what is not ASCII, and is for programs.
"""

import json
import sys
from typing import Any, TypeVar

Status = dict[str, Any]

SHOWN_ELSEWHERE = frozenset({"INSECURE", "WITNESS", "NO_SNAPSHOT"})  # in a line of their own, or in the reason


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def printable(name: str, kept: str = "") -> str:
    """A text for a terminal, on one line: what it may hold must not become a command to it. `kept`: what may stay nevertheless."""
    if name.isprintable():
        return name
    return "".join(one if one.isprintable() or one in kept else one.encode("unicode_escape", "backslashreplace").decode() for one in name)


Document = TypeVar("Document")


def shown(document: Document, kept: str = "") -> Document:
    """A document from elsewhere, for a person: each text in it on one line, and printable."""
    made: Any = document
    if isinstance(document, str):
        made = printable(document, kept)
    elif isinstance(document, dict):
        made = {shown(name, kept): shown(value, kept) for name, value in document.items()}
    elif isinstance(document, (list, tuple)):
        made = type(document)(shown(value, kept) for value in document)
    return made  # type: ignore[no-any-return]


def say(text: str, *, err: bool = False) -> None:
    """The one way to print for rfsmount's commands: lines are ours, nothing else in them is a command to a terminal."""
    print(printable(text, "\n\t"), file=sys.stderr if err else sys.stdout, flush=True)


def say_json(document: object, *, indent: int | None = None) -> None:
    """A document for programs: valid, and ASCII without a control character."""
    print(json.dumps(document, indent=indent).replace("\x7f", "\\u007f"), flush=True)


def render_status(status: Status) -> str:
    """About eight lines; the first one alone is enough to know whether to worry."""
    status = shown(status)
    lines = [f"{status['module']} on {status['node']}: {status['role'].upper()}, link {status['link']}, data {status['data']}"]
    if status["reason"]:
        lines.append(f"  {status['code']}: {status['reason']}")
    resync = status["resync"]
    if resync:
        remaining = f", about {resync['seconds_remaining']:.0f} s left" if resync["seconds_remaining"] is not None else ""
        lines.append(
            f"  resync {resync['direction']}: {resync['percent_done']} %, {_bytes(resync['bytes_done'])} of "
            f"{_bytes(resync['total_bytes'])}, {resync['files_done']} of {resync['total_files']} files{remaining}"
        )
    peer = status["peer"]
    if peer:
        heard = f", heard {status['last_heard_s']:.1f} s ago" if status["last_heard_s"] is not None else ""
        lines.append(f"  peer {peer['node']}: data {peer['data']}, {peer['rtt_us']} us away{heard}")
    else:
        lines.append("  peer: not heard of yet")
    lines.extend(f"  {'mounted' if entry['mounted'] else 'guarded'}  {entry['path']}" for entry in status["directories"])
    lines.extend(f"  {warning['text']}" for warning in status.get("warnings", ()) if warning["code"] not in SHOWN_ELSEWHERE)
    lines.append(f"  generation {status['generation']}, term {status['term']}, seq {status['seq']} (acknowledged {status['acked_seq']})")
    if status.get("witness"):
        lines.append(f"  {render_witness(status['witness'])}")
    elif status["needs_grant"]:
        lines.append("  waits for a grant: 'rfsmount promote' if you KNOW that the peer is not serving")
    if status["role"] == "secondary":
        lines.append(f"  promotable: {'yes' if status['promotable'] else 'no'}, {status['promotable_reason']}")
    if status["insecure"]:
        lines.append("  insecure: the links between the nodes are neither encrypted nor authenticated")
    return "\n".join(lines)


def render_witness(witness: Status) -> str:
    """One line: is it there, and whom did it let go on?"""
    witness = shown(witness)
    held = witness["register"]
    line = f"witness {witness['state']} at {', '.join(witness['endpoints'])}: " + (
        f"the register names {held['generation']} (term {held['term']})" if held else "the register is not known"
    )
    return line + (f"; {witness['reason']}" if witness["reason"] else "")


def render_statistics(statistics: Status) -> str:
    """One counter a line."""
    width = max(len(name) for name in statistics)
    return "\n".join(f"{name:<{width}}  {'-' if value is None else value}" for name, value in statistics.items() if name != "schema")

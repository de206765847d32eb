"""`hactl.status/1` for a tired person: the verdict first, then what is wrong and what to do, then one line per node.

Colour never says anything alone: there is always a word, and a glyph for who reads without colours.

The word under DATA is never "up to date" because a node says so of itself: two nodes that lost each other both do. It takes the link
between them, and the same generation on both. What else there may be: `current` (the copy that serves, without the other one),
`unconfirmed` (complete when it was last seen, and nothing is known of the other one), `stale since …`, `sync 43% …`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from orchestrator.hactl.output import columns
from orchestrator.units import show_bytes, show_duration

Line = Mapping[str, Any]

GLYPHS = {"Ready": "●", "Transient": "◔", "NotReady": "○"}
ALONE_GLYPH = "◐"
COLOURS = {"Ready": "green", "Transient": "yellow", "NotReady": "red"}
VERDICTS = {
    "redundant": ("redundant ✔", "green"),
    "resyncing": ("NOT REDUNDANT: resyncing ◔", "yellow"),
    "degraded": ("NOT REDUNDANT ✖", "yellow"),
    "down": ("DOWN ✖", "red"),
    "diverged": ("DIVERGED ✖", "red"),
}
LINKED: Final = ("paired", "resyncing")
LINK_WORDS = {"paired": "ok", "resyncing": "ok", "alone": "down", "diverged": "DIVERGED", "": "-"}
DATA_WORDS = {"OUTDATED": "stale", "INCONSISTENT": "incomplete", "FAILED": "FAILED", "CONSISTENT": "unconfirmed", "": "-"}
SERVICE = {"on": "running", "off": "-", "coming": "starting", "going": "stopping", "failed": "FAILED", "unknown": "?", "": "-"}
LEADING = ("PRIM", "ALONE")
HEADER = ("MODULE", "NODE", "", "ROLE", "DATA", "LINK", "APP", "SINCE")
WIDE = ("GENERATION", "TERM", "SEQ", "MARKED", "CODE")
ROLE_COLUMN = 3
BYTES_PER_S = 1.25e9  # 10 Gb/s, for the guess of what a return costs
WORTH_SAYING_BYTES = 1 << 20


def render(
    document: Line, *, colour: bool, now_s: float | None = None, wide: bool = False, header: bool = True, stamped: bool = False
) -> str:
    """The whole answer as text. `now_s`: the wall clock."""
    now_s = time.time() if now_s is None else now_s
    lines = [_headline(document, colour, now_s, stamped), *_warnings(document), ""]
    rows = list(_rows(document, now_s, wide))
    table = columns((*HEADER, *WIDE) if wide else HEADER, [cells for cells, _ in rows])
    lines += table[:1] if header and rows else []
    for line, (cells, readiness) in zip(table[1:], rows, strict=True):
        lines.append(_paint(line, (cells[2], cells[ROLE_COLUMN]), readiness) if colour else line)
    if not rows:
        lines.append("no modules: 'hactl module add TEMPLATE' makes one, 'hactl config apply' brings it to every node")
    lines += _addresses(document)
    lines += _reasons(document)
    lines += _costs(document)
    return "\n".join(lines)


# ---- the head -----------------------------------------------------------------------------------------------------------------------


def _headline(document: Line, colour: bool, now_s: float, stamped: bool) -> str:
    verdict, shade = VERDICTS.get(document["verdict"], (document["verdict"], "red"))
    if not document["modules"]:
        verdict, shade = "nothing to serve yet", "yellow"
    failover = document["failover"]
    reason = f" ({failover['reason']})" if failover.get("reason") else ""
    words = [f"Cluster {document['cluster']}", _styled(verdict, shade, bold=True) if colour else verdict]
    words.append(f"automatic failover: {failover['state']}{reason}")
    if document.get("witness"):
        words.append(f"witness: {document['witness']}")
    words.append(time.strftime("%Y-%m-%d %H:%M:%S" if stamped else "%H:%M:%S", time.localtime(now_s)))
    return "   ".join(words)


def _warnings(document: Line) -> Iterator[str]:
    for warning in document["warnings"]:
        yield f"! {warning['text']}"
        if warning.get("fix"):
            yield f"  → {warning['fix']}"


# ---- the rows -----------------------------------------------------------------------------------------------------------------------


def _rows(document: Line, now_s: float, wide: bool) -> Iterator[tuple[Sequence[str], str]]:
    for module in document["modules"]:
        for node in module["nodes"]:
            readiness = node["readiness"]
            glyph = ALONE_GLYPH if node["state"] == "ALONE" and readiness == "Ready" else GLYPHS.get(readiness, "?")
            role = node["state"] if readiness == "Ready" or node["state"] in ("STOP", "UNKNOWN") else f"{node['state']} ({readiness})"
            since = show_duration(node["since_s"]) if node.get("since_s") is not None else "-"
            app = SERVICE.get(node["service"], node["service"])
            data = data_words(node, module["nodes"], now_s)
            cells = [module["name"], node["node"], glyph, role, data, link_words(node, module["nodes"]), app, since]
            yield (*cells, *_wide(node)) if wide else cells, readiness


def _wide(node: Line) -> tuple[str, ...]:
    rfs = node.get("rfs") or {}
    marked = show_bytes(rfs["marked_bytes"]) if "marked_bytes" in rfs else "-"
    return node["generation"] or "-", str(rfs.get("term", "-")), str(rfs.get("seq", "-")), marked, node.get("code") or "-"


def data_words(node: Line, nodes: Sequence[Line], now_s: float) -> str:
    """What is to be said of a node's copy, seen beside the other one."""
    if resync := filling(node, nodes):
        return sync_words(resync)
    others = [other for other in nodes if other["node"] != node["node"]]
    leader = next((other for other in nodes if other["state"] in LEADING), None)
    if "diverged" in (node["link"], *(other["link"] for other in others)):
        return "DIVERGED"
    if node["data"] == "UPTODATE":
        if any(agree(node, other) for other in others):
            return "up to date"
        if node["state"] in LEADING:
            ahead_bytes = (node.get("rfs") or {}).get("marked_bytes", 0)
            return f"current, {show_bytes(ahead_bytes)} ahead" if ahead_bytes else "current"
        return "unconfirmed"
    if node["state"] == "UNKNOWN" and leader is not None and leader["state"] == "ALONE":
        return "stale" + _since(leader, now_s)
    if node["data"] == "OUTDATED":
        return "stale" + _since(leader if leader is not None and leader["state"] == "ALONE" else None, now_s)
    return DATA_WORDS.get(str(node["data"]), str(node["data"]).lower())


def agree(node: Line, other: Line) -> bool:
    """Do both say that they have each other, and the same data?"""
    linked = node["link"] == other["link"] == "paired"
    return linked and node["data"] == other["data"] == "UPTODATE" and bool(node["generation"]) and node["generation"] == other["generation"]


def filling(node: Line, nodes: Sequence[Line]) -> Line | None:
    """The resync that fills this node's copy, as this end or the other one tells."""
    for each, direction in [(node, "from-peer"), *((other, "to-peer") for other in nodes if other["node"] != node["node"])]:
        resync: Line | None = each.get("resync")
        if resync and resync.get("direction") == direction and node["state"] != "UNKNOWN":
            return resync
    return None


def sync_words(resync: Line) -> str:
    """`sync 43% 2m left`."""
    left_s, percent = resync.get("seconds_remaining"), resync.get("percent_done")
    left = f" {show_duration(left_s)} left" if left_s is not None else ""
    return f"sync {percent:.0f}%{left}" if percent is not None else f"sync {show_bytes(resync.get('bytes_done') or 0)}"


def _since(leader: Line | None, now_s: float) -> str:
    """When the leader went on alone; of more than a day ago with the date."""
    if leader is None or leader.get("since_s") is None:
        return ""
    then_s = now_s - leader["since_s"]
    return time.strftime(" since %H:%M:%S" if leader["since_s"] < 86400 else " since %Y-%m-%d", time.localtime(then_s))


def link_words(node: Line, nodes: Sequence[Line]) -> str:
    """`ok 0.1ms`: the round trip is the link's, whichever end has measured it."""
    word = LINK_WORDS.get(str(node["link"]), str(node["link"]))
    if node["link"] not in LINKED:
        return word
    found = (((each.get("rfs") or {}).get("peer") or {}).get("rtt_us") for each in (node, *nodes))
    rtt_us = next((value for value in found if value), None)
    if rtt_us is None:
        return word
    return f"{word} {rtt_us / 1000:.1f}ms" if rtt_us >= 100 else f"{word} {rtt_us:.0f}µs"


# ---- below the table ----------------------------------------------------------------------------------------------------------------


def _addresses(document: Line) -> Iterator[str]:
    shown = [
        f"{vip['address']} ({module['name']}) " + (f"on {vip['node']}" if vip["node"] else "nowhere")
        for module in document["modules"]
        for vip in module["vips"]
    ]
    if shown:
        yield "VIP " + " · ".join(shown)


def _reasons(document: Line) -> Iterator[str]:
    several = len(document["modules"]) > 1
    for module in document["modules"]:
        for node in module["nodes"]:
            if node.get("reason"):
                place = f"{module['name']} on {node['node']}" if several else node["node"]
                yield f"{place}: {node['reason']}"
    if document.get("partial"):
        silent = [peer["node"] for peer in document.get("peers", ()) if peer["silent"]]
        for node in silent or [document.get("peer", "the other node")]:
            yield f"{node} did not answer: its line is what was last known."


def _costs(document: Line) -> Iterator[str]:
    """What the return of a node that is away will cost."""
    for module in document["modules"]:
        for node in module["nodes"]:
            marked_bytes = (node.get("rfs") or {}).get("marked_bytes", 0)
            if node["state"] == "ALONE" and marked_bytes >= WORTH_SAYING_BYTES:
                other = next((each["node"] for each in module["nodes"] if each["node"] != node["node"]), "the other node")
                least_s = max(1, round(marked_bytes / BYTES_PER_S))
                yield (
                    f"When {other} returns, about {show_bytes(marked_bytes)} of {module['name']} will be compared, copied where it differs "
                    f"(≈ {show_duration(least_s)} at 10 Gb/s); the application keeps running."
                )


# ---- for machines that watch ----------------------------------------------------------------------------------------------------------


NAGIOS: Final[Mapping[str, tuple[str, int]]] = {
    "redundant": ("OK", 0),
    "resyncing": ("WARNING", 1),
    "degraded": ("WARNING", 1),
    "down": ("CRITICAL", 2),
    "diverged": ("CRITICAL", 2),
}
NAGIOS_UNKNOWN: Final = ("UNKNOWN", 3)


def nagios(document: Line) -> tuple[str, int]:
    """One line, and 0, 1, 2 or 3."""
    word, code = NAGIOS.get(document["verdict"], NAGIOS_UNKNOWN)
    modules = []
    for module in document["modules"]:
        leader = next((f"{node['state']} on {node['node']}" for node in module["nodes"] if node["state"] in (*LEADING, "UP")), "down")
        modules.append(f"{module['name']} {leader}, {module['verdict']}")
    said = "; ".join([*modules, *(warning["text"] for warning in document["warnings"])]).replace("|", "/")
    redundant = sum(module["verdict"] == "redundant" for module in document["modules"])
    return f"LOCKSTEP {word} - {document['cluster']}: {said} | modules={len(document['modules'])} redundant={redundant}", code


def _paint(line: str, words: Sequence[str], readiness: str) -> str:
    shade = COLOURS.get(readiness, "red")
    for word in words:
        line = line.replace(word, _styled(word, shade), 1)
    return line


def _styled(text: str, shade: str, *, bold: bool = False) -> str:
    import click

    return click.style(text, fg=shade, bold=bold)

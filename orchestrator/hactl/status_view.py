"""`hactl.status/1` for a tired person: the verdict first, then what is wrong and what to do, then one line per node.

Colour never says anything alone: there is always a word, and a glyph for who reads without colours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.hactl.output import columns
from orchestrator.units import show_bytes, show_duration

GLYPHS = {"Ready": "●", "Transient": "◔", "NotReady": "○"}
COLOURS = {"Ready": "green", "Transient": "yellow", "NotReady": "red"}
VERDICTS = {
    "redundant": ("redundant ✔", "green"),
    "resyncing": ("NOT REDUNDANT: resyncing ◔", "yellow"),
    "degraded": ("NOT REDUNDANT ✖", "yellow"),
    "down": ("DOWN ✖", "red"),
    "diverged": ("DIVERGED ✖", "red"),
}
DATA = {"UPTODATE": "up-to-date", "": "-"}
SERVICE = {"on": "running", "off": "-", "coming": "starting", "going": "stopping", "failed": "FAILED", "unknown": "?", "": "-"}
HEADER = ("MODULE", "NODE", "", "STATE", "DATA", "LINK", "SERVICE", "SINCE")
STATE_COLUMN = 3


def render(document: Mapping[str, Any], *, colour: bool) -> str:
    """The whole answer as text."""
    lines = [_headline(document, colour), *_warnings(document), ""]
    rows = list(_rows(document))
    table = columns(HEADER, [cells for cells, _ in rows])
    lines.append(table[0])
    for line, (cells, readiness) in zip(table[1:], rows, strict=True):
        lines.append(_paint(line, (cells[2], cells[STATE_COLUMN]), readiness) if colour else line)
    if not rows:
        lines.append("no modules: write one in modules/NAME.toml and restart hactld")
    lines += _addresses(document)
    lines += _reasons(document)
    return "\n".join(lines)


def _headline(document: Mapping[str, Any], colour: bool) -> str:
    verdict, shade = VERDICTS.get(document["verdict"], (document["verdict"], "red"))
    failover = document["failover"]
    reason = f" ({failover['reason']})" if failover.get("reason") else ""
    shown = _styled(verdict, shade, bold=True) if colour else verdict
    return f"Cluster {document['cluster']}   {shown}   automatic failover: {failover['state']}{reason}"


def _warnings(document: Mapping[str, Any]) -> Iterator[str]:
    for warning in document["warnings"]:
        yield f"! {warning['text']}"
        if warning.get("fix"):
            yield f"  → {warning['fix']}"


def _rows(document: Mapping[str, Any]) -> Iterator[tuple[Sequence[str], str]]:
    for module in document["modules"]:
        for node in module["nodes"]:
            readiness = node["readiness"]
            state = node["state"] if readiness == "Ready" or node["state"] in ("STOP", "UNKNOWN") else f"{node['state']} ({readiness})"
            since = show_duration(node["since_s"]) if node.get("since_s") is not None else "-"
            service = SERVICE.get(node["service"], node["service"])
            cells = (module["name"], node["node"], GLYPHS.get(readiness, "?"), state, _data(node), node["link"] or "-", service, since)
            yield cells, readiness


def _data(node: Mapping[str, Any]) -> str:
    resync = node.get("resync")
    if not resync:
        return str(DATA.get(node["data"], node["data"].lower()))
    left_s = resync.get("seconds_remaining")
    left = f", {show_duration(left_s)} left" if left_s is not None else ""
    percent = resync.get("percent_done")
    return f"sync {percent:.1f}%{left}" if percent is not None else f"sync {show_bytes(resync.get('bytes_done') or 0)}"


def _addresses(document: Mapping[str, Any]) -> Iterator[str]:
    shown = [
        f"{vip['address']} ({module['name']}) " + (f"on {vip['node']}" if vip["node"] else "nowhere")
        for module in document["modules"]
        for vip in module["vips"]
    ]
    if shown:
        yield "VIP " + " · ".join(shown)


def _reasons(document: Mapping[str, Any]) -> Iterator[str]:
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


def _paint(line: str, words: Sequence[str], readiness: str) -> str:
    shade = COLOURS.get(readiness, "red")
    for word in words:
        line = line.replace(word, _styled(word, shade), 1)
    return line


def _styled(text: str, shade: str, *, bold: bool = False) -> str:
    import click

    return click.style(text, fg=shade, bold=bold)

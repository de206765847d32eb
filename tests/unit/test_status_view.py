"""What the table says: under DATA never more than is known of both copies; the link, the head, the lines below."""

from __future__ import annotations

import time
from typing import Any

import pytest

from orchestrator.hactl.status_command import likely_next
from orchestrator.hactl.status_view import data_words, link_words, nagios, render

NOW_S = time.mktime((2026, 11, 26, 10, 42, 7, 0, 0, 0))


def line(node: str = "node1", state: str = "PRIM", readiness: str = "Ready", **more: Any) -> dict[str, Any]:
    """One node's, healthy unless told otherwise."""
    healthy = {
        "data": "UPTODATE", "generation": "9f", "link": "paired", "code": "PAIRED", "service": "on", "since_s": 120.0, "reason": "",
        "resync": None,
    }  # fmt: skip
    return {"node": node, "state": state, "readiness": readiness, **healthy, **more}


SECOND = line("node2", "SECOND")
SILENT = line("node2", "UNKNOWN", "NotReady", data="", generation="", link="", service="unknown", since_s=None)
FILLED = line("node2", "SECOND", "Transient", link="resyncing", data="INCONSISTENT")
TO_PEER = {"direction": "to-peer", "percent_done": 43.2, "seconds_remaining": 120.0, "bytes_done": 1}


@pytest.mark.parametrize(
    ("node", "other", "words"),
    [
        # Both say so, on one link, of one generation: nothing else is called up to date.
        (line(), SECOND, "up to date"),
        (SECOND, line(), "up to date"),
        (line(), line("node2", "SECOND", generation="8e"), "current"),
        (line("node2", "SECOND", generation="8e"), line(), "unconfirmed"),
        (line(generation=""), line("node2", "SECOND", generation=""), "current"),
        (line(), line("node2", "SECOND", link="connecting"), "current"),
        (SECOND, line(link="frozen"), "unconfirmed"),
        (line(state="WAIT", readiness="NotReady", link="connecting"), SILENT, "unconfirmed"),
        (line(), SILENT, "current"),
        (line(), line("node2", "SECOND", data="OUTDATED"), "current"),
        # Alone: what serves is current, the other one is as old as that.
        (line(state="ALONE", link="alone", rfs={"marked_bytes": 1288490189}), SILENT, "current, 1.2 GiB ahead"),
        (SILENT, line(state="ALONE", link="alone", since_s=115.0), "stale since 10:40:12"),
        (SILENT, line(state="ALONE", link="alone", since_s=259200.0), "stale since 2026-11-23"),
        (SILENT, line(state="WAIT", readiness="NotReady", link="connecting"), "-"),
        (line("node2", "WAIT", "NotReady", data="OUTDATED", link="connecting"), line(state="STOP", data="", link=""), "stale"),
        # A resync: the one that is filled says how far, whichever end tells of it.
        (FILLED, line(link="resyncing", resync=TO_PEER), "sync 43% 2m left"),
        (line(link="resyncing", resync=TO_PEER), FILLED, "current"),
        (line(resync={"direction": "from-peer", "percent_done": None, "bytes_done": 2048}), SECOND, "sync 2.0 KiB"),
        (line("node2", "WAIT", "NotReady", data="INCONSISTENT", link="connecting"), SILENT, "incomplete"),
        (line("node2", "WAIT", "NotReady", data="FAILED", link="connecting"), line(state="ALONE", link="alone"), "FAILED"),
        (line("node2", "WAIT", "NotReady", data="CONSISTENT", link="connecting"), SILENT, "unconfirmed"),
        # Both call themselves up to date, and neither is shown so (LINSTOR#75).
        (line(link="diverged"), line("node2", "WAIT", "NotReady", link="diverged"), "DIVERGED"),
        (line(state="ALONE", link="alone"), line("node2", "WAIT", "NotReady", link="diverged"), "DIVERGED"),
        (line(state="STOP", readiness="NotReady", data="", link=""), SECOND, "-"),
    ],
)  # fmt: skip
def test_data(node: dict[str, Any], other: dict[str, Any], words: str) -> None:
    assert data_words(node, [node, other], NOW_S) == words
    assert data_words(node, [other, node], NOW_S) == words, "whichever comes first"


def test_no_copy_is_up_to_date_by_itself() -> None:
    """Over every state, readiness, data, link and generation of two nodes: the words need both."""
    states, links = ("PRIM", "ALONE", "SECOND", "WAIT", "STOP", "UNKNOWN"), ("paired", "alone", "connecting", "")
    datas = ("UPTODATE", "CONSISTENT", "OUTDATED", "")
    lines = [line("node1", state, data=data, link=link, generation=name) for state in states for data in datas for link in links
             for name in ("9f", "8e", "")]  # fmt: skip
    for one in lines:
        for other in lines:
            pair = {**other, "node": "node2"}
            if data_words(one, [one, pair], NOW_S) == "up to date":
                assert one["link"] == pair["link"] == "paired" and one["generation"] == pair["generation"] != ""
                assert one["data"] == pair["data"] == "UPTODATE"


@pytest.mark.parametrize(
    ("node", "other", "words"),
    [
        (line(rfs={"peer": {"rtt_us": 71}}), SECOND, "ok 71µs"),
        (SECOND, line(rfs={"peer": {"rtt_us": 1340}}), "ok 1.3ms"),
        (line(), SECOND, "ok"),
        (line(link="alone", rfs={"peer": {"rtt_us": 71}}), SILENT, "down"),
        (line(link="frozen"), SILENT, "frozen"),
        (SILENT, line(link="alone"), "-"),
    ],
)
def test_link(node: dict[str, Any], other: dict[str, Any], words: str) -> None:
    assert link_words(node, [node, other]) == words


def document(*lines: dict[str, Any], verdict: str = "redundant", **more: Any) -> dict[str, Any]:
    vip = {"address": "10.0.0.100/24", "node": "node1"}
    module = {"name": "pg", "mode": "mirror", "verdict": verdict, "nodes": list(lines), "vips": [vip]}
    whole = {"cluster": "demo", "node": "node1", "peer": "node2", "partial": False, "verdict": verdict, "peers": [], "warnings": []}
    return {**whole, "failover": {"state": "armed", "reason": ""}, "modules": [module], **more}


def test_a_bad_night() -> None:
    """The table of ecosystem.md: one node is gone."""
    alone = line(state="ALONE", link="alone", since_s=115.0, rfs={"marked_bytes": 1288490189, "term": 4, "seq": 812})
    warning = {"code": "NETWORK_SILENT", "text": "network lan: nothing arrives from node2", "fix": "check the network lan"}
    shown = render(document(alone, SILENT, verdict="degraded", warnings=[warning], witness="ok"), colour=False, now_s=NOW_S)
    assert shown.splitlines() == [
        "Cluster demo   NOT REDUNDANT ✖   automatic failover: armed   witness: ok   10:42:07",
        "! network lan: nothing arrives from node2",
        "  → check the network lan",
        "",
        "MODULE  NODE      ROLE     DATA                    LINK  APP      SINCE",
        "pg      node1  ◐  ALONE    current, 1.2 GiB ahead  down  running  1m 55s",
        "pg      node2  ○  UNKNOWN  stale since 10:40:12    -     ?        -",
        "VIP 10.0.0.100/24 (pg) on node1",
        "When node2 returns, about 1.2 GiB of pg will be compared, copied where it differs (≈ 1s at 10 Gb/s); "
        "the application keeps running.",
    ]


def test_a_cluster_without_modules() -> None:
    shown = render(document(verdict="down", modules=[]), colour=False, now_s=NOW_S).splitlines()
    assert shown[0].startswith("Cluster demo   nothing to serve yet   ") and "hactl module add" in shown[-1]


def test_wide_and_stamped() -> None:
    found = document(line(rfs={"marked_bytes": 0, "term": 4, "seq": 812}), SECOND)
    shown = render(found, colour=False, now_s=NOW_S, wide=True, stamped=True)
    head, _, names, first, second, _ = shown.splitlines()
    assert head.endswith("   2026-11-26 10:42:07")
    assert names.split()[-5:] == ["GENERATION", "TERM", "SEQ", "MARKED", "CODE"]
    assert first.split()[-6:] == ["9f", "4", "812", "0", "B", "PAIRED"] and second.split()[-5:] == ["9f", "-", "-", "-", "PAIRED"]


@pytest.mark.parametrize(
    ("verdict", "word", "code"),
    [("redundant", "OK", 0), ("resyncing", "WARNING", 1), ("degraded", "WARNING", 1), ("down", "CRITICAL", 2), ("diverged", "CRITICAL", 2)],
)
def test_nagios(verdict: str, word: str, code: int) -> None:
    warning = {"code": "X", "text": "a | b", "fix": ""}
    said, found = nagios(document(line(), SECOND, verdict=verdict, warnings=[warning]))
    assert found == code and said.startswith(f"LOCKSTEP {word} - demo: pg PRIM on node1, {verdict}; a / b | modules=1 redundant=")
    assert said.count("|") == 1


@pytest.mark.parametrize(
    ("lines", "verdict", "first"),
    [
        ((line(), SECOND), "redundant", "hactl swap pg --wait"),
        ((line(), SECOND), "resyncing", "hactl resync pg"),
        ((line(), SECOND), "diverged", "hactl explain DIVERGED"),
        ((line(state="STOP"), line("node2", "STOP")), "down", "hactl start pg -H all --wait"),
        ((line(state="WAIT"), line("node2", "STOP")), "down", "hactl why pg"),
        ((line(state="ALONE"), SILENT), "degraded", "hactl why pg"),
    ],
)
def test_what_is_likely_next(lines: tuple[dict[str, Any], ...], verdict: str, first: str) -> None:
    found = likely_next(document(*lines, verdict=verdict))
    assert len(found) == 3 and found[0][0] == first
    assert likely_next(document(verdict="down", modules=[]))[0][0] == "hactl module templates"

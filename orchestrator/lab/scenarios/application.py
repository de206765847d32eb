"""Applications and scripts that behave badly: rows A1 and A2 of the catalogue."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from orchestrator.lab.scenarios.pair import DIRECTORY, LEDGER, PORT, LedgerPair
from orchestrator.lab.scenarios.scenario import EITHER, Stage, expect, scenario

SCRIPTS = "/etc/lockstep/modules/ledger"
WORDS = f'"{sys.executable}", "-P", "-m", "orchestrator.lab.ledger", "serve", "{LEDGER}", "{PORT}"'
DEAF = Stage("deaf-service", service_words=f'start = [{WORDS}, "--deaf"]')
SHELL = f"{sys.executable} -P -m orchestrator.lab.ledger serve {LEDGER} {PORT}"
FORKING = Stage("forking-service", service_words=f'start = ["/bin/sh", "-c", "setsid {SHELL} & sleep 1"]', max_restarts="2 per 24h")


def put_scripts(pair: LedgerPair, scripts: Mapping[tuple[str, str], str]) -> None:
    """By node and name: start_prim or stop_prim of the module, which does something on that node alone."""
    pair.lab.run("node1", ["mkdir", "-p", SCRIPTS])
    for (node, name), text in scripts.items():
        pair.put("node1", f"{SCRIPTS}/{name}", f'#!/bin/sh\n[ "$LOCKSTEP_NODE" = {node} ] || exit 0\n{text}\n')
        pair.lab.run("node1", ["chmod", "755", f"{SCRIPTS}/{name}"])
    pair.apply()
    pair.wait_redundant("node1")


def no_scripts(pair: LedgerPair) -> None:
    """As before."""
    pair.lab.run("node1", ["rm", "-rf", SCRIPTS])
    pair.apply()


@scenario(
    "service-ignores-term",
    "the service ignores TERM: after its own deadline it is killed, and the role moves",
    "A1",
    stage=DEAF,
    serves="node2",
    silence_s=12,
    moves=1,
)
def service_ignores_term(pair: LedgerPair) -> None:
    pair.swap("node1")
    pair.wait_redundant("node2")
    expect(not pair.service_pid("node1"), "it still runs", pair)


@scenario(
    "service-forks",
    "the service forks, ends and leaves a child behind: that counts as its death, and is stopped when it was too often",
    "A1",
    stage=FORKING,
    slow=True,
)
def service_forks(pair: LedgerPair) -> None:
    pair.until(lambda: any(event["kind"] == "service-died" for event in pair.events("node1")), "its end is not seen", 20)


@scenario("start-script-fails", "start_prim says no on the other node: the role comes back, with the reason", "A1", serves=EITHER, moves=3)
def start_script_fails(pair: LedgerPair) -> None:
    put_scripts(pair, {("node2", "start_prim"): "echo no licence; exit 3"})
    try:
        pair.swap("node1")
        pair.until(lambda: "exit code 3" in history_of(pair, "node2"), "the script's no is not told", 30)
    finally:
        no_scripts(pair)
    pair.until(lambda: bool(pair.serving()), "nobody serves", 60)


@scenario(
    "stop-script-fails",
    "stop_prim says no: the services are stopped all the same, the role moves",
    "A1",
    serves="node2",
    silence_s=6,
    moves=1,
)
def stop_script_fails(pair: LedgerPair) -> None:
    put_scripts(pair, {("node1", "stop_prim"): "exit 7"})
    try:
        pair.swap("node1")
        pair.wait_redundant("node2")
    finally:
        no_scripts(pair)
    expect("exit code 7" in history_of(pair, "node1"), "the script's no is not told", pair)


@scenario("stop-script-hangs", "stop_prim hangs: after its deadline of a minute the role moves", "A1", serves="node2", moves=1, slow=True)
def stop_script_hangs(pair: LedgerPair) -> None:
    put_scripts(pair, {("node1", "stop_prim"): "sleep 1000"})
    try:
        pair.swap("node1")
        pair.until(lambda: pair.row("node2")["state"] in ("PRIM", "ALONE"), "the role does not move", 90)
    finally:
        no_scripts(pair)


@scenario(
    "scripts-talk",
    "the scripts write a hundred megabytes and leave children behind: nobody waits for either",
    "A1",
    serves="node2",
    silence_s=20,
    moves=1,
)
def scripts_talk(pair: LedgerPair) -> None:
    put_scripts(pair, {("node1", "stop_prim"): "yes talk | head -c 100000000", ("node2", "start_prim"): "sleep 30 & exit 0"})
    try:
        pair.swap("node1")
        pair.wait_redundant("node2")
    finally:
        no_scripts(pair)
        for node in ("node1", "node2"):
            pair.lab.run(node, ["sh", "-c", "truncate -s 0 /var/log/lockstep/ledger.log"])


@scenario(
    "mount-busy",
    "a stranger holds a file open when the primary is stopped: it is stopped all the same",
    "A2",
    serves="node2",
    silence_s=9,
    moves=1,
)
def mount_busy(pair: LedgerPair) -> None:
    held = pair.lab.spawn("node1", ["sh", "-c", f"cd {DIRECTORY} && exec 3>>{LEDGER} && exec sleep 1000"])
    holders = f"readlink /proc/[0-9]*/fd/* 2>/dev/null | grep -cx {LEDGER}"
    pair.until(lambda: int(pair.lab.run("node1", ["sh", "-c", holders], check=False).stdout) >= 2, "nobody holds it", 5)
    began = time.monotonic()
    pair.command("node1", "stop")
    pair.wait_state("node1", "STOP", None, timeout_s=60)
    expect(time.monotonic() - began < 30, "a stranger's file held the stop up", pair)
    pair.wait_acks()
    held.kill()
    pair.lab.run("node1", ["pkill", "-x", "sleep"], check=False)
    pair.command("node1", "start")


def history_of(pair: LedgerPair, node: str) -> str:
    """All texts, a line each."""
    return "\n".join(event["text"] for event in pair.events(node))

"""What people do, in order and out of it: SafeKit's first acceptance tests, and row U1 of the catalogue."""

from __future__ import annotations

import threading
from collections.abc import Callable

from orchestrator.lab.cluster import SERVERS
from orchestrator.lab.scenarios.pair import DIRECTORY, LedgerPair
from orchestrator.lab.scenarios.scenario import EITHER, Stage, expect, scenario

FIRST = Stage("first-start", begun=False)


@scenario("first-start", "both are started, nobody knows who has the data: both wait for the word, and then serve", "S1 S2", stage=FIRST)
def first_start(pair: LedgerPair) -> None:
    for node in SERVERS:
        pair.command(node, "start")
    for node in SERVERS:
        pair.wait_state(node, "WAIT", "NotReady")
        expect("hactl prim" in pair.row(node)["reason"], f"{node} does not say what it waits for", pair)
        expect(not pair.has_address(node), "an address without data", pair)
    pair.command("node1", "prim")
    pair.wait_redundant("node1")


@scenario("swap", "a planned move under load, and nothing is lost", "S7 U1", serves="node2", silence_s=5, moves=1)
def swap(pair: LedgerPair) -> None:
    pair.swap("node1")
    pair.wait_redundant("node2")


@scenario("primary-stopped", "the primary is stopped in order: the other takes over at once", "S3 S4", serves="node2", silence_s=4, moves=1)
def primary_stopped(pair: LedgerPair) -> None:
    pair.command("node1", "stop")
    pair.wait_state("node2", "ALONE", timeout_s=20)
    pair.wait_acks()
    pair.check_lines()
    pair.command("node1", "start")


@scenario("secondary-stopped", "the secondary is stopped and started: nobody waits", "S3 S4", silence_s=2)
def secondary_stopped(pair: LedgerPair) -> None:
    pair.command("node2", "stop")
    pair.wait_state("node1", "ALONE")
    pair.wait_acks()
    pair.command("node2", "start")


@scenario("services-restarted", "restart: the services alone, where they are", "S5", silence_s=3)
def services_restarted(pair: LedgerPair) -> None:
    before = pair.service_pid("node1")
    pair.command("node1", "restart")
    pair.until(lambda: pair.service_pid("node1") not in ("", before), "the service is not started again", 15)
    expect(pair.row("node2")["state"] == "SECOND" and pair.has_address("node1"), "more than the services moved", pair)


@scenario("both-stopped", "both are stopped, the secondary first: its old data wait, whoever is started first", "S3 S4 U1")
def both_stopped(pair: LedgerPair) -> None:
    pair.command("node2", "stop")
    pair.wait_state("node2", "STOP", None)
    pair.wait_state("node1", "ALONE")
    pair.wait_acks(50)
    pair.command("node1", "stop")
    pair.wait_state("node1", "STOP", None)
    pair.command("node2", "start")
    pair.until(lambda: pair.row("node2")["state"] == "WAIT" and pair.row("node2")["data"] == "OUTDATED", "node2 does not wait", 15)
    pair.command("node1", "start")


@scenario(
    "primary-shut-down",
    "the primary's machine is shut down in order (the module stopped, then the power) and comes back",
    "S8",
    serves="node2",
    silence_s=4,
    moves=1,
)
def primary_shut_down(pair: LedgerPair) -> None:
    pair.command("node1", "stop")
    pair.wait_state("node1", "STOP", None)
    pair.wait_acks()
    pair.power_off("node1")
    pair.boot("node1")
    pair.wait_state("node1", "STOP", None)  # a stopped module stays stopped over a boot
    pair.command("node1", "start")


@scenario("prim-on-old-data", "'prim' on the node with the old data is refused, and the reason is told", "U1")
def prim_on_old_data(pair: LedgerPair) -> None:
    pair.command("node2", "stop")
    pair.wait_state("node1", "ALONE")
    pair.wait_acks()
    pair.command("node1", "stop")
    pair.wait_state("node1", "STOP", None)
    pair.command("node2", "start")
    pair.until(lambda: pair.row("node2")["data"] == "OUTDATED", "node2 does not know that its data are old", 15)
    answer = pair.say("node2", "prim")
    pair.until(lambda: bool(pair.row("node2")["reason"]), f"no reason is told, but only: {answer}", 10)
    expect(pair.rfs_status("node2")["role"] == "secondary" and not pair.service_pid("node2"), "old data are served", pair)
    pair.command("node1", "start")
    pair.wait_redundant("node1")


@scenario("prim-while-the-other-serves", "'prim' on the secondary of a healthy pair moves nothing", "U1", silence_s=1)
def prim_while_the_other_serves(pair: LedgerPair) -> None:
    pair.say("node2", "prim")
    pair.wait_acks(100)
    expect(pair.row("node1")["state"] == "PRIM", "the role moved without a swap", pair)


@scenario("two-consoles", "two people say swap on both nodes, start, stop and start again, at the same time", "U1", serves=EITHER, moves=8)
def two_consoles(pair: LedgerPair) -> None:
    for verbs in (("swap", "swap"), ("start", "start"), ("stop", "start"), ("swap", "stop"), ("restart", "swap")):
        at_once([saying(pair, node, verb) for node, verb in zip(SERVERS, verbs, strict=True)])
        for node in SERVERS:
            saying(pair, node, "start")()
        pair.wait_together()


@scenario("double-click", "each command is given twice at once on the same node", "U1", serves=EITHER, moves=8)
def double_click(pair: LedgerPair) -> None:
    for verb in ("swap", "stop", "start", "restart"):
        node = pair.primary() if verb != "start" else pair.other(pair.primary())
        at_once([saying(pair, node, verb)] * 2)
        for each in SERVERS:
            saying(pair, each, "start")()
        pair.wait_together()


def saying(pair: LedgerPair, node: str, verb: str) -> Callable[[], None]:
    """The command, to be said later."""

    def said() -> None:
        pair.say(node, verb)

    return said


def at_once(acts: list[Callable[[], None]]) -> None:
    """All of them, each in a thread; the first failure is raised."""
    failures: list[Exception] = []

    def run(act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as failure:  # noqa: BLE001 - handed over to the thread that waits
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def codes(pair: LedgerPair) -> list[str]:
    """Of what node1 warns of."""
    return [warning["code"] for warning in (pair.status("node1") or {"warnings": []})["warnings"]]


@scenario("configuration-differs", "one node's configuration leaves out other names: the two do not pair, and say why", "C1", silence_s=9)
def configuration_differs(pair: LedgerPair) -> None:
    module = f"/etc/lockstep/modules/{pair.module}.toml"
    whole = pair.lab.run("node2", ["cat", module]).stdout
    directory = f'directory = "{DIRECTORY}"'
    expect(directory in whole, f"the file is not what it was: {whole}")
    for text in (whole.replace(directory, f'{directory}\nexclude = ["scratch/**"]'), whole):
        pair.command("node2", "stop")
        pair.wait_state("node2", "STOP", None)
        pair.put("node2", module, text)
        pair.begin_anew("node2")
        pair.command("node2", "start")
        if text != whole:
            pair.until(lambda: "CONFIG_DIFFERS" in codes(pair), "no warning that the configurations differ", 20)
            pair.until(lambda: "leave out different names" in pair.row("node2")["reason"], "node2 does not say why it waits", 15)
            expect(pair.row("node1")["state"] == "ALONE", "node1 does not go on alone", pair)
            pair.wait_acks()


@scenario(
    "metadata-storm-under-failover",
    "thousands of small files come, go and are renamed while the role moves and returns",
    "S7",
    serves=EITHER,
    moves=2,
    silence_s=6,
)
def metadata_storm_under_failover(pair: LedgerPair) -> None:
    storm = (
        f"cd {DIRECTORY} && mkdir -p storm && i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i > storm/$i && mv storm/$i storm/m$i; done"
    )
    running = pair.lab.spawn("node1", ["sh", "-c", storm])
    pair.wait_acks(20)
    pair.swap("node1")
    pair.wait_redundant("node2")
    pair.lab.run("node1", ["pkill", "-f", "mkdir -p storm"], check=False)
    running.wait(20)
    pair.swap("node2")
    pair.wait_redundant("node1")
    pair.lab.run("node1", ["rm", "-rf", f"{DIRECTORY}/storm"])

"""Random series: one to three faults at a time on either node, then everything is mended and the oracle asks.

A step is named `random-SEED-STEP` and is the same whenever it is played, alone or in its series; chance is only in the plan, not in what
the machines do with it. No plan parts the nodes from each other alone: without a witness that is a matter of policy, and has a scenario.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orchestrator.lab.cluster import SERVERS, VIP
from orchestrator.lab.errors import LabError
from orchestrator.lab.plan import LANS
from orchestrator.lab.scenarios.disks import fill
from orchestrator.lab.scenarios.pair import LedgerPair
from orchestrator.lab.scenarios.scenario import EITHER, PLAIN, Scenario
from orchestrator.lab.switch import Direction
from orchestrator.lab.wire import Flaws

Deed = Callable[[LedgerPair, str, random.Random], None]
NAME = re.compile(r"random-(\d+)-(\d+)")
MOVES = 8  # of one step; more is a storm
HOLD_S = (0.1, 0.5, 1.0, 2.0, 4.0, 6.0)
COMMANDS = ("swap", "swap", "stop", "start", "restart", "stopstart")


def cut(pair: LedgerPair, node: str, chance: random.Random) -> None:
    """One network, or both; both ways, or one."""
    direction: Direction = chance.choice(("both", "both", "in", "out"))
    for lan in chance.choice((("lan",), ("repl",), LANS)):
        pair.lab.cut(node, lan, direction)


def worsen(pair: LedgerPair, node: str, chance: random.Random) -> None:
    """Some frames are lost, doubled, late."""
    share = chance.choice((0.01, 0.05, 0.15))
    flaws = Flaws(loss=share, duplicated=share, reordered=share, delay_s=chance.choice((0.0, 0.0, 0.02)), seed=chance.randrange(1 << 30))
    for lan in chance.choice((("lan",), ("repl",), LANS)):
        pair.lab.worsen(node, lan, flaws)


def flap(pair: LedgerPair, node: str, chance: random.Random) -> None:
    """A few times."""
    for _ in range(chance.randrange(2, 7)):
        cut(pair, node, chance)
        time.sleep(chance.choice((0.05, 0.2, 0.6, 2.0)))
        pair.lab.heal(node)
        time.sleep(chance.choice((0.05, 0.2, 0.6)))


def freeze(pair: LedgerPair, node: str, chance: random.Random) -> None:
    """The whole node, for a while."""
    pair.lab.freeze(node)
    time.sleep(chance.choice((0.3, 1.0, 2.5, 4.5)))
    pair.lab.thaw(node)


def reboot(pair: LedgerPair, node: str, chance: random.Random) -> None:
    """Power off, and on again some time later."""
    pair.power_off(node)
    time.sleep(chance.choice((0.0, 1.0, 5.0)))
    pair.boot(node)


def stand_still(pair: LedgerPair, node: str, chance: random.Random) -> None:
    """One daemon."""
    program = chance.choice(("hactld", "rfsmount"))
    pair.stop_process(node, program)
    time.sleep(chance.choice((0.3, 2.0, 5.0)))
    pair.stop_process(node, program, go_on=True)


def say(pair: LedgerPair, node: str, chance: random.Random) -> None:
    """A command; it may be refused, with a sentence."""
    pair.say(node, chance.choice(COMMANDS))


def stranger(pair: LedgerPair, node: str, chance: random.Random) -> None:
    """Another machine has the service address for a moment."""
    pair.lab.run("witness", ["ip", "addr", "add", f"{VIP}/24", "dev", "lan"])
    time.sleep(chance.choice((0.2, 2.0)))
    pair.lab.run("witness", ["ip", "addr", "del", f"{VIP}/24", "dev", "lan"])


def lose_address(pair: LedgerPair, node: str, chance: random.Random) -> None:
    """Somebody removes the service address, if it is there."""
    pair.lab.run(node, ["ip", "addr", "del", f"{VIP}/24", "dev", "lan"], check=False)


FAULTS: dict[str, Deed] = {
    "power cut": lambda pair, node, chance: pair.power_off(node),
    "reboot": reboot,
    "freeze": freeze,
    "cut": cut,
    "flap": flap,
    "bad cable": worsen,
    "rfsmount killed": lambda pair, node, chance: pair.kill_rfsmount(node),
    "hactld killed": lambda pair, node, chance: pair.kill_daemon(node),
    "service killed": lambda pair, node, chance: pair.kill_service(node),
    "daemon stopped": stand_still,
    "command": say,
    "disk full": lambda pair, node, chance: fill(pair, node),
    "address removed": lose_address,
    "address taken": stranger,
    "third machine dies": lambda pair, node, chance: pair.power_off("witness"),
}


@dataclass(frozen=True, slots=True)
class Blow:
    """One fault of a step."""

    fault: str
    node: str
    seed: int
    hold_s: float

    def __str__(self) -> str:
        return f"{self.fault} {self.node}"


def plan(seed: int, step: int) -> list[Blow]:
    """What happens in a step."""
    chance = random.Random(f"{seed}/{step}")
    blows = []
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3))):
        blows.append(Blow(chance.choice(list(FAULTS)), chance.choice(SERVERS), chance.randrange(1 << 30), chance.choice(HOLD_S)))
    return blows


def strike(pair: LedgerPair, blows: list[Blow]) -> None:
    """One after the other; a node that is off or frozen already cannot be hit in every way."""
    for blow in blows:
        try:
            FAULTS[blow.fault](pair, blow.node, random.Random(blow.seed))
        except LabError:
            continue  # the node has no power by now, or the process is gone
        time.sleep(blow.hold_s)
    mend(pair)


def mend(pair: LedgerPair) -> None:
    """All faults end, and both are wanted."""
    pair.lab.heal()
    for row in pair.lab.status()["nodes"]:
        if row["power"] == "frozen":
            pair.lab.thaw(row["node"])
        elif row["power"] == "off" and row["node"] not in SERVERS:
            pair.lab.boot(row["node"])
    for node in SERVERS:
        if any(row["node"] == node and row["power"] == "off" for row in pair.lab.status()["nodes"]):
            pair.boot(node)
        pair.lab.run(node, ["rm", "-f", "/srv/.filler"])
        if pair.status(node) is None:
            pair.start_daemon(node)
    for node in SERVERS:
        pair.say(node, "start")  # also to one that runs: a person's word makes services that failed too often start again


def step_of(seed: int, step: int) -> Scenario:
    """As a scenario."""
    blows = plan(seed, step)
    text = ", then ".join(str(blow) for blow in blows)
    return Scenario(
        f"random-{seed}-{step}", text, (), lambda pair: strike(pair, blows), PLAIN, EITHER, None, MOVES, two_may_serve=False, slow=True
    )  # fmt: skip


def by_name(name: str) -> Scenario | None:
    """`random-SEED-STEP`."""
    found = NAME.fullmatch(name)
    return step_of(int(found[1]), int(found[2])) if found else None


def series(seed: int, faults: int) -> Iterator[Scenario]:
    """Steps, until so many faults have been done."""
    step = 0
    while faults > 0:
        yield step_of(seed, step)
        faults -= len(plan(seed, step))
        step += 1

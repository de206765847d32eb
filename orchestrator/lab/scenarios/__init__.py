"""Named scenarios for a pair in the lab, an oracle that looks on, and the catalogue of faults that they play.

`hactl lab run` lists and plays them; tests/cluster/test_scenarios.py plays a slice a day, script/soak all.
"""

from orchestrator.lab.scenarios import address, application, cables, checkers, clocks, disks, people, power, processes, series, witness
from orchestrator.lab.scenarios.running import Theatre, Verdict, in_order, play_all
from orchestrator.lab.scenarios.scenario import PLAIN, TABLE, Impossible, Scenario, Stage

__all__ = [
    "PLAIN", "TABLE", "Impossible", "Scenario", "Stage", "Theatre", "Verdict", "in_order", "play_all",
    "address", "application", "cables", "checkers", "clocks", "disks", "people", "power", "processes", "series", "witness",
]  # fmt: skip

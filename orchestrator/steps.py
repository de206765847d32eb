"""Named steps of hactld, at which a test can make it die (rfs/steps.py has the essay): those of an apply (config_apply.py)."""

from __future__ import annotations

from rfs import steps

STEPS = {
    "config-kept": "the coordinator has the files, nobody was asked",
    "config-prepared": "a participant has promised, durably, and not said so",
    "config-promised": "every participant has promised; nothing is committed",
    "config-switched": "a node's history has the new generation; its files have not been written",
    "config-committed": "the coordinator has committed, no participant knows",
}
steps.KNOWN.update(STEPS)
reached = steps.reached

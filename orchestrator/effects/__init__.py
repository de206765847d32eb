"""What hactld does to the world: one file per kind of thing, no decisions.

Every effect method either succeeds, raises EffectFailed with one sentence, or is cancelled because a newer order replaced it
(then it leaves things in a state from which the newer one can go on). `rfs.py` drives rfsmount, `vip.py` and `arp.py` the service
address, `services.py` the application: its services are commands (`service_command.py`, `commands.py`, `cgroups.py`, `processes.py`) or
units (`service_unit.py`, `systemd.py`), and end by `ending.py` and `mount_abort.py`; `scripts.py` runs the administrator's own steps,
`notify.py` is the log and the history that people read.
"""


class EffectFailed(Exception):
    """The world said no, in one sentence; `refused`: asking again at once is pointless."""

    def __init__(self, sentence: str, *, refused: bool = False) -> None:
        super().__init__(sentence)
        self.refused = refused

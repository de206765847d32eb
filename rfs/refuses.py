"""What a module does not let into its directories, whoever asks: docs/decisions/0035-what-a-peer-may-ask-for.md."""

from enum import IntFlag


class Refuses(IntFlag):
    """`RFS_REFUSE_*` of csrc/rfs_engine.h."""

    NOTHING = 0
    DEVICES = 1  # device nodes
    SETUID = 2  # setuid and setgid files, and file capabilities

    @classmethod
    def of(cls, *, devices: str, setuid: str) -> "Refuses":
        """As the options say it: allow or refuse."""
        return (cls.DEVICES if devices == "refuse" else cls.NOTHING) | (cls.SETUID if setuid == "refuse" else cls.NOTHING)

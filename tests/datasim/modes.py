"""What a process is doing with its copy."""

from enum import Enum, auto


class Mode(Enum):
    IDLE = auto()
    FROZEN = auto()
    ALONE = auto()
    SOURCE = auto()  # of a resync
    PAIRED = auto()  # as primary
    TARGET = auto()  # of a resync, or paired as secondary


SERVING = (Mode.ALONE, Mode.SOURCE, Mode.PAIRED)


class SaidNo(Exception):
    """A rule refused."""


class SessionEnded(Exception):
    """The link is gone, or one side cannot go on."""

"""What the exit codes of `rfsmount`, `hactl` and the errors of the control socket mean: one table for all of them."""

from typing import Final

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
CONFIGURATION_INVALID: Final = 3
DAEMON_NOT_REACHABLE: Final = 4
PEER_NOT_REACHABLE: Final = 5
REFUSED: Final = 6
TIMEOUT: Final = 7
NOT_PERMITTED: Final = 8

MEANINGS: Final[dict[int, str]] = {
    DONE: "done",
    FAILED: "failed",
    USAGE: "usage",
    CONFIGURATION_INVALID: "configuration invalid",
    DAEMON_NOT_REACHABLE: "daemon not reachable",
    PEER_NOT_REACHABLE: "peer not reachable",
    REFUSED: "refused for safety",
    TIMEOUT: "timeout",
    NOT_PERMITTED: "not permitted",
}

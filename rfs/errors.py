"""The exceptions of rfs, by whose fault they are.

    Exception
    ├── SaidNo             a person (or the orchestrator) asked for what cannot be done: one sentence and an exit code
    │   └── NotGranted     the witness did not let this node go on alone
    ├── PeerProtocolError  the peer's bytes make no sense: drop the link, never the process
    ├── SessionEnded       the session with the peer ended while somebody waited for it
    └── OSError            the world: where it is not one of a named set of cases, it goes up

Our own mistakes are assertions.
"""

from rfs import exit_codes


class SaidNo(Exception):
    """A refusal that a person reads: place, reason, next step."""

    def __init__(self, sentence: str, exit_code: int = exit_codes.REFUSED) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.exit_code = exit_code


class NotGranted(SaidNo):
    """The witness did not give the grant. `fenced`: it names somebody who went on without this node."""

    def __init__(self, sentence: str, *, fenced: bool = False) -> None:
        super().__init__(sentence)
        self.fenced = fenced


class PeerProtocolError(Exception):
    """What the peer sent is not the protocol."""


class SessionEnded(Exception):
    """The session is over; whatever was asked of the peer in it has no answer."""

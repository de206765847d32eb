"""Asking several nodes the same thing. One that does not answer takes nothing away from what the others say: that is shown, and then the
command ends with 5 and says who was silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from orchestrator.api.client import ApiFailure
from orchestrator.hactl.session import Failure
from rfs import exit_codes

Ask = Callable[[str | None], dict[str, Any]]


@contextmanager
def answers(nodes: Sequence[str | None], ask: Ask) -> Iterator[list[dict[str, Any]]]:
    """The documents of those that answer; what is done with them comes first, then the failure."""
    found, silent = list[dict[str, Any]](), list[str]()
    for node in nodes:
        try:
            found.append(ask(node))
        except ApiFailure as failure:
            if failure.code != exit_codes.PEER_NOT_REACHABLE or len(nodes) == 1:
                raise
            silent.append(str(failure))
    yield found
    if silent:
        raise Failure("; ".join(silent), exit_codes.PEER_NOT_REACHABLE)

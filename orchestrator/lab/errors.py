"""What the lab says when it cannot do what was asked."""

from __future__ import annotations

from orchestrator.sentence import Sentence


class LabError(Sentence):
    """The lab is not in the state for it, or a tool of the system failed."""

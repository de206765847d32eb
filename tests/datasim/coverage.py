"""What a run has visited: a run of the default size that never came to one of these has tested less than it says."""

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

from rfs import decide as deciding

RULES = (
    "_rolled_back", "_unfit", "_lost_before_the_leave", "_same_generation", "_ancestor", "_fork", "_first_copy",
)  # fmt: skip
TIES = ("knows that its peer went on", "lost power: its peer ran through", "is not the running primary", "was not the last primary",
        "has the higher term", "was primary last")  # fmt: skip


class Counted:
    """While in use, decide's rules are counted when they speak."""

    def __init__(self, seen: Counter[str]) -> None:
        self.seen = seen
        self.saved: dict[str, Any] = {}

    def __enter__(self) -> "Counted":
        for name in RULES:
            self.saved[name] = getattr(deciding, name)
            setattr(deciding, name, self._counting(name, self.saved[name]))
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in self.saved.items():
            setattr(deciding, name, function)

    def _counting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(a: deciding.Side, b: deciding.Side) -> Any:
            decision = function(a, b)
            if decision is not None:
                self.seen[f"rule {name}"] += 1
                for tie in TIES:
                    if tie in decision.reason:
                        self.seen[f"tie {tie}"] += 1
            return decision

        return counted


def rules_of_decide() -> set[str]:
    """Every rule that decide() asks, so that a new one is not forgotten here."""
    source = inspect.getsource(deciding.decide)
    return {word for word in source.replace(",", " ").split() if word.startswith("_") and not word.startswith("_never")}

"""What a node's history says to a doctor. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from orchestrator.doctor.judge_daemon import MOVES, RECENT_S

TEXT_CHARACTERS_MAX: Final = 200
ERRORS_MAX: Final = 10


def history_facts(events: Sequence[Mapping[str, Any]], wall_s: float) -> dict[str, Any]:
    """Out of hactld's events, as the API has them."""
    moves = [
        event["wall_s"]
        for event in events
        if event["kind"] in MOVES or (event["kind"] == "command" and str(event["text"]).startswith("swap"))
    ]
    failed = [event for event in events if event["kind"] == "script-error" and wall_s - event["wall_s"] < RECENT_S]
    return {
        "events": len(events),
        "oldest_age_s": wall_s - events[0]["wall_s"] if events else 0.0,
        "last_move_age_s": wall_s - max(moves) if moves else None,
        "script_errors": [
            {"module": event["module"], "text": str(event["text"])[:TEXT_CHARACTERS_MAX], "time": event.get("time", "")}
            for event in failed[-ERRORS_MAX:]
        ],
    }

"""What the default run has visited: every pair of the core's table that means something, and every way out of every rule.

The ways out are found in the source: each `return` of a rule, and each sentence that it puts together on the way. While `Counted` lasts
they are counted; the rules themselves are as they were.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from orchestrator.core import failover_rules as rules
from orchestrator.core import machine
from orchestrator.core import meanings as on
from orchestrator.core.states import State

RULES: Final = (
    "goal", "still_current", "outranked", "promotion", "permission", "failback", "answer_counts", "start_role", "why_not_started",
    "describe", "describe_leading", "describe_waiting", "describe_barred", "why_not_handed_over",
)  # fmt: skip
SENTENCES: Final = ("reason", "waits", "waiting", "words")  # names of what is said
IDLE: Final = (on.ignore, on.refuse)
NOWHERE: Final = {  # pair or way out: why no life of this simulator comes to it
    "(ALONE, PeerAskedPromote)": "a question of the peer that is answered already: the handlers' unit tests have it",
    "(WAIT, PeerAskedPromote)": "the same, a moment later",
    "(SECOND, AddressLost)": "on its way while the role goes: milliseconds",
    "(WAIT, AddressLost)": "the same",
    "(SECOND, ServiceDied)": "the same",
    "describe: return describe_light(module)": "light modules have no peer: test_scripts.py",
    "goal: return Goal(Level.MOUNTED if module.services_failed or must_not_serve(module) else Level.SERVING)": "the same",
}


def pairs() -> set[str]:
    """Every pair of the table at which something happens."""
    busy = [pair for pair, handler in machine.TABLE.items() if handler not in IDLE]
    return {f"({state.value}, {kind.__name__})" for state, kind in busy if state is not State.UP}  # light modules: test_scripts.py


class _Marks(ast.NodeTransformer):
    """Wraps what leaves a function into a call that counts it."""

    def __init__(self, function: str) -> None:
        self.function, self.labels = function, list[str]()

    def _mark(self, value: ast.expr, word: str) -> ast.expr:
        label = f"{self.function}: {word} {ast.unparse(value)[:90]}"
        label += f" #{self.labels.count(label) + 1}" if label in self.labels else ""
        self.labels.append(label)
        return ast.Call(ast.Name("_visited", ast.Load()), [ast.Constant(label), value], [])

    def visit_Return(self, node: ast.Return) -> ast.Return:  # noqa: N802 - ast's name
        if node.value is not None:
            node.value = self._mark(node.value, "return")
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:  # noqa: N802 - ast's name
        target = node.targets[0]
        if isinstance(target, ast.Name) and target.id in SENTENCES:
            node.value = self._mark(node.value, target.id)
        return node


def marked(name: str) -> tuple[Any, list[str]]:
    """The rule with its ways out counted, and their names."""
    tree, marks = ast.parse(textwrap.dedent(inspect.getsource(getattr(rules, name)))), _Marks(name)
    marks.visit(tree)
    space: dict[str, Any] = {}
    exec(compile(ast.fix_missing_locations(tree), f"<{name}, counted>", "exec"), vars(rules), space)
    return space[name], marks.labels


class Counted:
    """While it lasts, the ways out of all rules are counted."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.labels: list[str] = []
        self.pairs = pairs()
        self.lives = 0
        self._whole: dict[str, Any] = {}

    def __enter__(self) -> Counted:
        self._whole = {name: getattr(rules, name) for name in RULES}
        counted = {name: marked(name) for name in RULES}
        vars(rules)["_visited"] = self._visited
        for name, (function, labels) in counted.items():
            setattr(rules, name, function)
            self.labels += labels
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in self._whole.items():
            setattr(rules, name, function)
        del vars(rules)["_visited"]

    def _visited(self, label: str, value: Any) -> Any:
        self.seen[label] += 1
        return value

    def saw(self, visited: Iterable[tuple[str, str]]) -> None:
        """States and events of one life."""
        self.seen.update(f"({state}, {kind})" for state, kind in visited)

    def missing(self) -> list[str]:
        """What was never visited."""
        return sorted(label for label in {*self.labels, *self.pairs} if not self.seen[label] and label not in NOWHERE)

"""The witness, and the rules for asking it (PROTOCOL §6): small, and in one place, to be replaced by rfs/witness.py."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from rfs.record import MAX_NAMES, Record


@dataclass(frozen=True)
class Register:
    generation: int
    term: int
    owner: int


@dataclass
class Witness:
    """One compare-and-swap register. None: it has lost its memory."""

    register: Register | None
    reachable: list[bool] = field(default_factory=lambda: [True, True])
    late: list[tuple[Register, Register]] = field(default_factory=list)  # requests that are still on their way

    def compare_and_swap(self, expected: Register, new: Register) -> bool:
        if self.register is None or self.register != expected:
            return False
        self.register = new
        return True


def with_tried(record: Record, name: int) -> Record:
    """Durable before the request leaves."""
    return replace(record, tried=(*record.tried, name)[-MAX_NAMES:])


def abandoned(record: Record) -> tuple[int, ...]:
    """Names that were asked for and that nobody goes by: the peer may start from them too."""
    return tuple(name for name in record.tried if name not in record.lineage)


def hear_abandoned(record: Record, names: Iterable[int]) -> Record:
    new = tuple(name for name in names if name and name not in record.tried and name not in record.lineage)
    return replace(record, tried=(*record.tried, *new)[-MAX_NAMES:]) if new else record


def may_start_from(record: Record, register: Register) -> bool:
    """False: somebody else went on. Fenced."""
    return record.continues(register.generation) or register.generation in record.tried

"""The witness: one register, swapped by its revision. The rules of asking it are rfs/witness.py and rfs/rules.py."""

from dataclasses import dataclass, field, replace

from rfs.witness import Held


@dataclass(frozen=True)
class Register:
    generation: int
    term: int
    owner: int
    revision: int = 0

    def held(self) -> Held:
        return Held(self.generation, self.term, self.owner)


@dataclass
class Witness:
    """One compare-and-swap register. None: it has lost its memory."""

    register: Register | None
    reachable: list[bool] = field(default_factory=lambda: [True, True])
    revisions: int = 0
    late: list[tuple[Register, Register]] = field(default_factory=list)  # requests that are still on their way

    def compare_and_swap(self, expected: Register, new: Register) -> bool:
        if self.register is None or self.register != expected:
            return False
        self.put(new)
        return True

    def put(self, new: Register) -> None:
        """Whatever it held."""
        self.revisions += 1
        self.register = replace(new, revision=self.revisions)

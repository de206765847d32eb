"""Two rfsmount and the link between them, reduced to what the orchestrator can see and must not get wrong.

Generations are tuples of names, so ancestry is a prefix. `content` counts acknowledged writes: the oracle's measure of old data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.core.states import RfsView

RESYNC_S = 2.0


@dataclass
class Record:
    """What survives everything."""

    lineage: tuple[int, ...] = ()
    data: str = "INCONSISTENT"
    role: str = "secondary"
    term: int = 0
    peer_may_fit: bool = True
    used: bool = False
    content: int = 0


class Refused(Exception):
    """rfsmount says no."""


class FakeWitness:
    """The register, and who reaches it. A grant starts from a name in the asker's lineage (that of one who died asking is not played)."""

    def __init__(self) -> None:
        self.held = 0
        self.out_of_reach: set[str] = set()

    def check(self, rfs: FakeRfs) -> None:
        """May go on now, or Refused; a primary that is fenced steps down."""
        assert rfs.record is not None
        if rfs.name in self.out_of_reach:
            raise Refused("the witness cannot be reached")
        if self.held not in rfs.record.lineage:
            rfs.fence()
            raise Refused("the witness gave the grant to the peer")


class FakeRfs:
    """One rfsmount process and its record."""

    witness: FakeWitness | None = None

    def __init__(self, name: str, mint: Callable[[], int]) -> None:
        self.name, self.mint = name, mint
        self.record: Record | None = None
        self.alive = False
        self.role, self.mode, self.link, self.code = "secondary", "idle", "connecting", "CONNECTING"
        self.paired_this_run = self.consent = False
        self.left_with_consent = False  # the peer has said goodbye, and that this node may be promoted
        self.resync_until: float | None = None

    @property
    def linked(self) -> bool:
        return self.link in ("paired", "resyncing")

    @property
    def serves(self) -> bool:
        return self.alive and self.role == "primary" and self.mode in ("alone", "resyncing", "paired")

    @property
    def may_be_granted(self) -> bool:
        """Without a witness never after a restart."""
        return self.paired_this_run or self.witness is not None

    def go_on_granted(self) -> None:
        """The witness's register follows what is minted: one step here, as under the lock there."""
        if self.witness is not None:
            self.witness.check(self)
        self.go_alone()
        if self.witness is not None and self.record is not None:
            self.witness.held = self.record.lineage[-1]

    def view(self) -> RfsView:
        assert self.record is not None
        shown = self.record.data
        if shown == "UPTODATE" and not self.paired_this_run and self.record.peer_may_fit:
            shown = "CONSISTENT"
        return RfsView(
            role="primary" if self.role == "primary" else "secondary",
            link=self.link,
            mode=self.mode,
            data=shown,
            generation=str(self.record.lineage),
            term=self.record.term,
            code=self.code,
            needs_grant=self.role == "primary" and self.mode == "frozen" and self.may_be_granted,
            consent=self.consent,
            witness_away=self.witness is not None and self.name in self.witness.out_of_reach,
        )

    # ---- orders -------------------------------------------------------------------------------------------------------

    def start(self, role: str) -> None:
        assert not self.alive
        if self.record is None:
            if role == "primary":
                self.record = Record((self.mint(),), "UPTODATE", "primary", 1, peer_may_fit=False, used=True)
                if self.witness is not None:
                    self.witness.held = self.record.lineage[0]
            else:
                self.record = Record()
        self.alive, self.consent, self.paired_this_run, self.resync_until = True, False, False, None
        self.left_with_consent = False
        self.role, self.mode, self.link, self.code = "secondary", "idle", "connecting", "WAITING_FOR_PEER"
        if self.record.role == "primary" and self.record.data == "UPTODATE":
            alone = "frozen" if self.record.peer_may_fit else "alone"
            self.role, self.mode, self.link = "primary", alone, alone
            self.record.term += 1

    def go_alone(self) -> None:
        assert self.record is not None
        self.consent = self.left_with_consent = False
        self.record.lineage += (self.mint(),)
        self.record.peer_may_fit, self.record.used, self.record.role = False, True, "primary"
        self.role, self.mode, self.link, self.code = "primary", "alone", "alone", "ALONE"

    def grant(self) -> None:
        if not (self.alive and self.role == "primary" and self.mode == "frozen" and self.may_be_granted):
            raise Refused("no frozen primary of this run")
        self.go_on_granted()

    def promote(self, granted: bool, other: FakeRfs, force: bool = False) -> None:
        if force and self.alive and self.record is not None and self.record.data != "INCONSISTENT" and not self.linked:
            self.record.data = "UPTODATE"
            self.go_alone()
            self.record.term += 1
            return
        if not self.alive or self.record is None or self.record.data != "UPTODATE" or self.role == "primary":
            raise Refused("not promotable")
        if self.linked and self.consent and self.link == "paired":
            assert other.record is not None and other.role == "secondary", "two primaries in one session"
            self.record.term = other.record.term = max(self.record.term, other.record.term) + 1
            self.role = self.record.role = "primary"
            self.mode, self.consent, other.consent = "paired", False, False
            return
        if self.linked or not (granted or self.consent or self.witness is not None) or not self.may_be_granted:
            raise Refused("no grant, or the peer is there")
        self.go_on_granted()
        self.record.term += 1

    def recopy(self) -> None:
        if not self.serves:
            raise Refused("not primary")

    def demote(self, other: FakeRfs, alone: bool = False) -> None:
        if alone and self.serves:
            other.lose_link()
            self.lose_link()
            assert self.record is not None
            self.role = self.record.role = "secondary"
            self.mode, self.link = "idle", "connecting"
            return
        if not (self.role == "primary" and self.mode == "paired"):
            raise Refused("not paired")
        assert self.record is not None
        self.role = self.record.role = "secondary"
        self.mode, other.consent = "idle", True

    def outdate(self) -> None:
        if not self.alive or self.record is None or self.role == "primary" or self.linked:
            raise Refused("in a session, or primary")
        self.record.data = "OUTDATED"

    def fence(self) -> None:
        if not self.alive:
            raise Refused("not there")
        self.role, self.mode, self.link, self.code = "secondary", "idle", "connecting", "CONNECTING"
        if self.record is not None:
            self.record.role = "secondary"

    def unmount(self, other: FakeRfs) -> None:
        assert self.record is not None
        if self.link == "paired" and self.role == "secondary" and other.role == "primary":
            self.record.data, other_record = "OUTDATED", other.record
            assert other_record is not None
            other_record.peer_may_fit = False
            other.go_alone()
        elif self.link == "paired" and self.role == "primary" and other.alive and other.linked:
            other.left_with_consent = other.consent = True
        self.alive, self.link = False, "connecting"

    def die(self) -> None:
        self.alive, self.link = False, "connecting"

    def lose_link(self) -> None:
        if not self.linked:
            return
        assert self.record is not None
        self.consent, self.resync_until = self.left_with_consent, None
        if self.role != "primary":
            self.link, self.code = "connecting", "CONNECTING"
        elif self.record.peer_may_fit:
            self.mode, self.link, self.code = "frozen", "frozen", "FROZEN"
        else:
            self.mode, self.link, self.code = "alone", "alone", "ALONE"


def meet(a: FakeRfs, b: FakeRfs, now: float) -> None:
    """The link is there and both are willing: who is the source?"""
    for side in (a, b):
        side.consent = side.left_with_consent = False
    source = choose_source(a, b)
    if source is None:
        for side in (a, b):
            if side.role != "primary":
                side.link, side.code = "diverged", "DIVERGED"
        return
    target = b if source is a else a
    assert source.record is not None and target.record is not None
    same = source.record.lineage == target.record.lineage and target.record.data == "UPTODATE"
    if same and target.paired_this_run and source.paired_this_run:
        pair(source, target)
        return
    target.record.data, target.record.role = "INCONSISTENT", "secondary"
    target.role, target.mode, target.link = "secondary", "idle", "resyncing"
    source.record.peer_may_fit = False
    if source.role != "primary":
        source.record.term = max(source.record.term, target.record.term) + 1
    source.role = source.record.role = "primary"
    source.mode = source.link = "resyncing"
    source.resync_until = now + RESYNC_S


def pair(source: FakeRfs, target: FakeRfs) -> None:
    """In sync."""
    assert source.record is not None and target.record is not None
    target.record.lineage, target.record.content, target.record.term = source.record.lineage, source.record.content, source.record.term
    target.record.data, target.record.peer_may_fit, target.record.used = "UPTODATE", True, True
    source.record.peer_may_fit = True
    source.role = source.record.role = "primary"
    target.role = target.record.role = "secondary"
    source.mode = source.link = source.code = "paired"
    target.mode, target.link = "idle", "paired"
    source.resync_until = None
    source.paired_this_run = target.paired_this_run = True


def choose_source(a: FakeRfs, b: FakeRfs) -> FakeRfs | None:
    """PROTOCOL's decide, without marks."""
    assert a.record is not None and b.record is not None
    one, two = a.record, b.record
    if one.lineage == two.lineage:
        fit = [side for side in (a, b) if side.record is not None and side.record.data == "UPTODATE"]
        if len(fit) == 1:
            return fit[0]
        if not fit:
            return None
        running = [side for side in fit if side.role == "primary"]
        if running:
            return running[0]
        return max(fit, key=lambda side: (side.record.role == "primary" if side.record else False, side.name == "node1"))
    if one.lineage[: len(two.lineage)] == two.lineage:
        return a if one.data == "UPTODATE" else None
    if two.lineage[: len(one.lineage)] == one.lineage:
        return b if two.data == "UPTODATE" else None
    return None

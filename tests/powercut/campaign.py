"""One long life of a pair: it works, loses power at some instant, here, there or on both, comes back, works on; and then looks back.

Each cut builds the dead node's disk anew from what had reached it (cut.py) and starts a new rfsmount on that. After each return the two
trees must be equal and hold what they owe. In the end, states of the whole recorded life are looked at (static.py), and some of them are
brought to life (`revive`).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.lab.trees import differences
from rfs.errors import SaidNo
from tests.powercut.cut import Images
from tests.powercut.disk import Disks, workplace
from tests.powercut.ledger import Needs
from tests.powercut.node import CHECKPOINT_S, DEADLINE_S, wait_for
from tests.powercut.oracle import check, check_unchanged
from tests.powercut.pair import Pair, Violation
from tests.powercut.static import NAMES

WORK_S = (0.3, 1.6)  # how long the application runs before a cut
FIRST = ("secondary", "primary", "primary, soon back", "both", "successive")
LATER = ("secondary", "primary", "primary, soon back", "both")  # before the pair is complete again
IMPATIENT = 0.35  # how often the next cut does not wait for the pair to be complete


class Campaign(Pair):
    """See the module's text. Made by `campaign`, which also takes everything apart again."""

    def round(self) -> None:
        """Work, a cut, perhaps another one before the pair is complete again, the return; and the proof."""
        self.work()
        self.sleep(*WORK_S)
        if CHECKPOINT_S and self.chance.random() < 0.4:
            self.sleep(CHECKPOINT_S, 2 * CHECKPOINT_S)
        self._cut(self.chance.choice(FIRST))
        while not self._returned():
            self._cut(self.chance.choice(LATER))
        self.phase(is_paired=True)
        if self.job is None and self.chance.random() < 0.5:
            self.work()
        self.sleep(0.1, 0.5)
        self.end_job()
        self.prove()

    def _cut(self, what: str) -> None:
        """Cut, go on with what is left, and power on again; whether the pair gets complete is another matter."""
        self.say(f"cut {what}")
        self.tally.cuts[what] += 1
        was_complete = self.phases[-1].is_paired
        if what == "secondary":
            self.power_off(self.secondary)
            self.phase(is_paired=False)
            if not self.until_serving(self.primary, must=was_complete):
                self.forgive()  # the other one had run through, and was the one that had everything
            self.sleep(0.0, 1.0)
            self.restore(self.secondary)
            self.power_on(self.secondary, "secondary")
        elif what == "primary":
            self.power_off(self.primary)
            self.phase(is_paired=False)
            if self._take_over(must=was_complete):
                self.sleep(0.0, 1.0)
            else:
                self.forgive()
            back = self.secondary if self.nodes[self.primary].is_on else self.primary
            self.restore(back)
            self.power_on(back, "secondary")
        elif what == "primary, soon back":  # before anybody took over: the one that ran through has more than the last primary's disk
            self.power_off(self.primary)
            self.phase(is_paired=False)
            if not was_complete:
                self.forgive()
            self.restore(self.primary)
            self.power_on(self.primary, "primary")
        elif what == "successive":
            self.power_off(self.primary)
            self.phase(is_paired=False)
            self._take_over(must=True)
            self.sleep(0.0, 0.8)
            self.power_off(self.primary)
            self.forgive()
            self._both_return(stale=self.secondary)
        else:
            self.power_off("a", "b")
            self.forgive()
            self._both_return()
        self.phase(is_paired=False)

    def _both_return(self, stale: str = "") -> None:
        """In either order. The stale one, which another went on without, must never serve by itself."""
        order = list(NAMES)
        self.chance.shuffle(order)
        for name in order:
            self.restore(name)
        pause_s = self.chance.choice((0.0, 0.0, 1.5))
        self.say(f"return {order[0]}, {pause_s} s, {order[1]}")
        for name in order:
            self.power_on(name, "primary" if name == self.primary else "secondary")
            time.sleep(pause_s if name == order[0] else 0)
            if name == order[0] == stale and self.serves_alone(stale):
                raise Violation(f"{stale} serves alone, though {self.primary} went on without it")

    def _take_over(self, *, must: bool) -> bool:
        """The other node goes on, if it may: by a person's word, as there is no orchestrator here."""
        other = self.secondary
        node = self.nodes[other]
        wait_for(
            f"{other} has lost its peer",
            lambda: bool(node.status()) and node.status()["link"] not in ("paired", "resyncing", "handshaking"),
        )
        try:
            node.call("promote", force=False, granted=True, reason="the peer lost power")
        except SaidNo as refusal:
            if must:
                raise Violation(f"{other} was complete and cannot be promoted: {refusal.sentence}") from refusal
            self.say(f"{other} is not promoted: {refusal.sentence[:60]}")
            return False
        self.primary = other
        self.until_serving(other, must=True)
        self.owe(other)
        self.work()
        return True

    def _returned(self) -> bool:
        """Wait for the pair; or, at times, stop waiting: then the next cut comes within the resync."""
        if self.chance.random() < IMPATIENT and len(self.events) < 12:
            self.sleep(0.2, 1.6)  # from the start of a process to the pair it is about a second
            self.find_primary()
            return False
        self.await_pair()
        return True

    def revive(self) -> None:
        """Both nodes, as a cut of both at any entry of the recorded life leaves them, come back: equal, and holding what they owe."""
        phase = self.chance.choices(self.phases, [phase.end - phase.begin + 1 for phase in self.phases])[0]
        cut = self.chance.randint(phase.begin, phase.end)
        self.events = [f"revived at {cut}"]
        self.tally.cuts["both, recorded"] += 1
        for name in NAMES:
            disk = phase.disks[name]
            images = Images(self.disks.log, disk, self.directory, self.kind)
            images.build(self.directory / f"{name}.img", min(cut, phase.stopped.get(name, cut)), self.chance)
            images.close()
            self.disk_of[name] = self.disks.new(self.directory / f"{name}.img")
        self._return_equal()
        for name in NAMES:
            wrong = check_unchanged(self.nodes[name].inside, phase.unchanged)
            for account in phase.accounts:
                wrong += check(self.nodes[name].inside, account.ledger(), account.until(cut), Needs.SYNCED)
            if wrong:
                raise Violation(f"{name} has lost what was synced: {wrong}")
        for name in NAMES:
            self.nodes[name].cut()
            self.await_released(self.disk_of[name])
        self.events = []

    def start_images(self, images: Path) -> None:
        """Two nodes on a.img and b.img, as a failure has left them."""
        for name in NAMES:
            self.disk_of[name] = self.disks.new(images / f"{name}.img")
        self._return_equal()

    def _return_equal(self) -> None:
        for name in self.chance.sample(NAMES, 2):
            self.power_on(name, "secondary")
        self.await_pair()
        trees = {name: self.nodes[name].manifest() for name in NAMES}
        different = differences(trees["a"], trees["b"])
        if different:
            raise Violation(f"the trees differ after the return: {different}")


@contextmanager
def campaign(seed: str, kind: str = "ext4") -> Iterator[Campaign]:
    """A life in directories of its own; the logs stay when it ends badly."""
    directory = Path(tempfile.mkdtemp(prefix="lockstep-cut-", dir=workplace()))
    places = Path(tempfile.mkdtemp(prefix="lockstep-cut-", dir="/var/tmp"))  # nothing below /dev is data
    is_kept = False
    try:
        with Disks(directory) as disks:
            life = Campaign(directory, places, disks, seed, kind)
            try:
                yield life
            except Exception as failure:
                failure.add_note(f"seed {seed}: {life.story}; the nodes' logs are in {directory}")
                raise
            finally:
                for node in life.nodes.values():
                    node.cut()
                if life.job is not None:
                    life.job.stop.touch()
                    life.job.process.wait(timeout=DEADLINE_S)
    except Exception:
        is_kept = True
        for image in (*directory.glob("*/*.img"), directory / "log"):
            image.unlink(missing_ok=True)  # what is left: notes, the nodes' logs, and a.img and b.img of the last return
        raise
    finally:
        shutil.rmtree(places)  # nothing but mount points, in nobody's sight any more
        if not is_kept:
            shutil.rmtree(directory)

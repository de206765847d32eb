"""What people must know of this node's keys, and what hactld does with them beside its links."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

from orchestrator.peer import PeerClient
from rfs import exit_codes
from rfs.errors import SaidNo
from rfs.keys import NEXT, KeyStore

KEYS_DIR = "keys"
LOOK_EVERY_S = 3600.0
ROTATE_DEADLINE_S = 10.0
Warning_ = dict[str, str]


def key_store(config_dir: Path) -> KeyStore:
    """The keys of a node in a cluster."""
    return KeyStore(config_dir / KEYS_DIR)


class Keys:
    """This node's keys as its daemon sees them; `store` is None with --insecure."""

    def __init__(self, store: KeyStore | None, node: str, peer: str) -> None:
        self.store, self.node, self.peer = store, node, peer

    def check(self) -> None:
        """At the start: a key of this very node. A peer that is not paired (any more) is a warning: this node must serve without it."""
        if self.store is None:
            return
        if not self.store.exists():
            raise SaidNo(
                f"{self.store.directory}: this node has no key yet; run 'hactl cluster init' on one node and the 'hactl cluster join' "
                "that it shows on the other, or start hactld with --insecure if the networks are yours alone",
                exit_codes.CONFIGURATION_INVALID,
            )
        self.store.own_of(self.node)

    async def pin(self, certificate: str, under: str) -> None:
        """The peer's next key, which it told over a connection that it had proven with its present one."""
        if self.store is None:
            raise ValueError("this node runs with --insecure")
        store = self.store
        await trio.to_thread.run_sync(lambda: store.pin(self.peer, certificate, under=under))

    async def rotate(self, peer: PeerClient) -> str:
        """Replace this node's key without an interruption; the new key's pin. What is cut short goes on when it is tried again.

        The peer pins the new key beside the old one, told under the old one; then it is used; with its first use the old one counts no
        longer. Established connections go on under the key that they began with."""
        if self.store is None:
            raise SaidNo("this node runs with --insecure: it has no key", exit_codes.REFUSED)
        store = self.store
        staged = await trio.to_thread.run_sync(lambda: store.make(self.node, name=NEXT))
        await peer.call("pin", {"certificate": staged.known.certificate}, ROTATE_DEADLINE_S)
        await trio.to_thread.run_sync(store.activate_next)
        await peer.call("hello", {}, ROTATE_DEADLINE_S)
        await trio.to_thread.run_sync(store.drop_former)
        return staged.known.pin

    def warnings(self) -> list[Warning_]:
        """For status."""
        if self.store is None:
            text = "the links between the nodes are not protected (--insecure)"
            return [{"code": "INSECURE", "text": text, "fix": "hactl cluster init, then start hactld without --insecure"}]
        try:
            if not self.store.trust().of(self.peer):
                text = f"no key of {self.peer} is paired with this node"
                return [{"code": "NOT_PAIRED", "text": text, "fix": "hactl cluster init here, hactl cluster join there"}]
            alarms = self.store.expiry_alarms(self.peer)
        except SaidNo as trouble:
            return [{"code": "KEYS_UNREADABLE", "text": trouble.sentence, "fix": "as it says"}]
        return [{"code": "KEY_EXPIRES", "text": alarm, "fix": f"hactl cluster rotate-keys on {node}"} for node, alarm in alarms]

    async def watch(self, log: Callable[[str], None]) -> None:
        """An alarm is a line in the log as well, once."""
        told: list[str] = []
        while True:
            texts = [warning["text"] for warning in self.warnings()]
            for text in texts:
                if text not in told:
                    log(text)
            told = texts
            await trio.sleep(LOOK_EVERY_S)

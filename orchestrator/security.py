"""What people must know of this node's keys, and what hactld does with them beside its links."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import trio

from orchestrator.peer import PeerClient, PeerRefused, PeerUnreachable
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

    def __init__(self, store: KeyStore | None, node: str, peers: Collection[str]) -> None:
        self.store, self.node, self.peers = store, node, tuple(peers)

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

    async def pin(self, peer: str, certificate: str, under: str) -> None:
        """A peer's next key, which it told over a connection that it had proven with its present one."""
        if self.store is None:
            raise ValueError("this node runs with --insecure")
        store = self.store
        await trio.to_thread.run_sync(lambda: store.pin(peer, certificate, under=under))

    async def rotate(self, clients: Mapping[str, PeerClient]) -> tuple[str, list[str]]:
        """Replace this node's key without an interruption; the new key's pin, and who is paired but cannot be told from here: nodes with
        which this one shares nothing. What is cut short goes on when it is tried again.

        Every peer pins the new key beside the old one, told under the old one; only when all have it is it used; with its first use the
        old one counts no longer. Established connections go on under the key that they began with."""
        if self.store is None:
            raise SaidNo("this node runs with --insecure: it has no key", exit_codes.REFUSED)
        store = self.store
        trust = await trio.to_thread.run_sync(store.trust)
        paired = [peer for peer in trust.peers if trust.of(peer)]
        told = {peer: client for peer, client in clients.items() if peer in paired}
        if not told:
            raise SaidNo(f"no key of {' or '.join(clients)} is paired with this node: there is nobody to tell", exit_codes.REFUSED)
        staged = await trio.to_thread.run_sync(lambda: store.make(self.node, name=NEXT))
        for peer, client in told.items():
            await tell(peer, client, "pin", {"certificate": staged.known.certificate})
        await trio.to_thread.run_sync(store.activate_next)
        for peer, client in told.items():
            await tell(peer, client, "hello", {})
        await trio.to_thread.run_sync(store.drop_former)
        return staged.known.pin, [peer for peer in paired if peer not in told]

    def warnings(self) -> list[Warning_]:
        """For status."""
        if self.store is None:
            text = "the links between the nodes are not protected (--insecure)"
            return [{"code": "INSECURE", "text": text, "fix": "hactl cluster init, then start hactld without --insecure"}]
        try:
            trust = self.store.trust()
            unknown = [peer for peer in self.peers if not trust.of(peer)]
            alarms = dict.fromkeys(alarm for peer in self.peers if peer not in unknown for alarm in self.store.expiry_alarms(peer))
        except SaidNo as trouble:
            return [{"code": "KEYS_UNREADABLE", "text": trouble.sentence, "fix": "as it says"}]
        which = " --for {}" if len(self.peers) > 1 else ""
        return [
            *(
                {
                    "code": "NOT_PAIRED",
                    "text": f"no key of {peer} is paired with this node",
                    "fix": f"hactl cluster init{which.format(peer)} here, hactl cluster join there",
                }
                for peer in unknown
            ),
            *({"code": "KEY_EXPIRES", "text": alarm, "fix": f"hactl cluster rotate-keys on {node}"} for node, alarm in alarms),
        ]

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


async def tell(peer: str, client: PeerClient, method: str, parameters: dict[str, str]) -> None:
    """One call of a rotation; SaidNo with the peer's name when it does not succeed."""
    try:
        await client.call(method, parameters, ROTATE_DEADLINE_S)
    except PeerUnreachable as error:
        raise SaidNo(f"{peer} could not be told of the new key; try again: {error}", exit_codes.PEER_NOT_REACHABLE) from error
    except PeerRefused as error:
        raise SaidNo(f"{peer} refuses: {error}", error.code) from error

"""`hactl cluster init|join|show|rotate-keys|forget`: nodes become a cluster, two at a time, and what becomes of their keys later.

Pairing is between two nodes. In a bigger cluster each pair of nodes that share a mirror module pairs once (orchestrator/topology.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import trio

from orchestrator.api.client import ApiFailure
from orchestrator.config import CLUSTER_FILE, ClusterConfig, listed, load_cluster, load_modules, own_name
from orchestrator.config_archive import digest, gather
from orchestrator.config_errors import ConfigError
from orchestrator.generations import GenerationStore
from orchestrator.hactl import cluster_files
from orchestrator.hactl.acquaintance import Acquaintance
from orchestrator.hactl.output import print_answer, print_json, say
from orchestrator.hactl.session import Failure, Session, session_options
from orchestrator.paths import Paths
from orchestrator.security import key_store
from orchestrator.topology import peers_of
from rfs import exit_codes, keys_command, pairing
from rfs.durably import write_durably
from rfs.errors import SaidNo
from rfs.keys import KeyStore, Own
from rfs.pairing import Files, Inviter, Paired

TEMPLATE = """\
name = "{name}"
policy = "availability"
heartbeat = {{ interval = "500ms", timeout = "3s" }}
"""
MEMBER = """
[[node]]
name = "{name}"
addresses = {{ {addresses} }}
"""


@click.group()
def cluster() -> None:
    """The nodes: their keys, and how they learn of each other."""


def _cluster_of(session: Session) -> ClusterConfig:
    try:
        return load_cluster(session.config_dir)
    except ConfigError as error:
        raise Failure(str(error), exit_codes.CONFIGURATION_INVALID) from None


def _say_no(refusal: SaidNo) -> Failure:
    return Failure(refusal.sentence, refusal.exit_code)


def _write_cluster(config_dir: Path, name: str, members: tuple[str, ...]) -> None:
    """A first cluster.toml out of the command line."""
    text = TEMPLATE.format(name=name)
    for member in members:
        node, *addresses = member.split(",")
        if not addresses or any("=" not in address for address in addresses):
            raise Failure(f"--member {member}: expected NODE,NETWORK=ADDRESS[,NETWORK=ADDRESS]", exit_codes.USAGE)
        pairs = ", ".join('{} = "{}"'.format(*address.split("=", 1)) for address in addresses)
        text += MEMBER.format(name=node, addresses=pairs)
    config_dir.mkdir(parents=True, exist_ok=True)
    write_durably(config_dir / CLUSTER_FILE, text.encode(), 0o644)


@cluster.command()
@click.option("--name", help="Of the cluster, when there is no cluster.toml yet.")
@click.option(
    "--member", "members", multiple=True, metavar="NODE,NET=ADDR[,NET=ADDR]", help="Every node, when there is no cluster.toml yet."
)
@click.option("--for", "peer", metavar="NODE", help="Which node is to join, where several may.")
@click.option("--new-key", is_flag=True, help="Replace this node's key: it was revoked, or is not to be used any more.")
@session_options
def init(session: Session, name: str | None, members: tuple[str, ...], peer: str | None, new_key: bool) -> None:
    """Make this node's key, show a one-time code, and wait for the other node to join.

    \b
    hactl cluster init                    cluster.toml is there already
    hactl cluster init --name plant7 --member node1,lan=192.0.2.11,repl=198.51.100.11 \\
                                     --member node2,lan=192.0.2.12,repl=198.51.100.12
    """
    written = session.config_dir / CLUSTER_FILE
    if name is not None or members:
        if written.exists():
            raise Failure(f"{written}: is there already; leave --name and --member out", exit_codes.USAGE)
        if name is None or len(members) < 2:
            raise Failure("a new cluster needs --name, and --member for every node", exit_codes.USAGE)
        _write_cluster(session.config_dir, name, members)
        try:
            _cluster_of(session)
        except Failure:
            written.unlink()  # a name or an address that cannot be: the next try begins anew
            raise
    config, node = _cluster_of(session), own_name()
    if node not in config.nodes:
        raise Failure(f"this node is called {node}, but {written} has {config.names}", exit_codes.CONFIGURATION_INVALID)
    try:
        chosen = _peer_to_invite(session, config, node, peer)
        acquaintance = Acquaintance(node, session.config_dir)
        paired = trio.run(_invite, session, config, node, chosen, new_key, acquaintance)
        keys_command.after_pairing(key_store(session.config_dir), new=new_key)
    except SaidNo as refusal:
        raise _say_no(refusal) from None
    _say_paired(session, paired, acquaintance)
    _warn_of_others(session, paired, new_key)


def _warn_of_others(session: Session, paired: Paired, new_key: bool) -> None:
    """A new key is known to the node that was paired now, and to no other."""
    trust = key_store(session.config_dir).trust()
    others = [peer for peer in trust.peers if trust.of(peer) and peer != paired.peer]
    if new_key and others:
        say(f"{listed(others)} know the old key only: pair with each anew as well, without --new-key", err=True)


def _peer_to_invite(session: Session, config: ClusterConfig, node: str, wanted: str | None) -> str:
    """The one that was named; the only one that there is; the only one that shares a module with this node and is not paired yet."""
    others = [name for name in config.nodes if name != node]
    if wanted is not None:
        if wanted not in others:
            raise Failure(f"there is no other node {wanted} in this cluster; there is {listed(others)}", exit_codes.USAGE)
        return wanted
    if len(others) > 1:
        try:
            others = list(peers_of(config, load_modules(session.config_dir, config), node))
        except ConfigError as error:
            raise Failure(str(error), exit_codes.CONFIGURATION_INVALID) from None
        trust = key_store(session.config_dir).trust()
        others = [name for name in others if not trust.of(name)] or others
    if len(others) > 1:
        raise Failure(f"say which node is to join: {' or '.join(f'--for {name}' for name in others)}", exit_codes.USAGE)
    return others[0]


async def _invite(session: Session, config: ClusterConfig, node: str, peer: str, new_key: bool, acquaintance: Acquaintance) -> Paired:
    keys = key_store(session.config_dir)
    own = keys_command.to_show(keys, keys.make(node), new=new_key)
    addresses = [config.nodes[node].addresses[network] for network in config.networks((node, peer))]
    if not addresses:
        raise SaidNo(f"{node} and {peer} have no network in common, see {session.config_dir / CLUSTER_FILE}")

    def accepts(name: str) -> str:
        return "" if name == peer else f"it is called {name}, and is to be {peer}"

    callers = frozenset(config.nodes[peer].addresses.values())
    inviter = Inviter(keys, own, gather(session.config_dir), accepts, callers, acquaintance.introduction)
    valid_s = min(session.timeout_s or pairing.VALID_S, pairing.VALID_S)
    command = f"hactl cluster join {inviter.code}@{addresses[0]}"
    return await keys_command.invite(inviter, [(address, pairing.PORT) for address in addresses], valid_s, command)


def _say_paired(session: Session, paired: Paired, acquaintance: Acquaintance) -> None:
    """The words at once: who compares them need not wait for what else was found."""
    if session.format in ("json", "jsonl"):
        found = [each.as_json() for each in acquaintance.findings(paired)]
        document = {"schema": "hactl.paired/1", "peer": paired.peer, "fingerprint": paired.words, "findings": found}
        print_json(document, one_line=session.format == "jsonl")
    else:
        keys_command.say_paired(paired)
        acquaintance.say(paired, colour=session.colour)


@cluster.command()
@click.argument("invitation", metavar="CODE@ADDRESS")
@click.option("--new-key", is_flag=True, help="Replace this node's key: it was revoked, or is not to be used any more.")
@session_options
def join(session: Session, invitation: str, new_key: bool) -> None:
    """Pair with the node that shows the code; its configuration comes along. '-' reads the code from standard input."""
    try:
        text = keys_command.read_invitation(invitation)
        pairing.parse_invitation(text)  # a mistyped code leaves nothing behind
        keys = key_store(session.config_dir)
        own = keys_command.to_show(keys, keys.make(own_name()), new=new_key)
        acquaintance = Acquaintance(own.node, session.config_dir)
        paired = trio.run(_join, session, keys, own, text, acquaintance)
        keys_command.after_pairing(keys, new=new_key)
        begin_anew(session.config_dir, Paths())
    except SaidNo as refusal:
        raise _say_no(refusal) from None
    _say_paired(session, paired, acquaintance)
    if session.format == "table":
        say(f"the configuration is in {session.config_dir} ({', '.join(sorted(paired.files))}); start hactld on both nodes")
    _warn_of_others(session, paired, new_key)


def begin_anew(config_dir: Path, paths: Paths) -> None:
    """What was applied here before is not what came along: the next hactld begins with the files."""
    store = GenerationStore(paths.config)
    try:
        store.read()
        applied = store.past.applied
        if applied is None or digest(gather(config_dir)) == applied.digest:
            return
    except SaidNo:
        pass  # damaged: nothing of it is needed any more
    store.forget()


async def _join(session: Session, keys: KeyStore, own: Own, invitation: str, acquaintance: Acquaintance) -> Paired:
    async def store(files: Files) -> None:
        await trio.to_thread.run_sync(lambda: cluster_files.store(files, session.config_dir, own.node, replace=session.yes))

    return await pairing.join(keys, own, invitation, store, introduction=acquaintance.introduction)


@cluster.command()
@session_options
def show(session: Session) -> None:
    """The nodes, their addresses and their keys."""
    config, keys = _cluster_of(session), key_store(session.config_dir)
    try:
        described: dict[str, Any] | None = keys_command.describe(keys) if keys.exists() else None
    except SaidNo as refusal:
        raise _say_no(refusal) from None
    nodes = [{"node": node.name, "addresses": dict(node.addresses)} for node in config.nodes.values()]
    if session.format in ("json", "jsonl"):
        document = {"schema": "hactl.cluster/1", "name": config.name, "policy": config.policy, "nodes": nodes, "keys": described}
        print_json(document, one_line=session.format == "jsonl")
        return
    say(f"cluster {config.name}, policy {config.policy}")
    for node in config.nodes.values():
        say(f"  {node.name:12} {'  '.join(f'{network} {address}' for network, address in node.addresses.items())}")
    if described is None:
        say("no key yet: hactl cluster init on one node, hactl cluster join on the other")
    else:
        keys_command.show_keys(keys, say)


@cluster.command("rotate-keys")
@session_options
def rotate_keys(session: Session) -> None:
    """Replace this node's key (-H all: its peers' as well) without an interruption. Every peer is told."""
    answer = session.client.rotate_keys(session.node)
    if session.format in ("json", "jsonl"):
        print_json(answer, one_line=session.format == "jsonl")
        return
    for rotated in answer["rotated"]:
        say(f"{rotated['node']} has a new key, {rotated['pin'][:16]}; established links go on under the old one")
        if rotated.get("not_told"):
            others = listed(rotated["not_told"])
            say(f"{others}: no mirror module with {rotated['node']}, so not told; pair anew before there is one", err=True)


def _refuse_while_it_serves(session: Session, peer: str) -> None:
    """Two nodes of a running pair that do not believe each other any more are a partition: each may go on without the other."""
    try:
        document = session.client.status()
    except ApiFailure:
        return  # no daemon here: nothing to part
    silent = {entry["node"]: entry["silent"] for entry in document.get("peers", ())}
    heard = not silent.get(peer, document.get("partial"))
    runs = [
        module["name"] for module in document["modules"] for node in module["nodes"] if node["node"] == peer and node["state"] != "STOP"
    ]
    if heard and runs:
        raise Failure(
            f"{peer} is alive and takes part in {', '.join(runs)}: stop it first (hactl stop -H {peer}), "
            "or say --force if it is in the wrong hands",
            exit_codes.REFUSED,
        )


@cluster.command()
@click.argument("peer", metavar="NODE")
@click.option("--force", is_flag=True, help="Also while NODE is alive and runs modules.")
@session_options
def forget(session: Session, peer: str, force: bool) -> None:
    """Revoke every key of NODE, for good: a stolen or replaced machine. Pair anew afterwards."""
    if not force:
        _refuse_while_it_serves(session, peer)
    session.confirm(f"{peer} will not be let in any more, and a running session with it ends. Go on?")
    try:
        count = key_store(session.config_dir).forget(peer)
    except SaidNo as refusal:
        raise _say_no(refusal) from None
    if not count:
        raise Failure(f"no key of {peer} is paired with this node; 'hactl cluster show' lists them", exit_codes.USAGE)
    again = "to pair again: hactl cluster init here, hactl cluster join --new-key there"
    if not print_answer(session, sentence := f"the keys of {peer} count no longer on this node; {again}"):
        say(sentence)

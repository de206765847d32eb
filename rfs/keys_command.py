"""`rfsmount keys init|show|join|forget`: pairing when standing alone. `hactl cluster` does it for a cluster, with these pieces."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import trio

from rfs import exit_codes, pairing
from rfs.errors import SaidNo
from rfs.keys import NEXT, KeyStore, Own, expiry_alarm, fingerprint
from rfs.pairing import Inviter, Paired
from rfs.show import say, say_json

SCHEMA = "lockstep.keys/1"


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    keys = _store(options)
    match options.keys_verb:
        case "init":
            return _init(keys, options)
        case "join":
            return _join(keys, options)
        case "show":
            return _show(keys, options)
        case _:
            if not keys.forget(options.peer):
                raise SaidNo(f"no key of '{options.peer}' is paired here; 'keys show' lists them", exit_codes.USAGE)
            say(f"the keys of {options.peer} count no longer; a running session with it ends within a second")
            return exit_codes.DONE


def _store(options: argparse.Namespace) -> KeyStore:
    if not options.keys and not options.state:
        raise SaidNo("say which keys: --state STATEDIR or --keys DIR", exit_codes.USAGE)
    return KeyStore(os.path.realpath(options.keys or os.path.join(options.state, "keys")))


def _own(keys: KeyStore, options: argparse.Namespace) -> Own:
    name = options.node or keys.node_name()
    own = keys.make(name)
    if own.node != name:
        raise SaidNo(f"{keys.directory}: is the key of node '{own.node}' already; leave --node out", exit_codes.CONFIGURATION_INVALID)
    return to_show(keys, own, new=options.new_key)


def to_show(keys: KeyStore, own: Own, *, new: bool) -> Own:
    """The key to show in a pairing: this node's, or the one that takes its place when the peer knows it."""
    if not new:
        return own
    keys.discard_next()  # one that was left over may have been revoked meanwhile
    return keys.make(own.node, name=NEXT)


def after_pairing(keys: KeyStore, *, new: bool) -> None:
    """A key that was shown as the one to come is the node's from now on."""
    if new:
        keys.activate_next()
        keys.drop_former()


def _init(keys: KeyStore, options: argparse.Namespace) -> int:
    own = _own(keys, options)
    host, colon, port = options.listen.rpartition(":") if options.listen.count(":") == 1 else (options.listen, "", "")
    address = (host, int(port) if colon and port.isdigit() else pairing.PORT)
    inviter = Inviter(keys, own)
    valid_s = min(max(options.timeout, 1.0), pairing.VALID_S)
    paired = trio.run(invite, inviter, [address], valid_s, f"rfsmount keys join {inviter.code}@{_shown(*address)} --state STATEDIR")
    after_pairing(keys, new=options.new_key)
    say_paired(paired)
    return exit_codes.DONE


def _shown(host: str, port: int) -> str:
    host = "ADDRESS-OF-THIS-NODE" if host in ("0.0.0.0", "::") else host
    return host if port == pairing.PORT else f"{host}:{port}"


async def invite(inviter: Inviter, addresses: list[tuple[str, int]], valid_s: float, command: str) -> Paired:
    """Show the command for the other node, then wait; at a terminal with the time that is left."""
    found: list[Paired] = []

    async def wait(task_status: trio.TaskStatus[int]) -> None:
        found.append(await inviter.run(addresses, valid_s=valid_s, task_status=task_status))
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(wait)
            say(f"On the other node, within {valid_s / 60:.0f} minutes:\n\n    {command}\n")
            if sys.stderr.isatty():
                nursery.start_soon(_count_down, valid_s)
    except* SaidNo as refusals:
        raise _first(refusals) from None
    return found[0]


def _first(group: BaseExceptionGroup[SaidNo]) -> SaidNo:
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    assert isinstance(inner, SaidNo)
    return inner


async def _count_down(valid_s: float) -> None:
    end = trio.current_time() + valid_s
    while True:
        left_s = max(int(end - trio.current_time()), 0)
        print(f"\rwaiting for the other node, {left_s // 60}:{left_s % 60:02} left ", end="", file=sys.stderr, flush=True)
        await trio.sleep(1)


def say_paired(paired: Paired) -> None:
    """What both nodes print at the end: the words are to be compared."""
    say(f"paired with {paired.peer}\nfingerprint: {paired.words}   (the same words must stand on {paired.peer})")


def read_invitation(text: str) -> str:
    """From standard input, so that the code stays in no list of processes: given as a word, the program starts itself anew without it."""
    if text == "-":
        return sys.stdin.readline().strip()
    if text in sys.orig_argv:
        read_end, write_end = os.pipe()
        os.write(write_end, f"{text}\n".encode())
        os.close(write_end)
        os.dup2(read_end, 0)
        os.execv(sys.executable, [sys.executable, *("-" if word == text else word for word in sys.orig_argv[1:])])
    return text


def _join(keys: KeyStore, options: argparse.Namespace) -> int:
    invitation = read_invitation(options.invitation)
    pairing.parse_invitation(invitation)  # a mistyped code makes no key
    own = _own(keys, options)
    paired = trio.run(pairing.join, keys, own, invitation)
    after_pairing(keys, new=options.new_key)
    say_paired(paired)
    return exit_codes.DONE


def describe(keys: KeyStore) -> dict[str, Any]:
    """What is known of the keys; nothing of it is secret."""
    own, trust = keys.own(), keys.trust()

    def entry(node: str, pin: str, expires: int) -> dict[str, Any]:
        until = time.strftime("%Y-%m-%d", time.gmtime(expires))
        return {"node": node, "pin": pin, "expires": until, "alarm": expiry_alarm(f"node {node}", expires)}

    peers = [
        {
            **entry(peer, pins[-1].pin, pins[-1].expires),
            "words": fingerprint(trust.cluster, [own.known.pin, pins[-1].pin]),
            "being_replaced": len(pins) > 1,
        }
        for peer in trust.peers
        if (pins := trust.of(peer))
    ]
    mine = entry(own.node, own.known.pin, own.known.expires)
    return {"schema": SCHEMA, "cluster": trust.cluster, "own": mine, "peers": peers, "revoked": list(trust.revoked)}


def show_keys(keys: KeyStore, tell: Callable[[str], None] = say) -> None:
    """For people."""
    found = describe(keys)
    tell(f"this node   {found['own']['node']:12} key {found['own']['pin'][:16]}  until {found['own']['expires']}")
    for peer in found["peers"]:
        more = "  (being replaced: two keys count)" if peer["being_replaced"] else ""
        tell(f"paired with {peer['node']:12} key {peer['pin'][:16]}  until {peer['expires']}  fingerprint {peer['words']}{more}")
    if not found["peers"]:
        tell("paired with nobody yet")
    if found["revoked"]:
        tell(f"revoked     {len(found['revoked'])} keys")
    for alarm in filter(None, [found["own"]["alarm"], *(peer["alarm"] for peer in found["peers"])]):
        tell(f"warning: {alarm}")


def _show(keys: KeyStore, options: argparse.Namespace) -> int:
    if options.json:
        say_json(describe(keys))
    else:
        show_keys(keys)
    return exit_codes.DONE

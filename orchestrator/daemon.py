"""hactld: builds the objects, starts the tasks, handles signals. No policy.

SIGTERM is an orderly exit of hactld alone: rfsmount, services and, for its lifetime, the address stay as they are, so an upgrade
does not disturb the application. `hactl stop` is the way to stop modules. Only when the whole machine goes down they are stopped first.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from orchestrator import shutdown, view, view_pairs
from orchestrator.api.doctor import Doctor
from orchestrator.api.health import HealthServer
from orchestrator.api.here import Here, Roster
from orchestrator.api.peer_calls import PeerCalls
from orchestrator.api.routes import Routes
from orchestrator.api.server import ApiServer
from orchestrator.config import DEFAULT_CONFIG_DIR, ClusterConfig, ModuleConfig, load_cluster, load_modules, own_name
from orchestrator.config_errors import ConfigError
from orchestrator.core import events as ev
from orchestrator.doors import CallDoor, PulseDoor
from orchestrator.effects.journal import Journal
from orchestrator.effects.logs import keep_bounded
from orchestrator.effects.notify import History
from orchestrator.endurance import endure
from orchestrator.guard import lay_guards
from orchestrator.pair import Pairs, Site
from orchestrator.paths import Paths
from orchestrator.security import Keys, key_store
from orchestrator.shim import lay as lay_shim
from orchestrator.statefile import Memories
from orchestrator.topology import peers_of
from orchestrator.witness.ping import Ping
from rfs import exit_codes
from rfs.errors import SaidNo


def boot_id() -> str:
    """Which boot of the kernel this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


async def serve(cluster: ClusterConfig, modules: Mapping[str, ModuleConfig], keys: Keys, paths: Paths, history: History) -> None:
    """Until SIGTERM or SIGINT."""
    node, boot = keys.node, boot_id()
    mine = {name: config for name, config in modules.items() if node in config.nodes}

    def line(kind: str) -> Callable[[str], None]:
        return lambda text: history.add("", kind, text)

    pulses, calls = PulseDoor(line("heartbeat")), CallDoor(line("peer"))
    memories = Memories(paths.state / "hactld" / "state.json", boot, line("statefile"))
    incarnation = int.from_bytes(os.urandom(7), "big") | 1
    site = Site(cluster, mine, node, boot, incarnation, paths, keys.store, history, memories, pulses, calls)
    async with trio.open_nursery() as nursery:
        pairs = Pairs(site, keys.peers, nursery)

        def status() -> dict[str, Any]:
            rfs = {name: rfs.last for pair in pairs for name, rfs in pair.world.rfs.items()}
            document = view_pairs.status([pair.runner.node for pair in pairs], cluster, mine, rfs)
            refused = sum((pair.refused for pair in pairs), pulses.dropped + calls.refused)
            return view.with_security(document, keys.store is None, keys.warnings(), refused)

        def logs(module: str) -> tuple[Path, Path, Path]:
            return paths.module_log(module), paths.rfs_log(module), paths.script_logs(module)

        roster = Roster(node, tuple(cluster.nodes), {name: config.nodes for name, config in modules.items()})
        here = Here(roster, pairs.all, history, status, logs, keys)

        def events() -> list[dict[str, Any]]:
            return [line.as_json(node) for line in history.after(0)]

        here.doctor = Doctor(node, paths.config, paths.root, keys.store is None, status, events)

        def pinged(ok: bool) -> None:
            for pair in pairs:
                pair.runner.deliver(ev.PingVerdict(trio.current_time(), ok))

        for pair in pairs:
            pair.open(PeerCalls(here, pair).answer)
            await pair.begin(nursery)
        nursery.start_soon(Ping(cluster.ping, deliver=pinged, log=line("ping")).run)
        await nursery.start(pulses.run)
        for pair in pairs:
            nursery.start_soon(pair.pulse)
        await nursery.start(calls.run)
        nursery.start_soon(keep_bounded, paths, list(mine), lambda kind, text: history.add("", kind, text))
        nursery.start_soon(keys.watch, line("keys"))
        nursery.start_soon(memories.keep_trying)
        await nursery.start(ApiServer(paths.socket, Routes(here).route).run)
        if (place := cluster.health) is not None:
            host = place.address_of(cluster.nodes[node])
            nursery.start_soon(HealthServer(host, place.port, pairs.runners(), line("health")).run)
        listed = f"modules={','.join(mine) or '-'} peers={','.join(keys.peers)}"
        history.add("", "hactld", f"started on {node}: cluster={cluster.name} {listed}")
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                break
        if await shutdown.machine_goes_down():
            await shutdown.stop_modules(pairs.runners(), memories, history)
        else:
            history.add("", "hactld", "ends; modules stay as they are")
        nursery.cancel_scope.cancel()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="hactld", description="The orchestrator of a Lockstep node.")
    parser.add_argument("--config-dir", type=Path, default=DEFAULT_CONFIG_DIR, help="default: %(default)s")
    parser.add_argument("--node", default=own_name(), help="this node's name (default: $HACTL_NODE or the hostname)")
    parser.add_argument("--foreground", "-f", action="store_true", help="write the log to the terminal as well")
    parser.add_argument("--insecure", action="store_true", help="links without keys and encryption, for networks that are yours alone")
    parser.add_argument("--guard", action="store_true", help="early in a boot: lay the read-only guards of this node's modules, and end")
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        cluster = load_cluster(options.config_dir)
        modules = load_modules(options.config_dir, cluster)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return exit_codes.CONFIGURATION_INVALID
    if options.node not in cluster.nodes:
        sentence = f"this node is called {options.node}, but the cluster has {cluster.names}; give its name with --node"
        print(f"hactld: {sentence}", file=sys.stderr)
        return exit_codes.CONFIGURATION_INVALID
    if options.guard:
        return lay_guards(modules, options.node, Paths(options.root))
    peers = peers_of(cluster, modules, options.node)
    keys = Keys(None if options.insecure else key_store(options.config_dir), options.node, peers)
    try:
        keys.check()
    except SaidNo as refusal:
        print(f"hactld: {refusal.sentence}", file=sys.stderr)
        return refusal.exit_code
    paths = Paths(options.root, options.config_dir)
    try:
        paths.make()
        lay_shim(paths)
    except OSError as error:
        print(f"hactld: {error.filename}: {error.strerror}", file=sys.stderr)
        return exit_codes.FAILED
    refused = endure()
    history = History(paths.log / "hactld.log", echo=options.foreground, journal=Journal())
    for complaint in refused:
        history.add("", "hactld", complaint)
    with (paths.run / "hactld.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"hactld: another hactld runs on this node ({paths.run}/hactld.lock is held)", file=sys.stderr)
            return exit_codes.REFUSED
        try:
            return run(cluster, modules, keys, paths, history)
        finally:
            history.flush()


def run(cluster: ClusterConfig, modules: Mapping[str, ModuleConfig], keys: Keys, paths: Paths, history: History) -> int:
    """Serve; what the machine refuses (a port in use) is one sentence, everything else is our mistake and shows its place."""
    try:
        trio.run(serve, cluster, modules, keys, paths, history)
    except BaseExceptionGroup as group:
        refused, others = group.split(OSError)
        if others is not None or refused is None:
            raise
        first: BaseException = refused
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        print(f"hactld: {first}", file=sys.stderr)
        history.add("", "hactld", f"ends: {first}")
        return exit_codes.FAILED
    return exit_codes.DONE


if __name__ == "__main__":
    sys.exit(main())

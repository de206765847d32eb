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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from orchestrator import shutdown, view
from orchestrator.api.health import HealthServer
from orchestrator.api.routes import Routes
from orchestrator.api.server import ApiServer
from orchestrator.config import DEFAULT_CONFIG_DIR, ClusterConfig, ModuleConfig, load_cluster, load_modules, own_name
from orchestrator.config_errors import ConfigError
from orchestrator.core import events as ev
from orchestrator.core.detector import Detector
from orchestrator.core.states import Module, Surroundings
from orchestrator.core.turn import Node
from orchestrator.effects.journal import Journal
from orchestrator.effects.logs import keep_bounded
from orchestrator.effects.notify import History
from orchestrator.effects.world import World
from orchestrator.endurance import endure
from orchestrator.guard import lay_guards
from orchestrator.heartbeat import Heartbeats, Network
from orchestrator.paths import Paths
from orchestrator.peer import PeerClient, PeerServer
from orchestrator.pulse import summary_to_wire
from orchestrator.runner import Runner
from orchestrator.seal import Secrets
from orchestrator.security import Keys, key_store
from orchestrator.shim import lay as lay_shim
from orchestrator.witness.ping import Ping
from rfs import exit_codes
from rfs.errors import SaidNo


def networks_of(cluster: ClusterConfig, node: str, peer: str) -> tuple[Network, ...]:
    """The networks on which both nodes have an address."""
    here, there = cluster.nodes[node].addresses, cluster.nodes[peer].addresses
    return tuple(Network(name, here[name], there[name]) for name in here if name in there)


def boot_id() -> str:
    """Which boot of the kernel this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def first_node(cluster: ClusterConfig, modules: Mapping[str, ModuleConfig], node: str, networks: tuple[Network, ...]) -> Node:
    """The core's state before the first event."""
    peer = next(name for name in cluster.nodes if name != node)
    now, timeout_s = trio.current_time(), cluster.heartbeat_timeout_s
    around = Surroundings(
        node=node,
        peer=peer,
        policy=cluster.policy,
        timeout_s=timeout_s,
        has_ping=bool(cluster.ping),
        has_witness=bool(cluster.witness),
        now=now,
    )
    mine = {
        name: Module(
            name=name,
            light=config.mode == "light",
            max_restarts=config.max_restarts,
            max_restarts_period_s=config.max_restarts_period_s,
            default_primary=config.default_primary,
            since=now,
        )
        for name, config in modules.items()
        if node in config.nodes
    }
    return Node(around=around, detector=Detector.new(tuple(network.name for network in networks), timeout_s, now), modules=mine)


async def serve(cluster: ClusterConfig, modules: Mapping[str, ModuleConfig], keys: Keys, paths: Paths, history: History) -> None:
    """Until SIGTERM or SIGINT."""
    node, peer_name = keys.node, keys.peer
    networks, boot = networks_of(cluster, node, peer_name), boot_id()
    mine = {name: config for name, config in modules.items() if node in config.nodes}
    shared = {name for name, config in mine.items() if peer_name in config.nodes}
    peer = PeerClient(cluster.name, node, peer_name, networks, keys.store)
    async with trio.open_nursery() as nursery:
        world = World(cluster, mine, node, paths, boot, peer, history, nursery, keys.store)
        runner = Runner(first_node(cluster, mine, node, networks), world)
        heartbeats = Heartbeats(
            cluster=cluster.name,
            node=node,
            peer=peer_name,
            boot=boot,
            incarnation=int.from_bytes(os.urandom(7), "big") | 1,
            networks=networks,
            interval_s=cluster.heartbeat_interval_s,
            say=lambda: runner.node.summaries(),
            deliver=runner.deliver,
            log=lambda text: history.add("", "heartbeat", text),
            secrets=Secrets(keys.store, peer_name),
            timeout_s=cluster.heartbeat_timeout_s,
        )
        connect(world, runner, heartbeats)

        def status() -> dict[str, Any]:
            document = view.status(runner.node, cluster, mine, {name: rfs.last for name, rfs in world.rfs.items()})
            return view.with_security(document, keys.store is None, keys.warnings(), heartbeats.dropped + server.refused)

        def logs(module: str) -> tuple[Path, Path, Path]:
            return paths.module_log(module), paths.rfs_log(module), paths.script_logs(module)

        routes = Routes(runner, peer, history, status, logs, shared, keys)
        routes.told = heartbeats.told
        server = PeerServer(
            cluster.name, peer_name, networks, routes.answer_peer, keys.store, lambda text: history.add("", "peer", text)
        )  # fmt: skip
        ping = Ping(
            cluster.ping,
            deliver=lambda ok: runner.deliver(ev.PingVerdict(trio.current_time(), ok)),
            log=lambda text: history.add("", "ping", text),
        )
        for name in mine:
            found = await world.find(name)
            runner.deliver(found)
            world.adopt(found)
        nursery.start_soon(runner.run)
        nursery.start_soon(ping.run)
        await nursery.start(heartbeats.run)
        await nursery.start(server.run)
        nursery.start_soon(keep_bounded, paths, list(mine), lambda kind, text: history.add("", kind, text))
        nursery.start_soon(keys.watch, lambda text: history.add("", "keys", text))
        await nursery.start(ApiServer(paths.socket, routes.route).run)
        if (place := cluster.health) is not None:
            host = place.address_of(cluster.nodes[node])
            nursery.start_soon(HealthServer(host, place.port, runner, lambda text: history.add("", "health", text)).run)
        history.add("", "hactld", f"started on {node}: cluster={cluster.name} modules={','.join(mine) or '-'}")
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                break
        if await shutdown.machine_goes_down():
            await shutdown.stop_modules(runner, world, mine, history)
        else:
            history.add("", "hactld", "ends; modules stay as they are")
        nursery.cancel_scope.cancel()


def connect(world: World, runner: Runner, heartbeats: Heartbeats) -> None:
    """The effects report to the runner, and speak to the peer through the heartbeats."""
    world.deliver = runner.deliver
    world.pulse = heartbeats.pulse_now
    world.pulses = lambda: heartbeats.counter
    world.state_of = lambda module: runner.node.modules[module].shown[0].value

    def say() -> dict[str, Any]:
        modules = {name: summary_to_wire(summary) for name, summary in runner.node.summaries().items()}
        return {"incarnation": heartbeats.incarnation, "counter": heartbeats.counter, "modules": modules}

    world.say = say


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
        names = " and ".join(cluster.nodes)
        print(f"hactld: this node is called {options.node}, but the cluster has {names}; give its name with --node", file=sys.stderr)
        return exit_codes.CONFIGURATION_INVALID
    if options.guard:
        return lay_guards(modules, options.node, Paths(options.root))
    peer = next(name for name in cluster.nodes if name != options.node)
    keys = Keys(None if options.insecure else key_store(options.config_dir), options.node, peer)
    try:
        keys.check()
    except SaidNo as refusal:
        print(f"hactld: {refusal.sentence}", file=sys.stderr)
        return refusal.exit_code
    paths = Paths(options.root)
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

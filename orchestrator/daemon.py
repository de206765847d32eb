"""hactld: builds the objects, starts the tasks, handles signals. No policy.

SIGTERM is an orderly exit of hactld alone: rfsmount, services and, for its lifetime, the address stay as they are, so an upgrade
does not disturb the application. `hactl stop` is the way to stop modules. Only when the whole machine goes down they are stopped first.
A configuration that is applied is taken up the same way, without an end of the process: everything here ends and begins anew, and finds
what runs (docs/decisions/0031).
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from orchestrator import shutdown, steps, view, view_pairs
from orchestrator.api.config_calls import ConfigCalls
from orchestrator.api.doctor import Doctor
from orchestrator.api.health import HealthServer
from orchestrator.api.here import Here, Roster
from orchestrator.api.maintenance import Maintenance
from orchestrator.api.peer_calls import PeerCalls
from orchestrator.api.routes import Routes
from orchestrator.api.server import ApiServer
from orchestrator.api.works import Works
from orchestrator.bugs import Bugs
from orchestrator.config import DEFAULT_CONFIG_DIR, ClusterConfig, ModuleConfig, load_cluster, load_modules, own_name
from orchestrator.config_errors import ConfigError
from orchestrator.config_facts import RunningFacts
from orchestrator.config_keeper import ConfigKeeper
from orchestrator.config_start import adopt, catch_up, tree_of
from orchestrator.core import events as ev
from orchestrator.doors import CallDoor, PulseDoor
from orchestrator.effects.journal import Journal
from orchestrator.effects.logs import keep_bounded
from orchestrator.effects.notify import History
from orchestrator.effects.rfs import Rfs
from orchestrator.endurance import endure
from orchestrator.generations import GenerationStore
from orchestrator.guard import lay_guards
from orchestrator.pair import Pairs, Site, networks_of
from orchestrator.paths import Paths
from orchestrator.peer import PeerClient
from orchestrator.runner import Runner
from orchestrator.security import Keys, key_store
from orchestrator.shim import lay as lay_shim
from orchestrator.statefile import Memories
from orchestrator.topology import peers_of
from orchestrator.witness.ping import Ping
from rfs import exit_codes
from rfs.errors import SaidNo
from rfs.keys import KeyStore


def boot_id() -> str:
    """Which boot of the kernel this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(slots=True)
class Setting:
    """What stays when the configuration changes."""

    config_dir: Path
    node: str
    store: GenerationStore
    key_directory: KeyStore | None
    paths: Paths
    history: History
    own_files_only: bool = False
    again: bool = False  # this is not the first configuration of this process
    memories: Memories | None = None  # what could not be written down yet must not be forgotten either

    def keeper(self, peers: Mapping[str, PeerClient], runners: Mapping[str, Runner], copies: Mapping[str, Rfs]) -> ConfigKeeper:
        """Of the configuration that is applied now."""

        def log(text: str) -> None:
            self.history.add("", "config", text)

        facts = RunningFacts(self.node, runners, copies, lambda peers: Keys(self.key_directory, self.node, peers).check())
        return ConfigKeeper(self.node, self.config_dir, self.store, facts, peers, log, steps.reached, self.own_files_only)

    @property
    def boot_marker(self) -> Path:
        """There from the first hactld of a boot on: what runs since then must not wait for anybody."""
        return self.paths.run / "hactld.asked"


async def live(setting: Setting) -> bool:
    """With what is applied now; True: and then with what is applied instead. In a new boot the peers are asked first."""
    tree = await trio.to_thread.run_sync(adopt, setting.store, setting.config_dir)
    cluster = load_cluster(tree)
    modules = load_modules(tree, cluster)
    keys = Keys(setting.key_directory, setting.node, peers_of(cluster, modules, setting.node))
    if not setting.boot_marker.exists():
        setting.boot_marker.touch()
        clients = {
            peer: PeerClient(cluster.name, setting.node, peer, networks_of(cluster, setting.node, peer), keys.store) for peer in keys.peers
        }
        keeper = setting.keeper(clients, {}, {})
        await keeper.begin()
        await catch_up(keeper, lambda text: setting.history.add("", "config", text))
        if keeper.is_changing:
            return True
    return await serve(setting, keys, cluster, modules)


async def serve(setting: Setting, keys: Keys, cluster: ClusterConfig, modules: Mapping[str, ModuleConfig]) -> bool:
    """Until SIGTERM or SIGINT: False; or until another configuration is applied."""
    paths, history = setting.paths, setting.history
    node, boot = keys.node, boot_id()
    mine = {name: config for name, config in modules.items() if node in config.nodes}

    def line(kind: str) -> Callable[[str], None]:
        return lambda text: history.add("", kind, text)

    pulses, calls, bugs = PulseDoor(line("heartbeat")), CallDoor(line("peer")), Bugs(line("bug"))
    memories = setting.memories = setting.memories or Memories(paths.state / "hactld" / "state.json", boot, line("statefile"))
    incarnation = int.from_bytes(os.urandom(7), "big") | 1
    site = Site(cluster, mine, node, boot, incarnation, paths, keys.store, history, memories, pulses, calls, bugs)
    async with trio.open_nursery() as nursery:
        pairs = Pairs(site, keys.peers, nursery)
        copies = {name: rfs for pair in pairs for name, rfs in pair.world.rfs.items() if mine[name].mode == "mirror"}
        keeper = setting.keeper({pair.peer: pair.client for pair in pairs}, pairs.runners(), copies)
        await keeper.begin()

        def status() -> dict[str, Any]:
            rfs = {name: rfs.last for pair in pairs for name, rfs in pair.world.rfs.items()}
            document = view_pairs.status([pair.runner.node for pair in pairs], cluster, mine, rfs)
            refused = sum((pair.refused for pair in pairs), pulses.dropped + calls.refused)
            warnings = [*keys.warnings(), *keeper.warnings(), *maintenance.warnings()]
            return view.with_security(document, keys.store is None, warnings, refused)

        def logs(module: str) -> tuple[Path, Path, Path]:
            return paths.module_log(module), paths.rfs_log(module), paths.script_logs(module)

        places = {name: config.nodes for name, config in modules.items()}
        roster = Roster(node, tuple(cluster.nodes), places, {name: config.replicated for name, config in mine.items()})
        works = Works(copies, lambda module, text: history.add(module, "work", text), node, bugs)
        here = Here(roster, pairs.all, history, status, logs, keys, works)
        here.config = ConfigCalls(keeper)
        here.maintenance = maintenance = Maintenance(mine, paths, here.runner_of)

        def events() -> list[dict[str, Any]]:
            return [line.as_json(node) for line in history.after(0)]

        here.doctor = Doctor(node, setting.config_dir, paths.root, keys.store is None, status, events)

        def pinged(ok: bool) -> None:
            for pair in pairs:
                pair.runner.deliver(ev.PingVerdict(trio.current_time(), ok))

        await nursery.start(site.news.run, line("checker"))
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
        nursery.start_soon(keeper.run)
        await nursery.start(works.run)
        await nursery.start(ApiServer(paths.socket, Routes(here).route, lambda: cluster.access, line("api"), bugs).run)
        if (place := cluster.health) is not None:
            host = place.address_of(cluster.nodes[node])
            nursery.start_soon(HealthServer(host, place.port, pairs.runners(), line("health"), bugs).run)
        listed = f"modules={','.join(mine) or '-'} peers={','.join(keys.peers)}"
        generation = f"configuration={keeper.applied.number}"
        history.add("", "hactld", f"{'goes on' if setting.again else 'started'} on {node}: cluster={cluster.name} {listed} {generation}")
        if await told_to_go_on(keeper.over):
            await memories.write_down()
            nursery.cancel_scope.cancel()
            return True  # the nursery ends first
        if await shutdown.machine_goes_down():
            await shutdown.stop_modules(pairs.runners(), memories, history)
        else:
            history.add("", "hactld", "ends; modules stay as they are")
        nursery.cancel_scope.cancel()
    return False


async def told_to_go_on(over: trio.Event) -> bool:
    """Until a signal (False), or until another configuration is to be taken up."""
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            await over.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                nursery.cancel_scope.cancel()
                return False
    return over.is_set()


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = argparse.ArgumentParser(prog="hactld", description="The orchestrator of a Lockstep node.")
    parser.add_argument("--config-dir", type=Path, default=DEFAULT_CONFIG_DIR, help="default: %(default)s")
    parser.add_argument("--node", default=own_name(), help="this node's name (default: $HACTL_NODE or the hostname)")
    parser.add_argument("--foreground", "-f", action="store_true", help="write the log to the terminal as well")
    parser.add_argument("--insecure", action="store_true", help="links without keys and encryption, for networks that are yours alone")
    parser.add_argument("--guard", action="store_true", help="early in a boot: lay the read-only guards of this node's modules, and end")
    parser.add_argument(
        "--own-files-only", action="store_true", help="take up no configuration that this node's own files do not hold, whoever applies it"
    )
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = parser().parse_args(arguments)
    paths = Paths(options.root)
    store = GenerationStore(paths.config)
    try:
        place = tree_of(store, options.config_dir)
        cluster = load_cluster(place)
        modules = load_modules(place, cluster)
        if options.node not in cluster.nodes:
            sentence = f"this node is called {options.node}, but the cluster has {cluster.names}; give its name with --node"
            raise SaidNo(sentence, exit_codes.CONFIGURATION_INVALID)
        if options.guard:
            return lay_guards(modules, options.node, paths)
        key_directory = None if options.insecure else key_store(options.config_dir)
        Keys(key_directory, options.node, peers_of(cluster, modules, options.node)).check()
    except ConfigError as error:
        print(error, file=sys.stderr)
        if store.past.applied is not None:
            print(f"hactld: this is what was applied, perhaps under another release; {store.way_out}", file=sys.stderr)
        return exit_codes.CONFIGURATION_INVALID
    except SaidNo as refusal:
        print(f"hactld: {refusal.sentence}", file=sys.stderr)
        return refusal.exit_code
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
            where = options.config_dir.absolute()
            return run(Setting(where, options.node, store, key_directory, paths, history, options.own_files_only))
        finally:
            history.flush()


def run(setting: Setting) -> int:
    """Serve; what the machine refuses (a port in use) is one sentence, everything else is our mistake and shows its place."""
    try:
        while trio.run(live, setting):
            setting.again = True
    except BaseExceptionGroup as group:
        refused, others = group.split((OSError, SaidNo, ConfigError))
        if others is not None or refused is None:
            raise
        first: BaseException = refused
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        return fail(setting, first)
    except (OSError, SaidNo, ConfigError) as error:
        return fail(setting, error)
    return exit_codes.DONE


def fail(setting: Setting, error: BaseException) -> int:
    """The end, in one sentence."""
    print(f"hactld: {error}", file=sys.stderr)
    setting.history.add("", "hactld", f"ends: {error}")
    return error.exit_code if isinstance(error, SaidNo) else exit_codes.FAILED


if __name__ == "__main__":
    sys.exit(main())

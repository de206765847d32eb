"""The life of one rfsmount process: checks, guards, a record, then the peer, the control socket and the signals, until the unmount.

The order of the start is the order of what can be refused without having touched anything: names, state directory, address, directories.
Only then are guards laid. The end is the reverse, and always goes through `unmount`, whoever asks for it.
"""

import logging
import secrets
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import trio

from rfs import added_directory, directory_checks, exit_codes, privileges, rules
from rfs.arbiter import Arbiter
from rfs.commands import Commands
from rfs.control import server
from rfs.control_link import ControlLink
from rfs.endurance import endure
from rfs.engine import Engine
from rfs.errors import SaidNo
from rfs.keys import KeyStore
from rfs.mount import Layers
from rfs.record import DataState, Record, Role
from rfs.record_file import RecordDamaged, RecordFile
from rfs.replica import Replica
from rfs.security import Security
from rfs.session import Session
from rfs.settings import Settings
from rfs.state_directory import Directories, StateDirectory, write_directories
from rfs.status import build_status
from rfs.supervisor import Supervisor, listen_on

log = logging.getLogger("rfs")

Report = Callable[[int, str], None]
CHANGE_AT_LEAST_EVERY_S = 1.0


def read_boot() -> str:
    """This boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def load_record(settings: Settings, file: RecordFile, identity: rules.Identity) -> Record:
    """The record of before as this start sees it, or the first one."""
    try:
        found = file.read()
    except RecordDamaged as damage:
        raise SaidNo(str(damage), exit_codes.FAILED) from damage
    if found is None:
        new = rules.first_primary if settings.wish_primary else rules.first_secondary
        node_id, name = secrets.randbits(63) or 1, secrets.randbits(64) or 1
        return new(
            cluster=settings.cluster, module=settings.module, node=settings.node, node_id=node_id, generation=name, identity=identity
        )
    if (found.cluster, found.module) != (settings.cluster, settings.module):
        raise SaidNo(
            f"--state {settings.state_directory}: belongs to module '{found.module}' of cluster '{found.cluster}', "
            f"not to '{settings.module}' of '{settings.cluster}'",
            exit_codes.CONFIGURATION_INVALID,
        )
    return rules.start(found, identity)


def security_of(settings: Settings) -> Security:
    """How the links of this run are protected; SaidNo when it cannot be done."""
    security = Security(None if settings.insecure else KeyStore(settings.keys_directory))
    security.check(settings.peer_node, settings.node, settings.state_directory)
    return security


async def serve(settings: Settings, report: Report) -> None:
    """Run until unmounted. `report` is told once the mount is live, or what it waits for or was refused with."""
    endure()
    unprotected = privileges.give_up()
    paths = directory_checks.resolve_directories(settings.directories, settings.state_directory)
    state = StateDirectory(settings.state_directory)
    state.take()
    given = state.check_directories(paths)
    state.write_pid()
    security = security_of(settings)
    security.announce()
    identity = rules.Identity(boot=read_boot(), incarnation=secrets.randbits(64) or 1, backing="")
    layers = Layers(paths, settings.state_directory, identity.boot)
    async with AsyncExitStack() as stack:
        stack.callback(layers.close)
        file = RecordFile(settings.state_directory)
        stack.callback(file.close)
        record = load_record(settings, file, identity)
        supervisor_box: list[Supervisor] = []

        async def enter(link: ControlLink) -> None:
            await Session(replica, supervisor_box[0], link).run()

        await (await listen_on(settings.listen)).aclose()  # an address in use is told before a guard is laid
        # A copy that has yet to be made, or was half-way, may lack them; any other must be the one that was meant.
        is_whole = record.generation != 0 and record.data is not DataState.INCONSISTENT
        await layers.prepare(settings.required_files if is_whole else (), given.new)
        await _look_into_new(layers, given.new, record)
        await _forget_former_ids(layers, record)
        write_directories(settings.state_directory, Directories(tuple(paths), given.pending))
        identity = replace(identity, backing=layers.backing())  # not of the paths: a dead mount of ours may lie there
        replica = Replica(settings, layers, file, record, identity, lambda now: Engine(layers.trees, now.patterns, now.refuses), security)
        replica.pending_directories = given.pending
        replica.unprotected = unprotected
        supervisor = Supervisor(replica, settings.listen, settings.peer, enter, security)
        supervisor_box.append(supervisor)
        arbiter: Arbiter | None = None
        if settings.witness:
            from rfs.etcd import Etcd  # late: most have no witness

            arbiter = replica.arbiter = Arbiter(replica, Etcd(settings.witness, settings.witness_ca))
        listener = await stack.enter_async_context(await listen_on(settings.listen))
        async with trio.open_nursery() as engine_life:
            await engine_life.start(replica.run)
            async with trio.open_nursery() as nursery:  # of all who use the engine: it is freed after the last of them, a session's end too
                await start_role(replica, record)
                commands = Commands(replica).table()
                service = server.Service(settings.module, commands, lambda: build_status(replica), lambda: _changed(replica))
                await nursery.start(server.serve, settings.state_directory, service)
                nursery.start_soon(supervisor.run, listener)
                if arbiter is not None:
                    nursery.start_soon(arbiter.run)
                nursery.start_soon(_signals, replica)
                nursery.start_soon(_report_progress, replica, settings, report)
                await replica.finished.wait()
                nursery.cancel_scope.cancel()
            engine_life.cancel_scope.cancel()
        if not replica.keeps_guards:
            await layers.take_off_guards()
    log.info("ended")


async def start_role(replica: Replica, record: Record) -> None:
    """A new primary and a sole owner go on at once; any other primary is mounted, and frozen until its peer or a grant comes."""
    settings = replica.settings
    async with replica.changing:
        await replica.commit(record, "start")
        if replica.is_primary is not settings.wish_primary:
            replica.mismatch = f"the command line says {'primary' if settings.wish_primary else 'secondary'}, the record rules: " + (
                "primary" if replica.is_primary else "secondary"
            )
        if not replica.is_primary:
            return
        if settings.replace_data:
            replica.note = "started with --replace-data: this node gives its data up for its peer's"
            return
        elsewhere = record.number != 0 and not rules.same_disks(record.backing, replica.identity.backing)
        if elsewhere and record.is_sole_owner and replica.layers.empty_directories():
            replica.note = (
                "a directory is empty and lies on another disk than before: is a file system not mounted? "
                "'promote --force' serves it as it is"
            )
            return
        await replica.become_primary(0, "start")
        if replica.record.is_sole_owner:
            await replica.go_alone("sole owner of the data", granted=False)
        await replica.mount()


async def _changed(replica: Replica) -> None:
    """Consumers see progress at least once per second: counters move without any event."""
    with trio.move_on_after(CHANGE_AT_LEAST_EVERY_S):
        await replica.changed()
    await trio.sleep(0.02)  # several changes at once are one


async def _signals(replica: Replica) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("signal %s: unmounting", signal.Signals(number).name)
            await Commands(replica).unmount({})
            return


async def _report_progress(replica: Replica, settings: Settings, report: Report) -> None:
    """Tell whoever started us how it went: live, refused, or still waiting after the timeout."""
    with trio.move_on_after(settings.timeout_s):
        while not replica.is_live.is_set():
            refused = replica.refused
            if refused is not None:
                report(exit_codes.REFUSED, f"{refused.code}: {refused.reason}")
                return
            await replica.changed()
        report(exit_codes.DONE, "")
        return
    status = build_status(replica)
    report(exit_codes.TIMEOUT, f"not live after {settings.timeout_s:g} s: {status['reason']}; rfsmount keeps waiting in the background")


async def _look_into_new(layers: Layers, new: int, record: Record) -> None:
    """Directories that are added at a start: on a secondary they become what the peer's are, on a primary their ids may be others' too."""
    added = list(zip(layers.paths, layers.trees, strict=True))[len(layers.paths) - new :]
    full = [(path, tree) for path, tree in added if not directory_checks.is_empty(tree)]
    if record.role is Role.SECONDARY and full:
        for _ in added:  # they are nobody's still: plain again
            await layers.take_back()
        raise SaidNo(added_directory.holds_files(full[0][0]), exit_codes.REFUSED)
    for _, tree in full:
        if await trio.to_thread.run_sync(directory_checks.carries_ids, f"/proc/self/fd/{tree}"):
            layers.doubt()


def default_node() -> str:
    """The name of this machine."""
    return socket.gethostname().split(".")[0] or "node"


async def _forget_former_ids(layers: Layers, record: Record) -> None:
    """A new primary counts its ids from the beginning. Those of a mirror that nobody remembers (a state that was lost, a backup with the
    attributes) are taken off first, or it would give them a second time."""
    if record.number or record.role is not Role.PRIMARY:
        return
    for path, tree in zip(layers.paths, layers.trees, strict=True):
        top = f"/proc/self/fd/{tree}"
        if await trio.to_thread.run_sync(directory_checks.begins_with_ids, top):
            log.info("ids of a former mirror are taken off path=%s", path)
            await trio.to_thread.run_sync(directory_checks.forget_ids, top)

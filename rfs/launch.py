"""From the checked command line of `rfsmount mount` to a process that serves: in the foreground, or behind a parent that waits for word."""

import argparse
import logging
import os
import sys
from typing import Any

from rfs import directory_checks, exit_codes
from rfs.daemonize import Report, into_background
from rfs.errors import SaidNo
from rfs.handshake import NAME_BYTES_MAX
from rfs.keys import KeyStore
from rfs.patterns import by_directory
from rfs.refuses import Refuses
from rfs.settings import OnPeerLoss, Settings, parse_address, parse_witness
from rfs.show import printable, say

LOG_NAME = "rfsmount.log"


def read_settings(options: argparse.Namespace) -> Settings:
    """The options as settings; what is wrong with them is one sentence."""
    state_directory = os.path.realpath(options.state)
    keys_directory = os.path.realpath(options.keys or os.path.join(state_directory, "keys"))
    names = {
        "--module": options.module or os.path.basename(state_directory) or "module",
        "--node": options.node or KeyStore(keys_directory).node_name(),
        "--cluster": options.cluster,
    }
    for option, name in names.items():
        if not 0 < len(name.encode()) <= NAME_BYTES_MAX or not name.isprintable():
            raise SaidNo(f"{option} {name!r}: a name of 1 to {NAME_BYTES_MAX} printable bytes is needed", exit_codes.CONFIGURATION_INVALID)
    if options.timeout <= 0 or options.resync_bandwidth < 0:
        raise SaidNo("--timeout and --resync-bandwidth take positive numbers", exit_codes.CONFIGURATION_INVALID)
    if options.seeded and options.role == "primary":
        raise SaidNo("--seeded: is for the node that takes the peer's data, --role secondary", exit_codes.CONFIGURATION_INVALID)
    if len(options.directories) > 32:
        raise SaidNo(f"{len(options.directories)} directories: a module has at most 32", exit_codes.CONFIGURATION_INVALID)
    directories = tuple(os.path.abspath(directory) for directory in options.directories)
    return Settings(
        directories=directories,
        state_directory=state_directory,
        wish_primary=options.role == "primary",
        listen=parse_address(options.listen, "--listen"),
        peer=parse_address(options.peer, "--peer"),
        cluster=names["--cluster"],
        module=names["--module"],
        node=names["--node"],
        on_peer_loss=OnPeerLoss(options.on_peer_loss),
        replace_data=options.replace_data,
        seeded=options.seeded,
        insecure=options.insecure,
        keys_directory=keys_directory,
        peer_node=options.peer_node,
        foreground=options.foreground,
        timeout_s=options.timeout,
        link_timeout_s=_link_timeout(options.link_timeout),
        resync_bytes_per_s=options.resync_bandwidth,
        checkpoint_s=_checkpoint(options.checkpoint),
        required_files=tuple(options.require),
        patterns=by_directory(directories, options.exclude, options.only),
        ack_disk=options.ack == "disk",
        refuses=Refuses.of(devices=options.devices, setuid=options.setuid),
        witness=tuple(map(parse_witness, options.witness)),
        witness_ca=_witness_ca(options.witness_ca),
    )


def _link_timeout(seconds: float) -> float:
    if not 0.5 <= seconds <= 60:
        raise SaidNo(f"--link-timeout {seconds:g}: between 0.5 and 60 seconds", exit_codes.CONFIGURATION_INVALID)
    return seconds


def _witness_ca(path: str) -> str:
    """The file, proven to hold certificates: a mistake is told now, not when the grant is needed."""
    if path:
        import ssl

        try:
            ssl.create_default_context(cafile=path)
        except OSError as failure:  # an SSLError is one
            raise SaidNo(
                f"--witness-ca {path}: holds no certificates ({failure.strerror or failure})", exit_codes.CONFIGURATION_INVALID
            ) from failure
    return os.path.abspath(path) if path else ""


def _checkpoint(seconds: float) -> float:
    if not 1 <= seconds <= 3600:
        raise SaidNo(f"--checkpoint {seconds:g}: between 1 and 3600 seconds", exit_codes.CONFIGURATION_INVALID)
    return seconds


def mount(options: argparse.Namespace) -> int:
    """The exit code of `rfsmount mount`."""
    from rfs.serve import security_of

    settings = read_settings(options)
    directory_checks.resolve_directories(settings.directories, settings.state_directory)
    security_of(settings)  # a refusal leaves nothing behind
    report: Report
    if settings.foreground:
        report = _say_on_stderr
    else:
        os.makedirs(settings.state_directory, mode=0o700, exist_ok=True)
        outcome = into_background(os.path.join(settings.state_directory, LOG_NAME))
        if isinstance(outcome, int):
            return outcome
        report = outcome
    return _run(settings, report)


def _say_on_stderr(code: int, sentence: str) -> None:
    if code != exit_codes.DONE:
        say(f"rfsmount: {sentence}", err=True)


class OneLine(logging.Formatter):
    """Names of files and words of the peer are in messages: neither may they begin a line of the log that looks like one of ours, nor may
    they be commands to the terminal on which somebody reads it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """What follows it of one of our own mistakes, on lines of its own."""
        return printable(super().formatException(ei), "\n")


def _run(settings: Settings, report: Report) -> int:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    # What pyfuse3 says of every worker is of no use to anybody but its authors.
    logging.getLogger("pyfuse3").setLevel(logging.WARNING)
    import trio

    from rfs.serve import serve

    os.chdir("/")
    code = exit_codes.DONE
    try:
        trio.run(serve, settings, report, strict_exception_groups=True)
    except* SaidNo as refusals:
        refusal = _only(refusals)
        code = refusal.exit_code
        report(code, refusal.sentence)
    except* Exception as failures:
        logging.getLogger("rfs").exception("rfsmount failed")
        code = exit_codes.FAILED
        report(code, f"rfsmount failed: {_leaf(failures)}")
    return code


def _leaf(group: BaseExceptionGroup[Exception]) -> BaseException:
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return inner


def _only(group: BaseExceptionGroup[SaidNo]) -> SaidNo:
    leaf = _leaf(group)
    assert isinstance(leaf, SaidNo)
    return leaf

"""The command `rfsmount`. It imports only what the verb needs: `status` answers in a few hundredths of a second."""

import argparse
import os
import sys
import time
from typing import NoReturn

from rfs import exit_codes
from rfs.errors import SaidNo
from rfs.keys_options import add_keys
from rfs.show import say, say_json


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(exit_codes.USAGE, f"{self.prog}: {message}; see '{self.prog} --help'\n")


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    parser = _Parser(prog="rfsmount", description="Keep directories identical on two nodes, write by write.", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)
    mount = verbs.add_parser("mount", help="mirror directories with a peer", allow_abbrev=False)
    mount.add_argument("directories", nargs="+", metavar="DIR", help="pair by position with the peer's")
    mount.add_argument("--state", required=True, metavar="STATEDIR", help="where this node remembers what it knows")
    mount.add_argument("--role", required=True, choices=("primary", "secondary"), help="the wish of the first start; primary: has the data")
    mount.add_argument("--listen", required=True, metavar="ADDR:PORT")
    mount.add_argument("--peer", required=True, metavar="ADDR:PORT")
    mount.add_argument("--on-peer-loss", choices=("alone", "freeze"), default="alone")
    own_files = mount.add_mutually_exclusive_group()
    own_files.add_argument("--replace-data", action="store_true", help="move files of this node to STATEDIR/kept/, then take the peer's")
    own_files.add_argument("--seeded", action="store_true", help="the files here are a copy of the peer's: compare, overwrite what differs")
    mount.add_argument("--resync-bandwidth", type=int, default=0, metavar="BYTES_PER_S")
    mount.add_argument("--checkpoint", type=float, default=30.0, metavar="S", help="how often both nodes make durable what they hold")
    mount.add_argument("--timeout", type=float, default=30.0, metavar="S", help="how long to wait for the mount to be live")
    mount.add_argument("--link-timeout", type=float, default=5.0, metavar="S", help="the peer is lost after so long without a sign of life")
    mount.add_argument("--insecure", action="store_true", help="links without keys and encryption: on networks that are yours alone")
    mount.add_argument("--keys", metavar="DIR", help="this node's key and its peers' (default: STATEDIR/keys)")
    mount.add_argument("--peer-node", default="", metavar="NAME", help="default: the one peer that is paired")
    mount.add_argument("--module", help="default: the state directory's name")
    mount.add_argument("--node", help="default: the host's name")
    mount.add_argument("--cluster", default="standalone")
    mount.add_argument("-f", "--foreground", action="store_true")
    mount.add_argument("--require", action="append", default=[], metavar="FILE", help="refuse to serve when no directory holds it")
    mount.add_argument(
        "--ack", choices=("memory", "disk"), default="memory", help="when a change counts as mirrored: in the peer's memory, or on its disk"
    )
    for option, what in (
        ("--devices", "whether device nodes may be made in the directories"),
        ("--setuid", "whether files there may be setuid or setgid, or have capabilities"),
    ):
        mount.add_argument(option, choices=("allow", "refuse"), default="allow", help=what)
    mount.add_argument(
        "--exclude", action="append", default=[], metavar="PATTERN", help="what it matches stays local, e.g. '*.tmp' or 'cache/**'"
    )
    mount.add_argument("--only", action="append", default=[], metavar="PATTERN", help="what no such pattern matches stays local")
    mount.add_argument(
        "--witness", action="append", default=[], metavar="URL", help="a member of the etcd that grants going on alone; repeat for others"
    )
    mount.add_argument("--witness-ca", default="", metavar="FILE", help="whom to trust behind https (default: the system's)")
    guard = verbs.add_parser("guard", help="early in a boot: nobody can change the directories until they are mounted", allow_abbrev=False)
    guard.add_argument("directories", nargs="+", metavar="DIR")
    guard.add_argument("--state", required=True, metavar="STATEDIR")
    guard.add_argument("--refuse-holders", action="store_true", help="not while a process has something open in a directory")
    unguard = verbs.add_parser("unguard", help="for maintenance: take the guards off directories that nobody serves", allow_abbrev=False)
    unguard.add_argument("directories", nargs="+", metavar="DIR")
    unguard.add_argument("--state", required=True, metavar="STATEDIR")
    add = verbs.add_parser("add", help="one more directory for a pair that runs: on the secondary, then on the primary", allow_abbrev=False)
    add.add_argument("directories", nargs="+", metavar="DIR", help="it gets the next position; empty on the secondary")
    add.add_argument("--state", required=True, metavar="STATEDIR")
    add.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help="as of mount")
    add.add_argument("--only", action="append", default=[], metavar="PATTERN", help="as of mount")
    add.add_argument("--check", action="store_true", help="only whether it could be added")
    for verb, text in (
        ("status", "how the mirror is"),
        ("stats", "the engine's counters"),
        ("promote", "make this node primary"),
        ("demote", "make this node secondary"),
        ("unmount", "goodbye to the peer, then the plain directories"),
        ("discard", "what a resync took away here, much as it was, is gone for good"),
        ("verify", "compare both copies while the application writes"),
        ("diff", "what differs between two nodes that have diverged"),
        ("resolve", "after DIVERGED: keep one node's data; what differs on the other is saved first"),
    ):
        verbs.add_parser(verb, help=text, allow_abbrev=False).add_argument("--state", required=True, metavar="STATEDIR")
    verbs.choices["status"].add_argument("--json", action="store_true")
    verbs.choices["stats"].add_argument("--json", action="store_true")
    verbs.choices["stats"].add_argument("-w", "--watch", action="store_true")
    verbs.choices["verify"].add_argument("--repair", action="store_true", help="make the secondary's copy equal where it is not")
    verbs.choices["verify"].add_argument("--json", action="store_true")
    verbs.choices["diff"].add_argument("--estimate", action="store_true", help="only what a resync would cost")
    verbs.choices["diff"].add_argument("--json", action="store_true")
    verbs.choices["resolve"].add_argument("--keep", required=True, choices=("here", "peer"), help="whose data stays")
    verbs.choices["resolve"].add_argument("--json", action="store_true")
    verbs.choices["promote"].add_argument("--force", action="store_true", help="also with a copy that may be old")
    witness = verbs.add_parser("witness", help="the witness's register: look at it, or arm it", allow_abbrev=False)
    witness.add_argument("action", choices=("status", "arm"))
    witness.add_argument("--state", required=True, metavar="STATEDIR")
    witness.add_argument("--json", action="store_true")
    witness.add_argument("--force", action="store_true", help="arm: this node's copy counts as the newest, whatever the register holds")
    add_keys(verbs.add_parser("keys", help="this node's key, and pairing with the peer", allow_abbrev=False))
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The exit code; every refusal is one sentence on stderr."""
    options = parser().parse_args(arguments)
    try:
        match options.verb:
            case "mount":
                return _mount(options)
            case "guard" | "unguard":
                from rfs import guard_command

                directories = [os.path.abspath(directory) for directory in options.directories]
                if options.verb == "unguard":
                    return guard_command.unguard(directories, _state(options))
                return guard_command.run(directories, _state(options), refuse_holders=options.refuse_holders)
            case "add":
                return _add(options)
            case "status":
                return _status(options)
            case "stats":
                return _stats(options)
            case "witness":
                return _witness(options)
            case "verify":
                from rfs.verify_command import run as verify

                return verify(options)
            case "diff" | "resolve":
                from rfs import divergence_command

                return divergence_command.diff(options) if options.verb == "diff" else divergence_command.resolve(options)
            case "keys":
                from rfs.keys_command import run

                return run(options)
            case _:
                return _command(options)
    except SaidNo as refusal:
        say(f"rfsmount: {refusal.sentence}", err=True)
        return refusal.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return exit_codes.FAILED
    except KeyboardInterrupt:
        return 130


def _status(options: argparse.Namespace) -> int:
    from rfs.control.blocking import BlockingClient

    with BlockingClient(_state(options)) as client:
        status = client.call("status")
    if options.json:
        say_json(status)
    else:
        from rfs.show import render_status

        say(render_status(status))
    return exit_codes.DONE


def _stats(options: argparse.Namespace) -> int:
    from rfs.control.blocking import BlockingClient
    from rfs.show import render_statistics

    with BlockingClient(_state(options)) as client:
        while True:
            statistics = client.call("stats")
            if options.json:
                say_json(statistics)
            else:
                say(render_statistics(statistics))
            if not options.watch:
                return exit_codes.DONE
            time.sleep(1)


def _witness(options: argparse.Namespace) -> int:
    from rfs.control.blocking import BlockingClient

    if options.force and options.action != "arm":
        raise SaidNo("--force goes with 'witness arm'", exit_codes.USAGE)
    method, params = ("arm", {"force": options.force}) if options.action == "arm" else ("witness", {})
    with BlockingClient(_state(options)) as client:
        shown = client.call(method, params)
    if options.json:
        say_json(shown)
    else:
        from rfs.show import render_witness

        say(render_witness(shown))
    return exit_codes.DONE


def _command(options: argparse.Namespace) -> int:
    from rfs.control.blocking import BlockingClient

    params = {}
    if options.verb == "promote":
        # Standing alone, the administrator's word is the grant; with a witness it is the word to ask for one.
        params = {"force": options.force, "granted": True, "reason": "promoted by the administrator"}
    state = _state(options)
    with BlockingClient(state, timeout_s=120.0) as client:
        status = client.call(options.verb, params)
        if options.verb == "unmount":
            _wait_for_end(int(client.server["pid"]), state)
        else:
            say(f"{status['module']} on {status['node']}: {status['role']}, {status['link']}, {status['data']}")
    return exit_codes.DONE


def _add(options: argparse.Namespace) -> int:
    from rfs.control.blocking import BlockingClient

    directories = [os.path.abspath(directory) for directory in options.directories]
    params = {"directories": directories, "exclude": options.exclude, "only": options.only, "check": options.check}
    with BlockingClient(_state(options), timeout_s=120.0) as client:
        status = client.call("add_directories", params)
    if not options.check:
        say(f"{status['module']} on {status['node']}: {len(status['directories'])} directories, {status['link']}")
    return exit_codes.DONE


def _wait_for_end(pid: int, state: str) -> None:
    """Until the process has given the state directory back."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not os.path.exists(f"/proc/{pid}"):
            return
        time.sleep(0.02)
    raise SaidNo(f"--state {state}: rfsmount (pid {pid}) does not end; look into its log", exit_codes.TIMEOUT)


def _state(options: argparse.Namespace) -> str:
    return os.path.realpath(str(options.state))


def _mount(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise SaidNo("mount needs root", exit_codes.NOT_PERMITTED)
    from rfs.launch import mount

    return mount(options)


if __name__ == "__main__":
    sys.exit(main())

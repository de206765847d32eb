"""`rfsmount diff` and `rfsmount resolve` on the command line.

diff: 0 nothing differs, 1 something does. resolve: 0 when the node that gives its data up has saved what differs and given up its claim."""

import argparse
import json
import os
from typing import Any

from rfs import exit_codes
from rfs.control.blocking import BlockingClient
from rfs.show import printable, say, say_json

Result = dict[str, Any]


def diff(options: argparse.Namespace) -> int:
    """The exit code."""
    with BlockingClient(os.path.realpath(str(options.state)), timeout_s=None) as client:
        if options.estimate:
            return _estimate(client.call("estimate"), options.json)
        found = client.call("diff")
        paths = [entry["path"] for entry in client.call("status")["directories"]]
    if options.json:
        say_json({"schema": "rfsmount.diff/1", **found, "directories": paths})
    else:
        with open(found["file"], encoding="utf-8") as lines:
            for line in lines:
                say(_sentence(json.loads(line), paths))
        say(
            f"{found['differences']} differences: {found['only_here']} only here, {found['only_there']} only on the peer, "
            f"{found['different']} different; {_mib(found['differing_bytes'])} in them ({found['entries']} places compared)"
        )
    return exit_codes.FAILED if found["differences"] else exit_codes.DONE


def _estimate(cost: Result, as_json: bool) -> int:
    if as_json:
        say_json({"schema": "rfsmount.estimate/1", **cost})
    elif cost["kind"] == "marks":
        say(
            f"a resync looks at the {cost['places']} places that are marked on this node ({_mib(cost['compare_bytes'])}), "
            "and at those marked on the peer; only blocks that differ are sent"
        )
    else:
        say(
            f"a resync compares all {cost['places']} places, {cost['files']} files with {_mib(cost['compare_bytes'])}, on both nodes; "
            "only blocks that differ are sent"
        )
    return exit_codes.DONE


def resolve(options: argparse.Namespace) -> int:
    """The exit code."""
    with BlockingClient(os.path.realpath(str(options.state)), timeout_s=None) as client:
        done = client.call("resolve", {"keep": options.keep})
    if options.json:
        say_json({"schema": "rfsmount.resolve/1", **done})
    else:
        say(
            f"{done['yields']} gives its data up: {done['places']} places that differed ({_mib(done['bytes'])}) are saved on it in "
            f"{done['kept']}; it is now made equal, 'status' shows how far it is"
        )
    return exit_codes.DONE


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"


def _sentence(line: Result, directories: list[str]) -> str:
    path = os.path.join(directories[line["directory"]], line["path"]) if line["path"] else directories[line["directory"]]
    shown = printable(path.encode(errors="surrogateescape").decode(errors="backslashreplace"))
    if line["where"] != "both":
        side, size = ("only here", line["size_here"]) if line["where"] == "here" else ("only on the peer", line["size_there"])
        return f"{side}: {shown} ({line['type']}{f', {size} bytes' if line['type'] == 'file' else ''})"
    ranges = line["ranges"]
    places = f" ({sum(length for _, length in ranges)} bytes in {len(ranges)} ranges from {ranges[0][0]} on)" if ranges else ""
    return f"{', '.join(line['what'])}: {shown}{places}"

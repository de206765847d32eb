"""`rfsmount verify` on the command line: begin, show how far it is, tell what was found.

Exit codes: 0 equal (or repaired, and equal then), 1 different; cut off: 1 with a sentence; else as everywhere."""

import argparse
import os
import sys
import time
from typing import Any

from rfs import exit_codes
from rfs.control.blocking import BlockingClient
from rfs.errors import SaidNo
from rfs.show import printable, say, say_json

ASK_AGAIN_S = 0.2
Result = dict[str, Any]


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    with BlockingClient(os.path.realpath(str(options.state)), timeout_s=None) as client:
        result = _verify(client)
        repaired = 0
        if options.repair and result["differences"]:
            repaired = result["differences"]
            _tell(f"{repaired} differences: a resync repairs them")
            client.call("repair")
            before, result = result["found"], _verify(client)
            result["repaired_places"] = before
    if options.json:
        say_json({"schema": "rfsmount.verify/1", "equal": not result["differences"], "repaired": repaired} | result)
    else:
        _print(result, repaired)
    return exit_codes.FAILED if result["differences"] else exit_codes.DONE


def _verify(client: BlockingClient) -> Result:
    began = time.monotonic()
    progress = client.call("verify")
    while progress["running"]:
        elapsed_s = time.monotonic() - began
        _tell(_progress_line(progress, elapsed_s), over=True)
        time.sleep(min(ASK_AGAIN_S, 0.02 + elapsed_s / 10))
        progress = client.call("verification", {"after": 2**31})
    _tell("", over=True)
    if progress["cut_off"]:
        raise SaidNo(
            f"the verify was cut off before its end ({progress['cut_off']}), with {progress['differences']} differences so far; "
            "look at 'status' and try again",
            exit_codes.FAILED,
        )
    found: list[Result] = []
    while len(found) < progress["listed"]:
        found += client.call("verification", {"after": len(found)})["shown"]
    kept = {name: progress[name] for name in ("differences", "bytes_done", "files_done")}
    return kept | {"seconds": round(time.monotonic() - began, 2), "found": found}


def _progress_line(progress: Result, elapsed_s: float) -> str:
    done, total = progress["bytes_done"], progress["total_bytes"]
    files, all_files = progress["files_done"], progress["total_files"]
    share = (done + 4096 * files) / max(total + 4096 * all_files, 1)  # many small files take their time as well
    left = f", about {elapsed_s / share - elapsed_s:.0f} s left" if share > 0.01 and elapsed_s > 1 else ""
    counted = f"{files} of {all_files} files, {done >> 20} of {total >> 20} MiB"
    return f"{100 * share:5.1f} %, {counted}, {progress['differences']} different{left}"


def _tell(line: str, over: bool = False) -> None:
    """To whoever watches; a program that reads our output does not see it."""
    if sys.stderr.isatty():
        line = printable(line)
        print(f"\r\033[K{line}" if over else line, end="" if over else "\n", file=sys.stderr, flush=True)


def _print(result: Result, repaired: int) -> None:
    for one in result["found"]:
        where = f" at {one['offset']}, {one['length']} bytes" if one["kinds"] == ["content"] else ""
        say(f"{', '.join(one['kinds'])}: {printable(one['path'])}{where}")
    if len(result["found"]) < result["differences"]:
        say(f"... and {result['differences'] - len(result['found'])} more")
    compared = f"{result['files_done']} files and {result['bytes_done'] >> 20} MiB compared in {result['seconds']} s"
    if result["differences"]:
        again = "after the repair too: look for what changes the secondary's tree" if repaired else "'verify --repair' makes them equal"
        say(f"{result['differences']} differences; {again} ({compared})")
    else:
        say(f"equal{f' after the repair of {repaired} differences' if repaired else ''} ({compared})")

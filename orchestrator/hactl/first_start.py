"""The first start of a mirror module: somebody has to say which node has the data, and sees first what both have.

Only as long as no node takes part yet. Afterwards the records decide, and nobody is asked. What is on the node whose data are not taken is
never removed: it is moved to the module's kept/ directory before the first copy.

    nothing known anywhere ── shown on a terminal, or --data-from NODE ── prim there ── it serves ── the other one follows
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from orchestrator.api.client import ApiFailure
from orchestrator.hactl.output import columns, print_answer, say
from orchestrator.hactl.session import Failure, Session
from orchestrator.hactl.waiting import LEADING, goal_of_lines, wait_for
from orchestrator.units import show_bytes, show_duration
from rfs import exit_codes

Entry = Mapping[str, Any]  # a node's part of hactl.contents/1
SERVES_WITHIN_S = 60.0
ANSWERS_WITHIN_S = 3.0
ASK_EVERY_S = 0.3


def start(session: Session, name: str, entry: Mapping[str, Any], data_from: str | None) -> bool:
    """Was it the first start of this module, and has been dealt with here? `entry`: its part of the status."""
    under_way = any(line["state"] not in ("STOP", "WAIT", "UNKNOWN") for line in entry["nodes"])  # who is not heard yet is asked
    if entry.get("mode") != "mirror" or under_way or not (entries := first_entries(session, name)):
        if data_from is not None:
            sentence = f"--data-from is for the first start of a mirror module, and {name} is known on a node, or not every node answers"
            raise Failure(f"{sentence}: 'hactl prim {name}' is your word", exit_codes.REFUSED)
        return False
    guide(session, name, entries, data_from)
    return True


def confirm_prim(session: Session, name: str) -> None:
    """`hactl prim` as the first word about a module: on a terminal with both sides shown; in a script the command is the word."""
    if session.dry_run or not on_terminal(session) or not (entries := first_entries(session, name)):
        return
    source = session.node or str(session.client.status()["node"])
    show(name, entries)
    mine = next(entry for entry in entries if entry["node"] == source)
    refuse_unfit(mine, [entry for entry in entries if entry is not mine])
    others = " and ".join(str(entry["node"]) for entry in entries if entry is not mine)
    session.confirm(f"{source} is to have the data of {name}, and {others} will get a copy. Go on?")


def first_entries(session: Session, name: str) -> list[Entry]:
    """What both have, where every node says that it has never taken part; one that cannot be asked may know better, and may just go on with
    what was applied a moment ago. A hactld that does not know the question leaves it to the records."""
    until = time.monotonic() + ANSWERS_WITHIN_S
    try:
        while None in (known := known_of(session, name)) and True not in known and time.monotonic() < until:
            time.sleep(ASK_EVERY_S)
        if not known or any(word is not False for word in known):
            return []
        entries = list(session.client.contents(name, "all")["nodes"])
    except (ApiFailure, KeyError):
        return []
    refuse_unseen(entries)
    return [] if any(entry["known"] for entry in entries) else entries


def refuse_unseen(entries: Sequence[Entry]) -> None:
    """Who answered a moment ago and cannot show its directories now may have the data."""
    for entry in entries:
        if entry["known"] is None or entry["directories"] is None:
            reason = f" ({entry['problem']})" if entry["problem"] else ""
            sentence = f"{entry['node']} does not say what its directories hold{reason}"
            raise Failure(f"{sentence}: nothing was started; try again", exit_codes.PEER_NOT_REACHABLE)


def known_of(session: Session, name: str) -> list[bool | None]:
    """Of each node: has it ever taken part? None: it does not answer."""
    return [entry["known"] for entry in session.client.contents(name, "all", walk=False)["nodes"]]


def on_terminal(session: Session) -> bool:
    """Is there somebody to ask?"""
    return sys.stdin.isatty() and sys.stdout.isatty() and not session.yes


def guide(session: Session, name: str, entries: Sequence[Entry], data_from: str | None) -> None:
    """Show, ask, and start both nodes with the answer."""
    nodes = [str(entry["node"]) for entry in entries]
    if data_from is None and not on_terminal(session):
        choices = " or ".join(f"'hactl start {name} --data-from {node}'" for node in nodes)
        sentence = f"no node is known to have the data of {name}: say which one, {choices}"
        raise Failure(f"{sentence}; on a terminal 'hactl start {name}' shows both and asks", exit_codes.REFUSED)
    if data_from is not None and data_from not in nodes:
        raise Failure(f"--data-from {data_from}: {name} runs on {' and '.join(nodes)}", exit_codes.USAGE)
    show(name, entries)
    source = data_from or click.prompt("Which node has the data?", type=click.Choice(nodes), err=True)
    mine, theirs = (next(entry for entry in entries if (entry["node"] == source) is wanted) for wanted in (True, False))
    refuse_unfit(mine, [theirs])
    replace = not is_empty(theirs)
    for line in warned(session, name, source, str(theirs["node"])):
        say(line, err=True)
    for line in consequences(name, source, str(theirs["node"]), replace):
        say(line, err=True)
    if session.dry_run:
        print_answer(session, "nothing was started: " + " ".join(consequences(name, source, str(theirs["node"]), replace)))
        return
    if replace:
        refuse_half_way(session, str(theirs["node"]))
    session.confirm("Go on?")
    begin(session, name, source, str(theirs["node"]), replace)


def refuse_half_way(session: Session, other: str) -> None:
    """To have files replaced takes more than to start: who may not must not start one node and be refused at the other."""
    role = str(session.client.index()["you"]["role"])
    if role != "admin":
        sentence = f"the files on {other} are to be moved away and replaced, which needs the role admin, and you have the role {role}"
        way_out = "have an administrator start it, or empty the directories there"
        raise Failure(f"{sentence}: nothing was started; {way_out}", exit_codes.NOT_PERMITTED)


def warned(session: Session, name: str, source: str, other: str) -> list[str]:
    """What the doctor has against this copy: room, owners, file systems, programs. It is told, and decides nothing."""
    from orchestrator.doctor.preflight import before_first_copy

    try:
        facts = [session.client.doctor("facts", node) for node in (source, other)]
    except ApiFailure as failure:
        return [f"! the doctor was not asked: {failure}"]
    found = [each for each in before_first_copy(name, *facts) if each.verdict in ("bad", "warn")]
    return [line for each in found for line in (f"! {each.node}: {each.text}", *([f"  → {each.fix}"] if each.fix else []))]


def refuse_unfit(source: Entry, others: Sequence[Entry]) -> None:
    """A node without the directories, without what is required in them, or with nothing where another one has something, is not meant."""
    for directory in source["directories"] or ():
        lacking = ", ".join(directory["lacking"])
        reason = directory["problem"] or (f"there is no {lacking} in it" if lacking else "" if directory["exists"] else "it does not exist")
        if reason:
            raise Failure(f"{source['node']} cannot have the data: {directory['path']}: {reason}; nothing was started", exit_codes.REFUSED)
    filled = [str(other["node"]) for other in others if other["directories"] is not None and holds_files(other)]
    if filled and not holds_files(source):
        sentence = f"{source['node']} has no files and {' and '.join(filled)} has: nothing was started"
        raise Failure(f"{sentence}; if they are of no use, move them away there", exit_codes.REFUSED)


def begin(session: Session, name: str, source: str, other: str, replace: bool) -> None:
    """The node with the data first: only when it serves the other one is told, so that a failure there leaves this one as it was."""
    results = answered(session.client.command(name, "prim", {}, source))
    watching = replace_session(session, source)
    wait_for(watching, name, goal_of_lines(source, lambda line: line["state"] in LEADING), f"serving on {source}")
    results += answered(session.client.command(name, "second", {"fullsync": True} if replace else {}, other))
    say(f"{source} serves {name}; {other} gets its copy: 'hactl status' shows how far it is.", err=True)
    if session.wait:
        wait_for(session, name, lambda entry, _: bool(entry.get("verdict") == "redundant"), "redundant")
    print_answer(session, f"{source} serves {name}; {other} gets its copy", results)


def replace_session(session: Session, node: str) -> Session:
    """The same session, looking at another node, with less patience: what does not serve in a minute was refused."""
    timeout_s = session.timeout_s if session.timeout_s is not None else SERVES_WITHIN_S
    return Session(node=node, timeout_s=timeout_s, config_dir=session.config_dir, socket=session.socket)


def answered(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a node answered; a refusal ends the command."""
    results = list(answer.get("results") or [answer])
    for result in results:
        if result["code"] != exit_codes.DONE:
            raise Failure(f"{result.get('node', '')}: {result['message']}", int(result["code"]))
        say(f"{result.get('node', '')}: {result['message']}", err=True)
    return results


# ---------------------------------------------------------------------------------------------- words


def holds_files(entry: Entry) -> bool:
    """Is there anything that would have to be moved? In doubt yes."""
    return entry["directories"] is None or any(each["files"] or each["problem"] or not each["whole"] for each in entry["directories"])


def is_empty(entry: Entry) -> bool:
    """By rfsmount's own test, which takes subdirectories for something: what it would refuse to replace unasked. In doubt no."""
    if holds_files(entry):
        return False
    return all(each.get("empty", True) or not each["exists"] for each in entry["directories"] or ())


def consequences(name: str, source: str, other: str, replace: bool) -> list[str]:
    """What will happen, before it does."""
    moved = f"what is in its directories is moved to /var/lib/lockstep/modules/{name}/kept/ first"
    moved = moved if replace else "there is nothing in its directories"
    return [f"{source} serves with its data.", f"{other} becomes a copy of it: {moved}."]


def show(name: str, entries: Sequence[Entry]) -> None:
    """Both sides, directory by directory."""
    say(f"No node is known to have the data of {name}. In its directories there is:\n", err=True)
    for line in columns(("DIRECTORY", "NODE", "SIZE", "FILES", "NEWEST FILE", "AGE", "MARKS"), rows(entries)):
        say(line, err=True)
    say("", err=True)


def rows(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """A line for each directory on each node; directories pair by position, their names are the configuration's."""
    found: list[tuple[str, ...]] = []
    count = max((len(entry["directories"] or ()) for entry in entries), default=0)
    for index in range(count):
        path = next(entry["directories"][index]["path"] for entry in entries if entry["directories"])
        for number, entry in enumerate(entries):
            cells = cells_of(entry["directories"][index]) if entry["directories"] else (entry["problem"] or "not known", "", "", "", "")
            found.append((path if number == 0 else "", str(entry["node"]), *cells))
    return found


def cells_of(directory: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Size, files, newest, age, marks."""
    if directory["problem"]:
        return directory["problem"], "", "", "", ""
    if not directory["exists"]:
        return "missing", "", "", "", ""
    if not directory["files"] and directory["whole"]:
        return "empty" if directory.get("empty", True) else "no files", "0", "-", "-", "-"
    least = "" if directory["whole"] else "at least "
    age = show_duration(directory["newest_age_s"]) if directory["newest_age_s"] is not None else "-"
    marks = " ".join(mark if word == "there" else f"{mark}={word}" for mark, word in (directory["markers"] or {}).items())
    return f"{least}{show_bytes(directory['bytes'])}", f"{least}{directory['files']}", directory["newest"] or "-", age, marks or "-"

"""`data`, `resync`, `verify`, `resolve` and `discard`: a module's copies, and what can be done about them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from orchestrator.hactl.asking import answers
from orchestrator.hactl.output import print_answer, print_json, print_nodes, say
from orchestrator.hactl.progress import Progress
from orchestrator.hactl.session import WAIT_TIMEOUT_S, Failure, Session, chosen_module, module_argument, session_options
from orchestrator.hactl.waiting import describe, entry_of, nodes_of
from orchestrator.units import show_bytes
from rfs import exit_codes

LOOK_S = 0.3
SHOWN_LINES = 20
Line = Mapping[str, Any]


@click.command()
@module_argument
@session_options
def data(session: Session, module: str | None) -> None:
    """A module's copy on this node (-H: another one, or all): its name, its age, what is marked, what was kept.

    \b
    hactl data pg                the copy here
    hactl data pg -H all         the copies of both nodes
    """
    status = session.client.status()
    name = chosen_module(status, module)
    nodes = nodes_of(status, name) if session.node == "all" else [session.node]
    with answers(nodes, lambda node: session.client.data(name, node)) as documents:
        if not print_nodes(session, documents):
            say("\n\n".join(shown_data(document) for document in documents))


def shown_data(document: Line) -> str:
    """One copy, for a person."""
    rfs, place = document["rfs"], f"{document['module']} on {document['node']}"
    if not rfs:
        lines = [f"{place}: rfsmount does not run here; 'hactl start {document['module']}' starts it"]
    else:
        peer = rfs.get("peer") or {}
        beside = f"{rfs['link']} with {peer['node']} ({peer.get('data') or '?'})" if peer.get("node") else rfs["link"]
        rtt = f", {peer['rtt_us']} µs" if peer.get("rtt_us") else ""
        heard = f", heard {rfs['last_heard_s']} s ago" if rfs.get("last_heard_s") is not None else ""
        lines = [
            f"{place}: {rfs['role']}, {rfs['data']}",
            f"  generation   {rfs['generation']}, term {rfs['term']}",
            f"  sequence     {rfs['seq']}, acknowledged {rfs['acked_seq']} ({rfs['ack']})",
            f"  link         {beside}{rtt}{heard}",
            f"  marked       {marked_words(rfs)}",
        ]
        if rfs.get("resync"):
            from orchestrator.hactl.progress import words_of

            lines.append(f"  resync       {rfs['resync']['direction']}, {words_of(rfs['resync'])}")
        if rfs.get("reason"):
            lines.append(f"  reason       {rfs['reason']} ({rfs['code']})")
        for directory in rfs["directories"]:
            local = "".join(f", {word} {' '.join(directory[word])}" for word in ("exclude", "only") if directory.get(word))
            lines.append(f"  directory    {directory['path']}: {'mounted' if directory['mounted'] else 'not mounted'}{local}")
    for kept in document["kept"]:
        lines.append(f"  kept         {kept['path']}, {time.strftime('%Y-%m-%d %H:%M', time.localtime(kept['wall_s']))}")
    return "\n".join(lines)


def marked_words(rfs: Line) -> str:
    """What a resync would look at."""
    if rfs.get("everything_marked"):
        return "everything: the next session compares all"
    if rfs.get("hot_bytes"):
        return f"{show_bytes(rfs['hot_bytes'])} since the last checkpoint, compared only if a node loses power"
    return f"{show_bytes(rfs['marked_bytes'])} to compare when the nodes meet"


# ---- resync ----------------------------------------------------------------------------------------------------------------------------


@click.command()
@module_argument
@click.option("--full", is_flag=True, help="Compare the whole copies, not only what is marked; only what differs travels.")
@session_options
def resync(session: Session, module: str | None, full: bool) -> None:
    """Follow the resync that runs, until both copies are equal. A resync begins by itself whenever the nodes meet.

    \b
    hactl resync pg              how far it is; returns at its end
    hactl resync pg --wait       the same, and wait for one to begin
    hactl resync pg --full       have everything compared
    """
    document = session.client.status()
    name = chosen_module(document, module)
    if full:
        if session.dry_run:
            sentence = f"would have both copies of {name} compared as a whole, and blocks that differ sent; the application goes on"
            if not print_answer(session, sentence):
                say(sentence)
            return
        session.confirm(f"Both copies of {name} are read as a whole and compared; the application keeps running. Go on?")
        work = follow(session, name, "resync", {})
        if session.format not in ("json", "jsonl"):
            say(f"{name}: {work['message']}")
        return
    follow_status(session, name)


def follow_status(session: Session, name: str, *, resolved: bool = False) -> None:
    """The resync that the status tells of. `resolved`: a divergence has just been ended, and is still told of for a moment."""
    timeout_s = session.timeout_s if session.timeout_s is not None else WAIT_TIMEOUT_S
    began, seen = time.monotonic(), False
    with Progress(session, name, "resync") as progress:
        while True:
            entry = entry_of(session.client.status(), name)
            running = next((node["resync"] for node in entry["nodes"] if node.get("resync")), None)
            if running is not None:
                seen = True
                progress.show(running)
            elif entry["verdict"] == "redundant":
                message = "both copies are equal" if seen else "both copies are up to date: there is nothing to do"
                progress.finish(exit_codes.DONE, message)
                if not progress.as_json:
                    say(f"{name}: {message}")
                return
            elif entry["verdict"] == "diverged" and not resolved:
                raise Failure(f"{name} is diverged: no resync ends that; see 'hactl explain DIVERGED'", exit_codes.REFUSED)
            elif not (session.wait or seen):
                raise Failure(f"no resync of {name} runs: {describe(entry)}; --wait waits for one", exit_codes.PEER_NOT_REACHABLE)
            elif time.monotonic() - began > timeout_s:
                raise Failure(f"{name} is not whole within {timeout_s:g} s: {describe(entry)}", exit_codes.TIMEOUT)
            time.sleep(LOOK_S)


# ---- verify ----------------------------------------------------------------------------------------------------------------------------


@click.command()
@module_argument
@click.option("--repair", is_flag=True, help="Make the secondary's copy equal where it is not, and compare again.")
@session_options
def verify(session: Session, module: str | None, repair: bool) -> None:
    """Compare both copies while the application writes. Exit code 0: they are equal; 1: they differ.

    \b
    hactl verify pg              compare; what differs is listed
    hactl verify pg --repair     and make it equal
    """
    name = chosen_module(session.client.status(), module)
    if session.dry_run:
        sentence = f"would read both copies of {name} and compare them" + (", and have a resync repair what differs" if repair else "")
        if not print_answer(session, sentence):
            say(sentence)
        return
    if repair:
        session.confirm(f"What differs on the secondary of {name} is overwritten with the primary's. Go on?")
    work = follow(session, name, "repair" if repair else "verify", {})
    result = work["result"]
    if session.format in ("json", "jsonl"):
        pass
    else:
        for one in result["found"]:
            where = f" at {one['offset']}, {one['length']} bytes" if one["kinds"] == ["content"] else ""
            say(f"{', '.join(one['kinds'])}: {one['path']}{where}")
        if len(result["found"]) < result["differences"]:
            say(f"... and {result['differences'] - len(result['found'])} more")
        compared = f"{result['files_done']} files and {show_bytes(result['bytes_done'])} compared in {work['seconds']:.0f} s"
        if result["differences"]:
            say(f"{result['differences']} differences ({compared}); 'hactl verify {name} --repair' makes them equal")
        else:
            say(f"{name}: {work['message']} ({compared})")
    if work["code"]:
        raise SystemExit(work["code"])


# ---- resolve ---------------------------------------------------------------------------------------------------------------------------


@click.command()
@module_argument
@click.option("--keep", required=True, metavar="NODE", help="The node whose data stays.")
@session_options
def resolve(session: Session, module: str | None, keep: str) -> None:
    """End a divergence: NODE's data stays, the other node's differences are saved to its kept/, then it is made equal.

    \b
    hactl resolve pg --keep node1 --dry-run     what differs, and what would be saved
    hactl resolve pg --keep node1               the same, then asks, then does it
    """
    document = session.client.status()
    name = chosen_module(document, module)
    entry = entry_of(document, name)
    places = [node["node"] for node in entry["nodes"]]
    if keep not in places:
        from orchestrator.config_errors import did_you_mean

        raise Failure(
            f"{name} does not run on '{keep}'; say --keep {' or --keep '.join(places)}.{did_you_mean(keep, places)}", exit_codes.USAGE
        )
    if entry["verdict"] != "diverged":
        raise Failure(f"{name} is {entry['verdict']}, not diverged ({describe(entry)}): there is nothing to resolve", exit_codes.REFUSED)
    gives = next(node for node in places if node != keep)
    asked = session.node if session.node is not None and session.node in places else str(document["node"])
    found = follow(session, name, "diff", {}, last=False)["result"]
    if session.format not in ("json", "jsonl"):
        show_differences(found, asked, keep, gives)
    elif session.dry_run:
        print_json({"schema": "hactl.summary/1", "message_type": "summary", "module": name, "action": "diff", "seconds_elapsed": 0.0,
                    "code": 0, "message": "nothing was changed", "result": found}, one_line=True)  # fmt: skip
    if session.dry_run:
        return
    session.confirm_by_name(f"{gives} gives its data of {name} up; what differs there is saved first, in its kept/ directory.", name)
    work = follow(session, name, "resolve", {"keep": keep})
    if session.format not in ("json", "jsonl"):
        say(work["message"])
        say(f"{gives} is made equal now; follow it with: hactl resync {name} --wait", err=True)
    if session.wait:
        follow_status(session, name, resolved=True)


def show_differences(found: Line, here: str, keep: str, gives: str) -> None:
    """What differs, and what becomes of it. The difference was asked of `here`."""
    there = gives if here == keep else keep
    lines = found["found"]
    for line in lines[:SHOWN_LINES]:
        say(difference(line, found["directories"], here, there))
    if found["differences"] > len(lines[:SHOWN_LINES]):
        say(f"... and {found['differences'] - len(lines[:SHOWN_LINES])} more, in {found['file']} on the node that was asked")
    say(
        f"{found['differences']} differences: {found['only_here']} only on {here}, {found['only_there']} only on {there}, "
        f"{found['different']} different; {show_bytes(found['differing_bytes'])} in them"
    )
    say(f"{keep}'s data stays. What differs on {gives} is saved there first, in kept/ of the module's state directory.")


def difference(line: Line, directories: list[str], here: str, there: str) -> str:
    """One of them, in a line."""
    directory = directories[line["directory"]]
    path = f"{directory}/{line['path']}" if line["path"] else directory
    shown = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
    if line["where"] != "both":
        node, size = (here, line.get("size_here")) if line["where"] == "here" else (there, line.get("size_there"))
        return f"  only on {node}: {shown} ({line['type']}{f', {show_bytes(size or 0)}' if line['type'] == 'file' else ''})"
    return f"  {', '.join(line['what'])}: {shown}"


# ---- discard ---------------------------------------------------------------------------------------------------------------------------


@click.command()
@module_argument
@session_options
def discard(session: Session, module: str | None) -> None:
    """What a resync took away on a node, more than it left, is gone for good. Until then it is kept there: 'hactl status' on that node
    says where.

    \b
    hactl discard pg -H node2     on node2
    """
    document = session.client.status()
    name = chosen_module(document, module)
    where = session.node or document["node"]
    sentence = f"What a resync of {name} took away on {where}, and set aside there, is gone for good then."
    if session.dry_run:
        if not print_answer(session, sentence):
            say(sentence)
        return
    session.confirm_by_name(sentence, name)
    work = follow(session, name, "discard", {})
    if session.format not in ("json", "jsonl"):
        say(f"{name}: {work['message']}")


# ---- long work -------------------------------------------------------------------------------------------------------------------------


def follow(session: Session, name: str, verb: str, options: Mapping[str, bool | str], *, last: bool = True) -> dict[str, Any]:
    """Begin it, or find that it runs already, and stay until its end; Ctrl-C leaves it running. Its failure is ours."""
    begun = session.client.command(name, verb, options, session.node)
    where, number = begun["node"], begun["work"]["number"]
    with Progress(session, name, verb) as progress:
        work = watched(lambda: session.client.work(name, where)["work"], number, progress)
        if work["state"] == "failed":
            raise Failure(work["message"], work["code"])
        if last:
            progress.finish(work["code"], work["message"], work["result"])
        return work


def watched(look: Callable[[], dict[str, Any] | None], number: int, progress: Progress) -> dict[str, Any]:
    """Until it is not running any more."""
    while True:
        work = look()
        if work is None or work["number"] != number:
            raise Failure("hactld was restarted and does not know what became of it; look at 'hactl status'", exit_codes.FAILED)
        if work["state"] != "running":
            return work
        progress.show(work["progress"])
        time.sleep(LOOK_S)

"""`hactl lab`: two nodes (or three), a client and a witness on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import click

from orchestrator.hactl.output import columns, print_json, say
from orchestrator.hactl.session import Failure, Session, session_options
from orchestrator.lab import LANS, NODES, Lab
from orchestrator.lab.lab import DEFAULT_NAME
from orchestrator.units import parse_size_bytes, show_bytes
from rfs import exit_codes

node_argument = click.argument("node", type=click.Choice(NODES))


@click.group()
@click.option("--name", envvar="LOCKSTEP_LAB", default=DEFAULT_NAME, show_default=True, help="Which lab, where several are built.")
@click.pass_context
def lab(context: click.Context, name: str) -> None:
    """Two nodes or three, a client and a witness on this machine, out of namespaces."""
    context.meta["lab"] = name


def the_lab() -> Lab:
    """The lab that was named."""
    return Lab(str(click.get_current_context().meta["lab"]))


def size_option(_: click.Context, __: click.Parameter, value: str) -> int:
    """Bytes in `4GiB`."""
    try:
        return parse_size_bytes(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@lab.command()
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where the nodes' disks are made (default /var/tmp).")
@click.option("--disk-size", metavar="SIZE", callback=size_option, default="4GiB", show_default=True, help="Of each disk.")
@click.option("--nodes", type=click.IntRange(2, 3), default=2, show_default=True, help="How many servers; with 3 there is a node3.")
@session_options
def up(session: Session, directory: Path | None, disk_size: int, nodes: int) -> None:
    """Build the lab anew and boot all its nodes."""
    Lab(str(click.get_current_context().meta["lab"]), directory=directory, disk_size_bytes=disk_size, nodes=nodes).up()
    show(session)


@lab.command()
@session_options
def down(_: Session) -> None:
    """Remove the lab and every trace of it; may be repeated."""
    the_lab().down()


@lab.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@node_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(node: str, command: tuple[str, ...]) -> None:
    """Run a command on a node: hactl lab exec node1 -- CMD… Its exit code is ours."""
    words = the_lab().command(node, command[1:] if command[0] == "--" else command)
    os.execvp(words[0], words)


@lab.command()
@node_argument
def kill(node: str) -> None:
    """Pull a node's power: its whole process tree at once."""
    the_lab().kill(node)


@lab.command()
@node_argument
def boot(node: str) -> None:
    """Power a node on again, with the disk as it was left."""
    the_lab().boot(node)


@lab.command()
@node_argument
def freeze(node: str) -> None:
    """Stop every process of a node where it stands."""
    the_lab().freeze(node)


@lab.command()
@node_argument
def thaw(node: str) -> None:
    """Let a frozen node go on."""
    the_lab().thaw(node)


@lab.command()
@node_argument
@click.argument("lan", type=click.Choice(LANS))
@click.option("--one-way", type=click.Choice(["in", "out"]), help="Only what goes to the node, or only what it sends.")
def cut(node: str, lan: str, one_way: str | None) -> None:
    """Cut a node off from a network, silently."""
    the_lab().cut(node, lan, "in" if one_way == "in" else "out" if one_way == "out" else None)


@lab.command()
@click.argument("node", type=click.Choice(NODES), required=False)
def heal(node: str | None) -> None:
    """Mend all cables, or those of one node."""
    the_lab().heal(node)


@lab.command()
@session_options
def status(session: Session) -> None:
    """Which nodes run and which cables are cut."""
    show(session)


@lab.command()
@click.argument("names", metavar="[SCENARIO...]", nargs=-1)
@click.option("--list", "catalogue", is_flag=True, help="The catalogue of faults, and where each row is proven.")
@click.option(
    "--random", "faults", type=click.IntRange(1), metavar="N", help="A series of N random faults, each followed by peace and the oracle."
)
@click.option("--seed", type=click.IntRange(0), help="Of the random series (default: from the clock; it is shown).")
@click.option("--keep", is_flag=True, help="Leave the lab up at the end.")
@click.option(
    "--evidence", type=click.Path(path_type=Path, file_okay=False), help="Where what failed leaves its evidence (default /var/tmp)."
)
@session_options
def run(
    session: Session, names: tuple[str, ...], catalogue: bool, faults: int | None, seed: int | None, keep: bool, evidence: Path | None
) -> None:
    """Play scenarios (`all`: every one) in a lab of their own and ask the oracle; without a name: list them."""
    from orchestrator.hactl import lab_scenarios

    lab_name = f"{click.get_current_context().meta['lab']}-run"  # never the lab that somebody works in
    if catalogue:
        lab_scenarios.show_catalogue(session)
    elif not names and faults is None:
        lab_scenarios.show_scenarios(session)
    elif not lab_scenarios.play(session, lab_name, lab_scenarios.chosen(names, faults, seed), keep=keep, evidence=evidence):
        raise Failure("the oracle found something wrong; the evidence lies where the scenario's line says", exit_codes.FAILED)


def show(session: Session) -> None:
    """The lab's status."""
    document = the_lab().status()
    if session.format in ("json", "jsonl"):
        print_json(document, one_line=session.format == "jsonl")
        return
    rows = []
    for node in document["nodes"]:
        addresses = " ".join(f"{lan}={address}" for lan, address in node["addresses"].items())
        cuts = " ".join(f"{lan}:{direction}" for lan, direction in node["cuts"].items()) or "-"
        rows.append((node["node"], node["power"], addresses, cuts, show_bytes(node["disk_used_bytes"]), str(node["init_pid"] or "-")))
    for line in columns(("NODE", "POWER", "ADDRESSES", "CUT", "DISK", "INIT"), rows):
        say(line)

"""The manual pages, made of the commands themselves: what stands in a page is what the parser takes.

    python -m orchestrator.manual DIRECTORY      man1, man5 and man8 below it (script/man, and script/bootstrap into .venv/share/man)

hactl(1) has the common commands, each group a page of its own; rfsmount(8) and hactld(8) come from their parsers, cluster.toml(5) and
module.toml(5) from the models that read the files.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import click

from orchestrator import config_schema
from orchestrator.api.index import release
from orchestrator.daemon import parser as hactld_parser
from orchestrator.exit_codes import CHECK, INTERRUPTED
from orchestrator.hactl.cli import COMMANDS, every_command, hactl
from rfs import exit_codes
from rfs.cli import parser as rfsmount_parser

SEE = {
    "hactl": "rfsmount(8), hactld(8), cluster.toml(5), module.toml(5)",
    "rfsmount": "hactl(1), hactld(8)",
    "hactld": "hactl(1), rfsmount(8), cluster.toml(5)",
}
FILES = (
    ("/etc/lockstep/cluster.toml", "the cluster: its nodes, its witness, who may what"),
    ("/etc/lockstep/modules/NAME.toml", "a module; its scripts are beside it in NAME/"),
    ("/etc/lockstep/keys/", "this node's key and its peers'"),
    ("/run/lockstep/hactld.sock", "where hactl finds hactld"),
    ("/var/log/lockstep/", "hactld.log, history.jsonl, and what services and scripts print"),
    ("/var/lib/lockstep/", "what must survive a boot"),
)
ENVIRONMENT = (
    ("HACTL_SOCKET", "instead of /run/lockstep/hactld.sock"),
    ("HACTL_NODE", "this node's name, where it is not the host's"),
    ("NO_COLOR", "no colours, whatever it holds"),
)


# ---- roff ----------------------------------------------------------------------------------------------------------------


def escaped(text: str) -> str:
    """As it stands."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def paragraph(text: str) -> list[str]:
    """One, or several where an empty line is between them; after `\\b` lines stay as they are."""
    lines: list[str] = []
    for part in re.split(r"\n\s*\n", text.strip()):
        kept = part.lstrip().startswith("\b")
        rows = [row.strip() for row in part.replace("\b", "").strip().splitlines()]
        lines += [".PP", *([".nf", *(escaped(row) for row in rows), ".fi"] if kept else [escaped(" ".join(rows))])]
    return lines[1:] if lines else []


def section(title: str) -> str:
    """A heading."""
    return f".SH {escaped(title.upper())}"


def item(term: str, text: str) -> list[str]:
    """A word in bold, and what it means."""
    return [".TP", f".B {escaped(term)}", *(paragraph(text) or ["\\&"])]


def head(name: str, number: int, short: str) -> list[str]:
    """Title and NAME."""
    title = f'.TH "{escaped(name.upper())}" "{number}" "" "Lockstep {release()}" "Lockstep"'
    return [title, section("name"), f"{escaped(name)} \\- {escaped(short)}"]


def page(lines: Sequence[str]) -> str:
    """The file."""
    return "\n".join(lines) + "\n"


# ---- hactl ---------------------------------------------------------------------------------------------------------------

COMMON = {option for parameter in hactl.params for option in parameter.opts}


def options_of(command: click.Command, *, common: bool = False) -> Iterator[list[str]]:
    """A command's own options; the common ones stand once, in hactl(1)."""
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden and (common or not COMMON & set(parameter.opts)):
            value = "" if parameter.is_flag else f" {parameter.metavar or parameter.make_metavar(click.Context(command))}"
            default = f" Default: {parameter.default}." if parameter.show_default and parameter.default is not None else ""
            yield item(", ".join((*parameter.opts, *parameter.secondary_opts)) + value, (parameter.help or "") + default)


def usage_of(words: Sequence[str], command: click.Command) -> str:
    """`hactl swap [OPTIONS] [MODULE]`."""
    return " ".join((*words, *command.collect_usage_pieces(click.Context(command, info_name=words[-1]))))


def command_section(words: Sequence[str], command: click.Command) -> list[str]:
    """A command under a heading of its own."""
    lines = [f'.SS "{escaped(usage_of(words, command))}"', *paragraph(command.help or "")]
    for option in options_of(command):
        lines += option
    return lines


def hactl_page() -> str:
    """hactl(1)."""
    lines = head("hactl", 1, "look at a Lockstep cluster and move its modules")
    lines += [section("synopsis"), ".B hactl", escaped("[OPTIONS] [COMMAND] [ARGS]...")]
    lines += [section("description"), *paragraph(hactl.help or ""), section("options of every command")]
    for option in options_of(hactl, common=True):
        lines += option
    found = dict(every_command())
    for title, names in COMMANDS.items():
        lines.append(section(title))
        for name, (_, _, short) in names.items():
            command = found["hactl", name]
            if isinstance(command, click.Group):
                lines += item(f"hactl {name}", f"{short}: see hactl-{name}(1)")
            else:
                lines += command_section(("hactl", name), command)
    return page([*lines, *ends("hactl")])


def group_page(name: str) -> str:
    """hactl-NAME(1)."""
    found = dict(every_command())
    group = found["hactl", name]
    lines = head(f"hactl-{name}", 1, (group.help or name).partition("\n")[0].rstrip("."))
    lines += [section("synopsis"), f".B {escaped(f'hactl {name}')}", escaped("COMMAND [ARGS]..."), section("description")]
    lines += [*paragraph(group.help or ""), ".PP", "The options of every command are in hactl(1).", section("options")]
    for option in options_of(group):
        lines += option
    lines.append(section("commands"))
    for words, command in found.items():
        if words[:2] == ("hactl", name) and len(words) > 2 and not isinstance(command, click.Group):
            lines += command_section(words, command)
    return page([*lines, *ends("hactl")])


def ends(name: str) -> list[str]:
    """What every page has at its end."""
    lines = [section("exit status")]
    for code, meaning in exit_codes.MEANINGS.items():
        lines += item(str(code), f"{meaning}.")
    if name == "hactl":
        checks = ", ".join(f"{code} {verdict}" for verdict, code in CHECK.items())
        lines += [*item(str(INTERRUPTED), "interrupted."), ".PP", escaped(f"status --check: {checks}. Any other code is a failure.")]
    lines.append(section("files"))
    for path, what in FILES:
        lines += item(path, what)
    lines.append(section("environment"))
    for variable, what in ENVIRONMENT:
        lines += item(variable, what)
    return [*lines, section("see also"), escaped(SEE[name])]


# ---- rfsmount and hactld -----------------------------------------------------------------------------------------------------


def arguments_of(parser: argparse.ArgumentParser) -> Iterator[list[str]]:
    """Everything that it takes, but for its verbs and --help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction | argparse._HelpAction) or action.help == argparse.SUPPRESS:
            continue
        choices = "|".join(map(str, action.choices)) if action.choices else ""
        value = "" if action.nargs == 0 else f" {action.metavar or choices or action.dest.upper()}"
        term = ", ".join(action.option_strings) + value if action.option_strings else str(action.metavar or choices or action.dest)
        default = f" Default: {action.default}." if action.default not in (None, False, "", [], argparse.SUPPRESS) else ""
        help_text = (action.help or "").replace("%(default)s", str(action.default))
        yield item(term.strip(), help_text + ("." if help_text and default else "") + (default if "default" not in help_text else ""))


def verbs_of(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """Its verbs."""
    found = next((action for action in parser._actions if isinstance(action, argparse._SubParsersAction)), None)
    return found.choices if found is not None else {}


def parser_page(name: str, parser: argparse.ArgumentParser, short: str) -> str:
    """NAME(8)."""
    lines = [*head(name, 8, short), section("synopsis"), f".B {name}", escaped(parser.format_usage().partition(name)[2].strip())]
    lines += [section("description"), *paragraph(parser.description or short)]
    own = list(arguments_of(parser))
    lines += [section("options")] if own else []
    for option in own:
        lines += option
    lines += list(verb_sections(name, parser))
    return page([*lines, *ends(name)])


def verb_sections(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Each verb, and the verbs of a verb."""
    helps = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help for choice in action._choices_actions}
    for verb, inner in verbs_of(parser).items():
        yield f'.SH "{escaped(f"{name} {verb}".upper())}"'
        yield from paragraph(inner.description or helps.get(verb) or verb)
        for option in arguments_of(inner):
            yield from option
        yield from verb_sections(f"{name} {verb}", inner)


# ---- the files -----------------------------------------------------------------------------------------------------------------


def keys_of(kind: str) -> Iterator[list[str]]:
    """Every key with its word, by the table that it stands in; those of one kind of checker under its name."""
    whole = config_schema.KINDS[kind].model_json_schema()
    keys = list(config_schema.keys_of(kind, whole))
    tables = {key.place: key for key in keys if key.table}
    for (table, checker), found in groupby((key for key in keys if not key.table), lambda key: (key.place.rpartition(".")[0], key.kind)):
        if table != kind:
            name = table.partition(".")[2]
            title = f"[[{name}]]" if tables[table].repeated else f"[{name}]"
            yield [f'.SS "{escaped(title)}{escaped(f" of type {checker}") if checker else ""}"', *paragraph(tables[table].words)]
        for key in found:
            default = config_schema.default_of(key.schema.get("default"))
            more = " Must be there." if key.required else f" Default: {default}." if default else ""
            text = f"{key.words} {config_schema.type_of(whole, key.schema).capitalize()}.{more}"
            yield item(key.place.rpartition(".")[2], f"{text} Another value: {config_schema.change_of(key.place)}.".replace("`", ""))


def file_page(name: str, kind: str, short: str) -> str:
    """NAME(5)."""
    lines = [*head(name, 5, short), section("description")]
    lines += paragraph(
        "TOML. Durations are written 500ms, 3s, 5m, 24h; sizes 64KiB, 1GiB. An unknown key is a mistake. 'hactl config check' lists "
        "everything that is wrong with its line; 'hactl config show' shows the file as it is understood, with all defaults. Of each key: "
        "what it means, what may be written, and what it takes to apply another value with 'hactl config apply'."
    )
    lines.append(section("keys"))
    for key in keys_of(kind):
        lines += key
    return page([*lines, section("see also"), escaped("hactl(1), hactl-config(1), hactld(8)")])


# ---- all of them --------------------------------------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """By file name below the directory."""
    groups = [words[1] for words, command in every_command() if len(words) == 2 and isinstance(command, click.Group)]
    return {
        "man1/hactl.1": hactl_page(),
        **{f"man1/hactl-{name}.1": group_page(name) for name in groups},
        "man5/cluster.toml.5": file_page("cluster.toml", "cluster", "the nodes of a Lockstep cluster"),
        "man5/module.toml.5": file_page("module.toml", "module", "a module of a Lockstep cluster"),
        "man8/rfsmount.8": parser_page("rfsmount", rfsmount_parser(), "keep directories identical with a peer"),
        "man8/hactld.8": parser_page("hactld", hactld_parser(), "the orchestrator of a Lockstep node"),
    }


def main(arguments: Sequence[str]) -> int:
    """Write them."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m orchestrator.manual DIRECTORY", file=sys.stderr)
        return exit_codes.USAGE
    for name, text in pages().items():
        path = Path(arguments[0]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return exit_codes.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

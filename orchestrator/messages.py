"""Every word that Lockstep shows and somebody may not know: states, codes, warnings, verdicts, roles, exit codes, kinds of events.

`hactl explain WORD` reads it, and `python -m orchestrator.messages > docs/messages.md` writes the page. A test looks into the source for
words that are shown and are not here. Texts only: nothing is imported, so it costs nothing to load.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Message(NamedTuple):
    """One word: what kind it is of, what it means, and what to do (empty: nothing)."""

    name: str
    kind: str
    text: str
    next: str = ""


KINDS: Final = {
    "state": "States of a module on a node (`ROLE` in the table)",
    "readiness": "Readiness: the glyph before the role",
    "verdict": "Verdicts: one word for a module, and for the cluster",
    "failover": "Automatic failover: the word in the head of the table",
    "shown": "What stands under DATA",
    "data": "What rfsmount says of a copy",
    "link": "What rfsmount says of the link to the other copy",
    "code": "Codes: why a copy is what it is (`code` in the JSON, the reason below the table)",
    "warning": "Warnings: on top of the status, each with the command that fixes it",
    "witness": "What the witness is",
    "network": "Networks",
    "role": "Roles: who may what",
    "exit": "Exit codes",
    "event": "Kinds of events (`hactl history --kind`, `hactl events --filter kind=`)",
    "topic": "Topics",
}

_STATES = (
    Message("STOP", "state", "The module is stopped here, by somebody's word.", "hactl start MODULE"),
    Message(
        "WAIT",
        "state",
        "The module wants to run and may not yet: it waits for the other node, a grant or a repair. The reason says for what.",
        "hactl why MODULE",
    ),
    Message(
        "ALONE",
        "state",
        "This node serves, and there is no second copy that is up to date.",
        "bring the other node back; hactl status -H all",
    ),
    Message("PRIM", "state", "This node serves, and the other one has the same data."),
    Message(
        "SECOND", "state", "This node keeps a copy and can take over when it is Ready; while it is Transient its copy is being filled."
    ),
    Message("UP", "state", "A light module (services only) runs here."),
    Message("UNKNOWN", "state", "Nothing is heard of that node.", "look at it: is it up, is hactld running there, do the networks carry"),
)
_READINESS = (
    Message("Ready", "readiness", "Stable: it does what its role says."),
    Message("Transient", "readiness", "On the way to it, or being resynced."),
    Message("NotReady", "readiness", "Stopped, blocked or failed; the reason says why.", "hactl why MODULE"),
)
_VERDICTS = (
    Message("redundant", "verdict", "One node serves and another one can take over at once. `status --check` exits with 0."),
    Message("resyncing", "verdict", "One node serves, the other one's copy is being made equal. `--check`: 13.", "hactl resync MODULE"),
    Message("degraded", "verdict", "One node serves and nothing could take over. `--check`: 10.", "hactl why MODULE"),
    Message("down", "verdict", "Nobody serves. `--check`: 11.", "hactl start MODULE -H all; hactl why MODULE"),
    Message(
        "diverged",
        "verdict",
        "Both copies were written apart from each other, and neither contains the other. `--check`: 12.",
        "hactl resolve MODULE --keep NODE",
    ),
)
_FAILOVER = (
    Message("armed", "failover", "When the serving node fails, the other one takes over by itself."),
    Message("paused", "failover", "An administrator has switched it off: the role moves by a word only.", "hactl resume MODULE"),
    Message(
        "blocked",
        "failover",
        "It would not happen now: no ping address answers, the witness is away, or the policy forbids it.",
        "the reason stands beside it",
    ),
)
_SHOWN = (
    Message("up to date", "shown", "Both nodes have each other on the link, and the same generation of the data."),
    Message(
        "current", "shown", "The copy that is served, while there is no other one beside it; `ahead`: what the other one lacks at most."
    ),
    Message(
        "unconfirmed",
        "shown",
        "The copy was whole when it was last seen together with the other one; whether that went on without it is not "
        "known until they meet.",
        "hactl why MODULE",
    ),
    Message(
        "stale", "shown", "The other node has gone on without this copy, since the time that is shown.", "it is filled when the nodes meet"
    ),
    Message("sync", "shown", "The copy is being made equal: how far, and about how long it takes yet.", "hactl resync MODULE"),
    Message(
        "incomplete",
        "shown",
        "The copy stands between two moments: a resync into it was cut off.",
        "let the nodes meet: the resync goes on",
    ),
)
_DATA = (
    Message("UPTODATE", "data", "This copy has everything that was acknowledged, as far as its node knows."),
    Message("CONSISTENT", "data", "UPTODATE on record, and the other node was not met since this rfsmount started."),
    Message("OUTDATED", "data", "The other node has gone on without this copy.", "let the nodes meet"),
    Message("INCONSISTENT", "data", "A resync into this copy was cut off.", "let the nodes meet; 'hactl explain NO_SNAPSHOT'"),
    Message("FAILED", "data", "This copy's disk has failed.", "repair the disk, then start the module here again"),
)
_LINKS = (
    Message("paired", "link", "Both copies are equal and every change goes to both."),
    Message("resyncing", "link", "The secondary's copy is being made equal, while changes go to both."),
    Message("connecting", "link", "The other rfsmount does not answer, or is not there."),
    Message("handshaking", "link", "The two compare what they know."),
    Message(
        "frozen",
        "link",
        "A primary has lost its peer: writes wait until it is back, or until it is allowed to go on alone.",
        "hactl why MODULE",
    ),
    Message("alone", "link", "A primary serves without the other copy."),
    Message("diverged", "link", "See DIVERGED.", "hactl explain DIVERGED"),
    Message("refused", "link", "The two do not pair; the code says why."),
    Message("fenced", "link", "This node had the role and has lost it: the other one owns the data."),
)
_CODES = (
    Message("PAIRED", "code", "Both copies are equal."),
    Message("PAIR", "code", "The decision of a handshake: the two go on by themselves."),
    Message("RESYNCING", "code", "The secondary's copy is being made equal.", "hactl resync MODULE"),
    Message("ALONE", "code", "It serves without a second copy up to date.", "bring the other node back"),
    Message("PEER_LEFT", "code", "The other node has left in order: this one serves, or may be promoted."),
    Message("FROZEN", "code", "Writes wait: this primary has lost its peer and has no permission yet to go on alone.", "hactl why MODULE"),
    Message("CONNECTING", "code", "The peer that was met in this run does not answer now."),
    Message("HANDSHAKING", "code", "The nodes compare their records."),
    Message("WAITING_FOR_PEER", "code", "The peer was not met since this rfsmount started.", "start the module on the other node"),
    Message("FENCED", "code", "The other node owns the data; this one comes back as secondary by itself."),
    Message("FAILED", "code", "This copy's disk has failed.", "repair the disk, then start the module here again"),
    Message(
        "NEEDS_REPLACE_DATA",
        "code",
        "This node is to take the other one's data and has files of its own in the directories.",
        "hactl second MODULE --fullsync (its files are moved to kept/), or correct the directories",
    ),
    Message("NEWER_DATA", "code", "The other node has newer data, so this one does not serve.", "let it take them: hactl start MODULE"),
    Message(
        "DIRECTORIES_DIFFER",
        "code",
        "The two nodes mirror different numbers of directories.",
        "make the configuration equal: hactl config diff",
    ),
    Message(
        "PATTERNS_DIFFER",
        "code",
        "The two nodes leave out different names, or refuse different files.",
        "make `exclude`, `only`, `devices` and `setuid` equal on both",
    ),
    Message("REFUSED", "code", "The other node refused the session; the reason has its words."),
    Message(
        "NOT_PAIRED",
        "code",
        "No key of the other node is known here: they were never introduced, or it was forgotten.",
        "hactl cluster init here, hactl cluster join there",
    ),
    Message(
        "NO_SOURCE",
        "code",
        "No copy may be copied over the other: neither was told that it has the data, or neither is whole.",
        "say which node has the data: hactl prim MODULE there; or repair the disk that is named",
    ),
    Message(
        "UNRELATED",
        "code",
        "These two are not a pair: another cluster, another module, or a copied state directory.",
        "correct addresses and names; a copied state directory is to be removed",
    ),
    Message(
        "EMPTY_SOURCE",
        "code",
        "An empty node would wipe a filled one: probably a file system is not mounted.",
        "mount it, then start again",
    ),
    Message(
        "DIVERGED",
        "code",
        "Both nodes have acknowledged data that the other lacks: each has served while it did not see the other one, or a "
        "backup was put back. Nothing was overwritten; both copies are as they were.",
        "hactl resolve MODULE --keep NODE --dry-run shows what differs; without --dry-run it asks, saves it and makes both equal",
    ),
)
_WARNINGS = (
    Message(
        "RESOURCE_DOWN",
        "warning",
        "A checker finds that something is not as it should be; its text says what was seen.",
        "hactl why MODULE says which rule follows from it",
    ),
    Message(
        "MODULE_OPEN",
        "warning",
        "The module is open for maintenance: its directories are plain, nothing starts, nothing protects this copy.",
        "hactl module close MODULE",
    ),
    Message(
        "CONFIG_NOT_APPLIED",
        "warning",
        "The configuration's files differ from what is applied: hactld, a restart and a boot go on with what is applied.",
        "hactl config diff; then hactl config apply, or hactl config rollback",
    ),
    Message(
        "CONFIG_DIFFERS",
        "warning",
        "The nodes have applied different configurations, or one cannot take over the other's yet; then the fix says what it waits for.",
        "hactl config diff --peer; then hactl config apply --force-from-here on the node whose files are right",
    ),
    Message(
        "CONFIG_IN_DOUBT",
        "warning",
        "This node has promised to apply a configuration, and the node on which the command ran, which alone knows what became of it, is "
        "silent.",
        "start hactld there; or hactl config apply --without-peer here, if it is gone for good",
    ),
    Message("DIVERGED", "warning", "See the code of this name.", "hactl resolve MODULE --keep NODE"),
    Message(
        "SERVICES_FAILED",
        "warning",
        "The services failed more often than `max_restarts` allows; the node holds the data and does not serve.",
        "hactl logs MODULE; then hactl restart MODULE",
    ),
    Message(
        "FIRST_START",
        "warning",
        "The module was started, and no node is known to have its data: nothing on disk says it, so a person has to.",
        "hactl start MODULE shows what both have, and asks",
    ),
    Message("CHECKERS_OFF", "warning", "What the checkers find on that node is noted and not acted upon.", "hactl checkers on MODULE"),
    Message(
        "WITNESS",
        "warning",
        "The witness does not answer, or would not grant now, or one node asks it and the other does not. Nothing is "
        "lost; the next failure would find nobody to ask.",
        "hactl witness status on each node",
    ),
    Message(
        "NETWORK_SILENT", "warning", "Nothing arrives from the other node on that network.", "look at the cable, the switch, the firewall"
    ),
    Message(
        "NETWORK_DEAF",
        "warning",
        "The other node does not hear this one on that network: it carries one way only.",
        "look at the cable, the switch, the firewall",
    ),
    Message(
        "INSECURE",
        "warning",
        "The links between the nodes are neither authenticated nor encrypted.",
        "hactl cluster init, then start hactld without --insecure",
    ),
    Message("NOT_PAIRED", "warning", "No key of a peer is known here.", "hactl cluster init here, hactl cluster join there"),
    Message("KEY_EXPIRES", "warning", "A node's key ends soon.", "hactl cluster rotate-keys on that node"),
    Message("KEYS_UNREADABLE", "warning", "The keys beside cluster.toml cannot be read.", "as the warning says"),
    Message(
        "NO_SNAPSHOT",
        "warning",
        "This copy is inside a resync, and what it was before is not kept: only its peer makes it whole.",
        "keep the other node running until the resync ends",
    ),
    Message(
        "RIGHTS",
        "warning",
        "rfsmount could not give up rights that it has no use for: the kernel has no filters of system calls, or a container forbids it.",
        "nothing is wrong with the data; a kernel with seccomp, or a container that lets its root drop capabilities",
    ),
    Message(
        "MUCH_REMOVED",
        "warning",
        "A resync took more files away from this copy than it left: they are set aside, and nothing of them is gone.",
        "look whether the source's file system was mounted; hactl discard MODULE -H NODE when they are to go",
    ),
)
_WITNESS = (
    Message("ok", "witness", "It answers, and would grant."),
    Message("not-asked", "witness", "Nothing was asked of it yet."),
    Message("unreachable", "witness", "None of its members answers: no node goes on alone.", "hactl witness status; look at the etcd"),
    Message("empty", "witness", "It has lost its memory and grants nothing.", "rfsmount witness arm on the primary that serves"),
    Message("unknown-name", "witness", "It names a generation of which this node knows nothing: the other node has gone on."),
)
_NETWORKS = (
    Message("ok", "network", "Heartbeats arrive both ways."),
    Message("silent", "network", "Nothing arrives from the other node."),
    Message("deaf", "network", "The other node does not hear this one."),
)
_ROLES = (
    Message(
        "viewer", "role", "May look: status, events, logs, why, data. By the group lockstep-viewer, or `[access] viewer` in cluster.toml."
    ),
    Message(
        "operator",
        "role",
        "May also move modules and switch failover and checkers: nothing that gives data up. By the group lockstep, or "
        "`[access] operator`.",
    ),
    Message(
        "admin",
        "role",
        "May also change the configuration and the keys, and decide whose data stays. root; by the group lockstep-admin, or "
        "`[access] admin`.",
    ),
)
_EXITS = (
    Message("0", "exit", "Done. `status --check`: redundant."),
    Message("1", "exit", "Failed; `verify`: the copies differ."),
    Message("2", "exit", "The command is not written right.", "hactl COMMAND --help"),
    Message("3", "exit", "The configuration is not valid.", "hactl config check"),
    Message("4", "exit", "hactld (or rfsmount) is not reachable on this node.", "systemctl start hactld"),
    Message("5", "exit", "The other node is not reachable; what is shown is partial."),
    Message("6", "exit", "Refused for safety: it could lose data, or would come to nothing.", "the sentence says what would allow it"),
    Message("7", "exit", "The time was over before it was reached.", "hactl status"),
    Message("8", "exit", "Not permitted: your role does not cover it.", "the sentence says who may"),
    Message("10", "exit", "`status --check`: degraded."),
    Message("11", "exit", "`status --check`: down."),
    Message("12", "exit", "`status --check`: diverged."),
    Message("13", "exit", "`status --check`: resyncing."),
    Message("130", "exit", "Interrupted by Ctrl-C."),
)
_EVENTS = tuple(
    Message(name, "event", text)
    for name, text in {
        "command": "Somebody asked for something; `who`, and what became of it.",
        "bug": "A mistake of hactld's own ended a request, a stream or a work, and nothing else; type, message and place are for a report.",
        "transition": "The state of a module changed.",
        "takeover": "This node takes the role because the other one is gone; `-v` shows what that rests on.",
        "grant": "A primary may go on without the other copy.",
        "fence": "A primary is stopped at once, because the other node owns the data.",
        "failback": "The role goes back to the node that the configuration prefers.",
        "swap": "A planned exchange of the roles.",
        "prim": "A word to be primary, and what it met.",
        "stopstart": "A stop that is followed by a start.",
        "switch": "Failover, checkers or boot were switched.",
        "serving": "The services are up.",
        "services": "The services could not be started, or were given up.",
        "service-died": "A service ended by itself.",
        "service-start": "A service of the command kind starts.",
        "service-stop": "A service of the command kind stops.",
        "service-kill": "What a service left behind is frozen and killed.",
        "service-stuck": "Processes of a service do not end even by SIGKILL.",
        "unit": "Something about a systemd unit.",
        "unit-start": "A unit is started.",
        "unit-stop": "A unit is stopped.",
        "unit-boot": "A unit that would start at boot by itself.",
        "checker": "A checker, a rule or a script asked for something, and what became of it.",
        "checked": "A resource has another state, in the words of its checker.",
        "rule": "A failover rule held, and what follows from it; `-v` shows what that rests on.",
        "config": "The configuration: what was applied, and by whom.",
        "role-lost": "rfsmount lost the role without an order.",
        "rfs-start": "rfsmount is started.",
        "rfs-add": "A directory of the configuration was added to a rfsmount that runs, or could not be yet.",
        "rfs-stop": "rfsmount did not stop as it should.",
        "rfs-gone": "rfsmount ended.",
        "rfs-deaf": "rfsmount lived and said nothing; it was killed.",
        "rfs-abort": "A mount was given up, because processes hung in it.",
        "rfs-status": "rfsmount could not be asked.",
        "address-lost": "The service address could not be kept.",
        "vip-add": "The service address is put up.",
        "vip-del": "The service address is taken down.",
        "vip-announce": "The address is announced to the neighbours.",
        "vip-source": "Routes whose source is the service address.",
        "vip-reset": "Connections of before are broken.",
        "failed": "An order could not be carried out.",
        "paused": "hactld stood still for a while (a suspended machine, a stopped process).",
        "script": "A script begins, ends, or fails.",
        "script-says": "A line of a script's.",
        "script-error": "A line of a script's, about something that went wrong.",
        "work": "Long work on the data (verify, repair, resync, diff, resolve, discard) has ended.",
        "hactld": "hactld started, ended, or could not do something for itself.",
        "logs": "Logs were cut to their bound.",
        "heartbeat": "Something about heartbeats.",
        "peer": "Something about calls between the nodes.",
        "keys": "Something about keys.",
        "ping": "The ping addresses.",
        "statefile": "What hactld remembers on disk.",
        "api": "Something about the local socket.",
        "health": "Something about the health address.",
    }.items()
)
_TOPICS = (
    Message("generation", "topic", "A name of the data's history: it changes whenever a node goes on without the other one. Two "
            "copies are the same "
            "history only when it is equal on both."),
    Message("term", "topic", "A number that grows with every change of the primary."),
    Message("marks", "topic", "Where a copy may differ from the other one, kept on disk. A resync looks there and nowhere else."),
    Message("kept", "topic", "What was put aside before it was overwritten: STATEDIR/kept/, by time. Nothing there is ever "
            "removed by Lockstep.",
            "hactl data MODULE lists it"),
    Message("swap", "topic", "A planned exchange of the roles: nothing is lost. `prim --force` is the other thing: it may lose "
            "what this node lacks.",
            "hactl swap MODULE --dry-run"),
    Message("split-brain", "topic", "Both nodes serve at the same time. A witness, or the policy consistency, excludes it; "
            "without them it is possible "
            "when all networks between the nodes are cut at once, and ends in DIVERGED.", "hactl explain DIVERGED"),
    Message("witness", "topic", "An etcd that only lets one of two nodes go on alone.", "hactl witness status"),
    Message("first-start", "topic", "Neither node knows which one has the data. Say it once: 'hactl prim MODULE' on the node "
            "whose files are right; the "
            "other one takes them with 'hactl start MODULE'. Later no word is needed."),
)  # fmt: skip

MESSAGES: Final[tuple[Message, ...]] = (
    *_STATES, *_READINESS, *_VERDICTS, *_FAILOVER, *_SHOWN, *_DATA, *_LINKS, *_CODES, *_WARNINGS, *_WITNESS, *_NETWORKS, *_ROLES, *_EXITS,
    *_EVENTS, *_TOPICS,
)  # fmt: skip


def about(word: str) -> list[Message]:
    """All that is known by this word, whatever the case and however it is joined."""

    def plain(name: str) -> str:
        return name.lower().replace("_", "-").replace(" ", "-")

    return [message for message in MESSAGES if plain(message.name) == plain(word)]


def page() -> str:
    """docs/messages.md."""
    lines = [
        "# Every word that is shown",
        "",
        "Written by `python -m orchestrator.messages` from `orchestrator/messages.py`; do not edit. `hactl explain WORD` shows the same.",
    ]
    for kind, title in KINDS.items():
        lines += ["", f"## {title}", "", "| word | meaning | what to do |", "|---|---|---|"]
        for message in MESSAGES:
            if message.kind == kind:
                lines.append(f"| `{message.name}` | {message.text} | {message.next or '–'} |".replace("\\|", "/"))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")

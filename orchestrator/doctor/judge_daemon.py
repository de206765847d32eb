"""Judgements about hactld, its configuration, its keys and its history. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Any, Final

from orchestrator.doctor.finding import Facts, Said, bad, configured, node_of, ok, part, running_process, unknown, warn

DAY_S: Final = 86400.0
REHEARSE_DAYS: Final = 90
RECENT_S: Final = 7 * DAY_S
KEY_SOON_S: Final = 30 * DAY_S
MOVES: Final = ("takeover", "failback")


def running(facts: Facts) -> Iterator[Said]:
    """hactld answers."""
    if part(facts, "process")["is_hactld"]:
        yield ok("hactld runs")
    else:
        yield bad("hactld does not run: nothing on this node is watched or moved", "systemctl start hactld")


def current(facts: Facts) -> Iterator[Said]:
    """It is the program that is installed."""
    if running_process(facts)["program_gone"]:
        fix = "systemctl restart hactld (modules stay as they are)"
        yield warn("hactld's program was replaced since it started: the old one runs on", fix)
    else:
        yield ok("hactld is the program that is installed")


def enabled(facts: Facts) -> Iterator[Said]:
    """It is started at boot."""
    yield from _enabled(facts, "hactld.service", "after a boot this node would not come back by itself")


def guard(facts: Facts) -> Iterator[Said]:
    """Directories are guarded before anything could write."""
    yield from _enabled(facts, "lockstep-guard.service", "after every boot both copies are compared whole")


def _enabled(facts: Facts, unit: str, otherwise: str) -> Iterator[Said]:
    found = part(facts, "units")
    state = found["states"].get(unit, "")
    if state in ("enabled", "enabled-runtime", "static", "alias"):
        yield ok(f"{unit} is started at boot")
    elif not found["systemd"]:
        yield unknown(f"this machine is not run by systemd: see to it that what {unit} does is done at boot")
    elif state in ("", "not-found"):
        source = "install the units of the package: docs/operator-guide.md, Install"
        yield bad(f"there is no {unit}: {otherwise}", source)
    else:
        yield bad(f"{unit} is {state}: {otherwise}", f"systemctl enable {unit}")


def host_name(facts: Facts) -> Iterator[Said]:
    """Who it is does not hang on a name service."""
    found, configuration = part(facts, "identity"), configured(facts)
    if node_of(facts) not in configuration["nodes"]:
        text = f"this machine is called {node_of(facts)}, which is no node of the cluster ({', '.join(configuration['nodes'])})"
        yield bad(text, "hostnamectl set-hostname NODE, or HACTL_NODE=NODE in hactld's unit")
    elif found["hostname"] != node_of(facts):
        yield ok(f"the host is called {found['hostname']}, and the node {node_of(facts)} by HACTL_NODE")
    else:
        yield ok(f"host and node are both called {node_of(facts)}")


def configuration(facts: Facts) -> Iterator[Said]:
    """It can be read."""
    found = part(facts, "configuration")
    if found["complaints"]:
        more = f" (and {len(found['complaints']) - 1} more)" if len(found["complaints"]) > 1 else ""
        yield bad(f"the configuration is not valid: {found['complaints'][0]}{more}", "hactl config check")
    else:
        yield ok("the configuration is valid")


def configuration_owner(facts: Facts) -> Iterator[Said]:
    """Who may write it may run anything as root."""
    loose = part(facts, "configuration")["loose"]
    for entry in loose[:5]:
        text = f"{entry['path']} can be changed by others than root (owner {entry['uid']}, mode {entry['mode']:o}), and is run as root"
        yield bad(text, f"chown root:root {quote(entry['path'])} && chmod go-w {quote(entry['path'])}")
    if not loose:
        yield ok("configuration and scripts are root's alone to write")


def scripts(facts: Facts) -> Iterator[Said]:
    """Each can be run."""
    found = part(facts, "configuration")["scripts"]
    broken = False
    for script in found:
        if not script["executable"]:
            broken = True
            yield bad(f"{script['path']} is not executable: it would fail when it is needed", f"chmod 755 {quote(script['path'])}")
        elif script["interpreter"] and not script["interpreter_found"]:
            broken = True
            text = f"{script['path']} wants {script['interpreter']}, which is not on this node"
            yield bad(text, f"install {script['interpreter']}, or correct the first line of {script['path']}")
    if not broken:
        yield ok(f"{len(found)} scripts can be run" if found else "there are no scripts")


def key(facts: Facts) -> Iterator[Said]:
    """There is one, and nobody else can read it."""
    found = part(facts, "keys")
    if found["insecure"]:
        yield warn("links between the nodes are not protected (--insecure)", "hactl cluster init, then start hactld without --insecure")
    elif found["trouble"]:
        yield bad(found["trouble"], f"chmod 700 {quote(found['path'])} && chmod 600 {quote(found['path'])}/*")
    elif not found["own"]:
        yield bad("this node has no key yet", "hactl cluster init here, or hactl cluster join if the other node shows a code")
    else:
        yield ok("the key is there, and root's alone to read")


def paired(facts: Facts) -> Iterator[Said]:
    """Every peer's key is known."""
    found = part(facts, "keys")
    if found["insecure"] or found["trouble"]:
        yield unknown("without a readable key nothing is paired")
        return
    unpaired = [peer for peer in part(facts, "configuration")["peers"] if not found["peers"].get(peer)]
    for peer in unpaired:
        yield bad(f"no key of {peer} is paired with this node", f"hactl cluster init --for {peer} here, hactl cluster join there")
    if not unpaired:
        yield ok("every peer is paired")


def key_age(facts: Facts) -> Iterator[Said]:
    """None runs out soon."""
    found = part(facts, "keys")
    if not found["left_s"]:
        return
    late = False
    for node, left_s in found["left_s"].items():
        if left_s < KEY_SOON_S:
            late = True
            when = "has expired" if left_s <= 0 else f"expires in {int(left_s // DAY_S)} days"
            yield warn(f"the certificate of {node} {when}", f"hactl cluster rotate-keys -H {node}")
    if not late:
        yield ok("no key expires soon")


def silence(facts: Facts) -> Iterator[Said]:
    """Heartbeats arrive, both ways, on every network."""
    status = _status(facts)
    wrong = False
    for peer in status["peers"]:
        for network, verdict in peer["networks"].items():
            if verdict != "ok":
                wrong = True
                what = f"nothing arrives from {peer['node']}" if verdict == "silent" else f"{peer['node']} does not hear this node"
                text = f"heartbeats on {network}: {what}"
                yield bad(text, f"let UDP port 5599 pass on {network} on both nodes; ip -s link: is the cable well?")
    if not wrong:
        yield ok("heartbeats arrive on every network, both ways")


def state(facts: Facts) -> Iterator[Said]:
    """What `status` warns of."""
    status = _status(facts)
    for warning in status["warnings"]:
        if warning["code"] in ("NOT_PAIRED", "KEY_EXPIRES", "KEYS_UNREADABLE", "INSECURE") or "network" in warning["text"]:
            continue  # has its own check
        yield warn(warning["text"], warning["fix"] or "hactl status")
    if status["verdict"] == "diverged":
        yield bad("the two copies have diverged", "hactl resolve, see docs/operator-guide.md, DIVERGED")
    elif not status["warnings"]:
        yield ok(f"status says {status['verdict']}")


def failover(facts: Facts) -> Iterator[Said]:
    """It would happen by itself."""
    found = _status(facts)["failover"]
    if found["state"] == "armed":
        yield ok("automatic failover is armed")
    else:
        fix = "hactl resume" if found["state"] == "paused" else "hactl why"
        yield warn(f"automatic failover is {found['state']}: {found['reason']}", fix)


def strangers(facts: Facts) -> Iterator[Said]:
    """Heartbeats and calls that were nobody's."""
    refused = _status(facts)["refused"]
    wrong = {kind: count for kind, count in refused.items() if kind.startswith(("wrong-key", "not-authentic", "no-key", "revoked"))}
    if wrong:
        told = ", ".join(f"{kind} {count} times" for kind, count in wrong.items())
        fix = "hactl cluster show on both nodes: do they show the same fingerprint?"
        yield warn(f"somebody without the peer's key knocked: {told}", fix)
    else:
        yield ok("nobody without a key knocked")


def script_failures(facts: Facts) -> Iterator[Said]:
    """In the last week."""
    running_process(facts)
    found = part(facts, "history")
    for entry in found["script_errors"][-3:]:
        yield warn(f"a script of {entry['module']} failed: {entry['text']}", f"hactl logs --runs {entry['module']}")
    if not found["script_errors"]:
        yield ok("no script failed in the last week")


def rehearsed(facts: Facts) -> Iterator[Said]:
    """A failover that nobody has ever tried is a hope."""
    running_process(facts)
    found = part(facts, "history")
    age_s, since_s = found["last_move_age_s"], found["oldest_age_s"]
    if age_s is not None and age_s <= REHEARSE_DAYS * DAY_S:
        yield ok(f"the role last moved {age_s / DAY_S:.0f} days ago")
    elif since_s > REHEARSE_DAYS * DAY_S:
        yield warn(f"the role has not moved for more than {REHEARSE_DAYS} days: nobody knows that it can", "hactl drill")
    else:
        yield ok("a rehearsal is not due yet (hactl drill)")


def _status(facts: Facts) -> Mapping[str, Any]:
    running_process(facts)
    return part(facts, "status")

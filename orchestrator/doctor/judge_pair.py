"""Judgements about two nodes together: what must be the same on both. Pure; which of the two comes first makes no difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from orchestrator.doctor.finding import Facts, Said, bad, has, node_of, ok, part, unknown, warn
from orchestrator.units import show_bytes, show_duration

SKEW_WARN_S, SKEW_BAD_S = 1.0, 30.0
SPACE_RESERVE: Final = 1.05


def versions(one: Facts, other: Facts) -> Iterator[Said]:
    """The same release, or at most one step apart; the same protocols."""
    here, there = part(one, "versions"), part(other, "versions")
    both = f"{node_of(one)} has {here['lockstep']}, {node_of(other)} has {there['lockstep']}"
    differ = protocols_that_differ(here["protocols"], there["protocols"])
    if differ:
        text = f"{both}, and they do not understand each other ({', '.join(differ)})"
        yield bad(text, f"install the newer release on {older(one, other)} and restart hactld there")
    elif here["lockstep"] != there["lockstep"]:
        text = f"{both}: good for an upgrade, not for ever"
        yield warn(text, f"install the newer release on {older(one, other)} as well")
    else:
        yield ok(f"both have {here['lockstep']}")


def protocols_that_differ(here: Mapping[str, int], there: Mapping[str, int]) -> list[str]:
    """Of which both say a number, and not the same."""
    return [f"{name} {here[name]} and {there[name]}" for name in sorted(set(here) & set(there)) if here[name] != there[name]]


def older(one: Facts, other: Facts) -> str:
    """The node with the older release."""
    return node_of(min(one, other, key=lambda facts: _release(str(part(facts, "versions")["lockstep"]))))


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(".") if word.isdigit())


def pythons(one: Facts, other: Facts) -> Iterator[Said]:
    """The same Python."""
    here, there = part(one, "versions")["python"], part(other, "versions")["python"]
    if here.split(".")[:2] != there.split(".")[:2]:
        yield warn(f"{node_of(one)} runs Python {here}, {node_of(other)} {there}", "use one release of Python on both nodes")
    else:
        yield ok(f"both run Python {here}")


def clocks(one: Facts, other: Facts) -> Iterator[Said]:
    """They show the same time. `clock_offsets` is measured by who asks: how far a peer's clock is ahead of its own."""
    skew_s = None
    for asking, asked in ((one, other), (other, one)):
        offset = asking.get("clock_offsets", {}).get(node_of(asked))
        skew_s = offset if offset is not None else skew_s
    if skew_s is None:
        yield unknown("how far the clocks are apart is not known")
        return
    how_far = show_duration(abs(skew_s)) if abs(skew_s) >= 1 else "less than 1s"
    apart = f"the clocks of {node_of(one)} and {node_of(other)} are {how_far} apart"
    fix = "timedatectl set-ntp true on both nodes (or chrony), and look at timedatectl there"
    if abs(skew_s) >= SKEW_BAD_S:
        yield bad(apart, fix)
    elif abs(skew_s) >= SKEW_WARN_S:
        yield warn(apart, fix)
    else:
        yield ok(apart)


def machines(one: Facts, other: Facts) -> Iterator[Said]:
    """Two of them, and not one copied from the other."""
    here, there = part(one, "identity"), part(other, "identity")
    if here["boot_id"] == there["boot_id"]:
        yield bad("both nodes are one machine (the same boot id)", "correct the addresses in cluster.toml")
    elif here["machine_id"] and here["machine_id"] == there["machine_id"]:
        text = "both machines have the same machine-id: one is a copy of the other, and may get the other's address from DHCP"
        yield warn(text, f"on {node_of(other)}: rm /etc/machine-id && systemd-machine-id-setup, then reboot")
    else:
        yield ok("they are two machines")


def configurations(one: Facts, other: Facts) -> Iterator[Said]:
    """Byte by byte the same."""
    here, there = part(one, "configuration")["files"], part(other, "configuration")["files"]
    differ = sorted(name for name in set(here) & set(there) if here[name] != there[name])
    only = [f"{name} (only on {node_of(facts)})" for facts, mine, theirs in ((one, here, there), (other, there, here))
            for name in sorted(set(mine) - set(theirs))]  # fmt: skip
    if differ or only:
        shown = ", ".join((differ + only)[:4]) + ("" if len(differ + only) <= 4 else f" and {len(differ + only) - 4} more")
        text = f"the configurations of {node_of(one)} and {node_of(other)} differ: {shown}"
        yield bad(text, "hactl config diff, then hactl config apply")
    else:
        yield ok(f"the configurations are the same ({len(here)} files)")


def keys(one: Facts, other: Facts) -> Iterator[Said]:
    """Each knows the key that the other one uses now."""
    told = False
    for mine, theirs in ((one, other), (other, one)):
        here, there = part(mine, "keys"), part(theirs, "keys")
        known = here["peers"].get(node_of(theirs), [])
        if here["insecure"] or there["insecure"]:
            yield ok("without keys (--insecure) nothing has to fit")
            return
        if there["own"] and known and there["own"] not in known:
            told = True
            text = f"{node_of(mine)} knows another key of {node_of(theirs)} than the one that {node_of(theirs)} uses"
            yield bad(text, f"pair anew: hactl cluster init on {node_of(mine)}, hactl cluster join on {node_of(theirs)}")
    if not told:
        yield ok("each knows the other's key")


def sizes(one: Facts, other: Facts) -> Iterator[Said]:
    """The interfaces of a network have one MTU."""
    there = {path["network"]: path for path in part(other, "paths")["paths"] if path["peer"] == node_of(one)}
    for path in part(one, "paths")["paths"]:
        if path["peer"] != node_of(other) or path["network"] not in there or not path["mtu"] or not there[path["network"]]["mtu"]:
            continue
        mine, theirs = path["mtu"], there[path["network"]]["mtu"]
        if mine != theirs:
            text = f"the MTU on {path['network']} is {mine} on {node_of(one)} and {theirs} on {node_of(other)}"
            small = min((mine, path["interface"]), (theirs, there[path["network"]]["interface"]))
            yield bad(text, f"ip link set {small[1]} mtu {max(mine, theirs)} on {node_of(one) if small[0] == mine else node_of(other)}")
        else:
            yield ok(f"the MTU on {path['network']} is {mine} on both nodes")


def owners(one: Facts, other: Facts) -> Iterator[Said]:
    """Whoever owns a file below a replicated directory has the same number and name on both nodes."""
    for kind, table, fix in (("uids", "users", "usermod -u"), ("gids", "groups", "groupmod -g")):
        used: dict[int, str] = {}
        for facts in (one, other):
            for found in part(facts, "owners")["by_path"].values():
                used |= {int(number): name for number, name in found.get(kind, {}).items() if name}
        yield from _same_names(kind[:3], used, one, other, table, fix)


def _same_names(kind: str, used: Mapping[int, str], one: Facts, other: Facts, table: str, fix: str) -> Iterator[Said]:
    here, there = part(one, "accounts")[table], part(other, "accounts")[table]
    wrong = False
    for number, name in sorted(used.items()):
        mine, theirs = here.get(name), there.get(name)
        if mine is not None and theirs is not None and mine != theirs:
            wrong = True
            text = f"{name} is {kind} {mine} on {node_of(one)} and {theirs} on {node_of(other)}: files of the copy belong to somebody else"
            which = node_of(other) if mine == number else node_of(one)
            yield bad(text, f"on {which}, with the module stopped: {fix} {number} {name}, then chown its files elsewhere")
        elif mine is None or theirs is None:
            wrong = True
            lacks = node_of(one) if mine is None else node_of(other)
            yield bad(f"{name} ({kind} {number}) owns files and does not exist on {lacks}", f"on {lacks}: {_make(kind)} {number} {name}")
    if not wrong:
        yield ok(f"{len(used)} {kind}s in use have the same names on both nodes")


def _make(kind: str) -> str:
    return "useradd -r -u" if kind == "uid" else "groupadd -g"


def accounts(one: Facts, other: Facts) -> Iterator[Said]:
    """Users and groups that both have, and that services need: the same number."""
    needed = {service["user"] for facts in (one, other) for service in part(facts, "services")["services"] if service["user"]}
    here, there = part(one, "accounts")["users"], part(other, "accounts")["users"]
    wrong = False
    for name in sorted(needed):
        if name in here and name in there and here[name] != there[name]:
            wrong = True
            text = f"the service user {name} is uid {here[name]} on {node_of(one)} and {there[name]} on {node_of(other)}"
            yield bad(text, f"on {node_of(other)}, with the module stopped: usermod -u {here[name]} {name}")
    if not wrong:
        yield ok("users of services have the same numbers" if needed else "no service names a user")


def known_accounts(one: Facts, other: Facts) -> Iterator[Said]:
    """Before anything is mirrored: users that exist on both and would own data (not the system's own) have one number."""
    here, there = part(one, "accounts")["users"], part(other, "accounts")["users"]
    differ = sorted(name for name in set(here) & set(there) if here[name] != there[name])
    if differ:
        shown = ", ".join(f"{name} ({here[name]} and {there[name]})" for name in differ[:5])
        yield warn(f"these users have different numbers on the two nodes: {shown}", "usermod -u, before their files are mirrored")
    else:
        yield ok("users that both nodes have, have the same numbers")


def applications(one: Facts, other: Facts) -> Iterator[Said]:
    """The same release of each program."""
    there = {(entry["module"], entry["name"]): entry for entry in part(other, "services")["services"]}
    for mine in part(one, "services")["services"]:
        theirs = there.get((mine["module"], mine["name"]))
        if theirs is None or not mine["program_found"] or not theirs["program_found"]:
            continue
        name = f"{mine['name']} of {mine['module']}"
        if mine["version"] and theirs["version"] and mine["version"] != theirs["version"]:
            text = f"{name} is '{mine['version']}' on {node_of(one)} and '{theirs['version']}' on {node_of(other)}"
            yield bad(text, "install the same release on both nodes")
        elif not (mine["version"] and theirs["version"]) and mine["digest"] != theirs["digest"]:
            yield warn(f"{mine['program']} ({name}) is not the same file on both nodes", "install the same release on both nodes")
        else:
            yield ok(f"{name} is the same on both nodes" + (f": {mine['version']}" if mine["version"] else ""))


def space(one: Facts, other: Facts) -> Iterator[Said]:
    """Each disk could hold the other one's copy."""
    for path, used, total, source, target in _needs(one, other):
        if total < used * SPACE_RESERVE:
            text = f"{path} holds {show_bytes(used)} on {source}; {target} has room for {show_bytes(total)}"
            yield bad(text, f"a larger disk for {path} on {target}")
        else:
            yield ok(f"{target} has room for what {source} holds in {path} ({show_bytes(used)})")


def _needs(one: Facts, other: Facts) -> Iterator[tuple[str, int, int, str, str]]:
    for mine, theirs in ((one, other), (other, one)):
        target = part(theirs, "directories")["by_path"]
        own = part(theirs, "owners")["by_path"]
        for path, found in part(mine, "owners")["by_path"].items():
            if "error" in found or not found["bytes"] or path not in target or "available_bytes" not in target[path]:
                continue
            room = int(target[path]["available_bytes"]) + int(own.get(path, {}).get("bytes", 0))
            yield path, int(found["bytes"]), room, node_of(mine), node_of(theirs)


def file_systems(one: Facts, other: Facts) -> Iterator[Said]:
    """What one copy can keep, the other can."""
    there = part(other, "directories")["by_path"]
    for path, mine in part(one, "directories")["by_path"].items():
        theirs = there.get(path)
        if theirs is None or not mine.get("file_system") or not theirs.get("file_system"):
            continue
        if mine["file_system"] != theirs["file_system"]:
            text = f"{path} is on {mine['file_system']} on {node_of(one)} and on {theirs['file_system']} on {node_of(other)}"
            yield warn(f"{text}: limits of names, sizes and attributes may differ", "use one kind of file system on both nodes")
        else:
            yield ok(f"{path} is on {mine['file_system']} on both nodes")


def vips(one: Facts, other: Facts) -> Iterator[Said]:
    """A service address is on one of the two at most."""
    there = {vip["address"]: vip for vip in part(other, "vips")["vips"]}
    for vip in part(one, "vips")["vips"]:
        if vip["address"] in there and vip["held"] and there[vip["address"]]["held"]:
            text = f"{vip['address']} is on both nodes at once"
            yield bad(text, f"hactl status; on the node that is not PRIM or ALONE: ip addr del {vip['address']} dev {vip['interface']}")
        elif vip["address"] in there:
            yield ok(f"{vip['address']} is not on both nodes")


def witnesses(one: Facts, other: Facts) -> Iterator[Said]:
    """Both ask the same one."""
    here = {member["cluster"] for member in part(one, "third")["witness"] if member["cluster"]}
    there = {member["cluster"] for member in part(other, "third")["witness"] if member["cluster"]}
    if here and there and here != there:
        fix = "correct [witness] etcd in cluster.toml: all its URLs must be members of one etcd"
        yield bad(f"{node_of(one)} and {node_of(other)} ask different witnesses", fix)
    elif here and there:
        yield ok("both nodes ask the same witness")
    elif has(one, "third") and part(one, "third")["witness"]:
        yield unknown("whether both ask the same witness is not known: it does not answer both")


def agreement(one: Facts, other: Facts) -> Iterator[Said]:
    """Both copies are of one generation where both say that they are up to date."""
    there = {mirror["module"]: mirror for mirror in part(other, "mirrors")["mirrors"]}
    for mine in part(one, "mirrors")["mirrors"]:
        theirs: Any = there.get(mine["module"])
        if theirs is None or mine["data"] != "UPTODATE" or theirs["data"] != "UPTODATE":
            continue
        if mine["generation"] != theirs["generation"]:
            text = f"{mine['module']}: both copies call themselves up to date, and are of different generations"
            yield bad(text, "hactl why; never 'prim --force' before you know whose data counts")
        else:
            yield ok(f"{mine['module']}: both copies are of generation {mine['generation']}")

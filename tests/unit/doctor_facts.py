"""The facts of a node to which nothing is wrong, for tests to spoil."""

from __future__ import annotations

import copy
from typing import Any

GIB = 1 << 30
NODES = ("node1", "node2")
ADDRESSES = {"node1": {"lan": "192.0.2.11", "repl": "198.51.100.11"}, "node2": {"lan": "192.0.2.12", "repl": "198.51.100.12"}}
MACS = {"node1": "02:00:00:00:00:11", "node2": "02:00:00:00:00:12"}
PINS = {"node1": "aa11", "node2": "bb22"}
DIRECTORY = "/srv/data"


def place(path: str) -> dict[str, Any]:
    """A roomy disk."""
    return {
        "path": path, "file_system": "ext4", "mount_point": "/", "read_only": False, "uid": 0, "mode": 0o755, "total_bytes": 100 * GIB,
        "available_bytes": 60 * GIB, "inodes_available": 5_000_000,
    }  # fmt: skip


def healthy(node: str = "node1") -> dict[str, Any]:
    """`hactl.facts/1` of one of two nodes of a healthy pair."""
    peer = NODES[1 - NODES.index(node)]
    first = node == "node1"
    paths = [
        {
            "peer": peer, "network": network, "here": ADDRESSES[node][network], "there": ADDRESSES[peer][network], "interface": network,
            "mtu": 1500, "sent": 20, "lost": 0, "rtt_s": 0.0002, "full_passes": True, "largest_bytes": 1500, "trouble": "",
        }
        for network in ("lan", "repl")
    ]  # fmt: skip
    peers = [{"node": peer, "silent": False, "networks": {"lan": "ok", "repl": "ok"}}]
    facts: dict[str, Any] = {
        "schema": "hactl.facts/1",
        "node": node,
        "clock_offsets": {"node2": 0.01} if first else {},
        "paths": {"paths": paths},
        "versions": {
            "lockstep": "0.1.0", "python": "3.11.2", "kernel": "6.1.0-18-amd64", "libfuse": "3.14.0", "engine": True,
            "protocols": {"calls": 2, "heartbeats": 3, "seals": 2, "links": 2, "control": 1},
        },
        "kernel": {
            "fuse_trouble": "", "core_pattern": "core",
            "calls": {"openat2": True, "open_tree": True, "move_mount": True, "pidfd_open": True, "name_to_handle_at": True},
        },
        "clock": {"synchronised": True, "wall_s": 1.7e9},
        "identity": {"hostname": node, "boot_id": f"boot of {node}", "machine_id": f"machine {node}", "uptime_s": 1e5},
        "memory": {"total_bytes": 16 * GIB, "available_bytes": 9 * GIB, "swap_bytes": 2 * GIB, "swap_free_bytes": 2 * GIB},
        "security": {"selinux": "off", "apparmor": True},
        "process": {
            "is_hactld": True, "pid": 100, "capabilities": str((1 << 40) - 1), "nofile_hard": None, "core_soft": 0,
            "locked_bytes": 50 << 20, "oom_score_adj": -900, "program_gone": False, "resident_bytes": 60 << 20,
        },
        "storage": {
            "state": {**place("/var/lib/lockstep"), "fsync_s": 0.002, "fsync_trouble": ""}, "log": place("/var/log/lockstep"),
        },
        "units": {"systemd": True, "states": {"hactld.service": "enabled", "lockstep-guard.service": "enabled"}},
        "configuration": {
            "complaints": [], "nodes": list(NODES), "cluster": "plant7", "policy": "availability", "peers": [peer],
            "modules": {"pg": "mirror"}, "replication_networks": ["repl"], "files": {"cluster.toml": "1", "modules/pg.toml": "2"},
            "loose": [],
            "scripts": [{"path": "/s/prim", "executable": True, "interpreter": "/bin/sh", "interpreter_found": True}],
        },
        "keys": {
            "insecure": False, "trouble": "", "own": PINS[node], "peers": {peer: [PINS[peer]]}, "path": "/etc/lockstep/keys",
            "left_s": {node: 1e8, peer: 1e8},
        },
        "network": {
            "interfaces": [
                {"name": name, "mtu": 1500, "up": True, "carrier": True, "mac": MACS[node], "addresses": []} for name in ("lan", "repl")
            ],
            "own": {network: {"address": address, "interface": network} for network, address in ADDRESSES[node].items()},
        },
        "ports": {
            "calls": [
                {"peer": peer, "network": network, "port": 5598, "reached": True, "trouble": "", "door": "open"}
                for network in ("lan", "repl")
            ],
            "data": [{"module": "pg", "peer": peer, "port": 5600, "door": "paired"}],
        },
        "firewall": {"tool": "nft", "against": [], "drops_by_default": [], "accepts": False},
        "vips": {
            "vips": [
                {
                    "module": "pg", "address": "192.0.2.100/24", "held": first, "interface": "lan",
                    "answers": [] if first else [MACS[peer]], "trouble": "", "peer_macs": [MACS[peer]],
                }
            ]
        },
        "third": {
            "witness": [{"url": "http://192.0.2.20:2379", "cluster": "77", "trouble": ""}],
            "ping": [{"address": "192.0.2.1", "answers": True, "trouble": ""}],
        },
        "mirrors": {"mirrors": [
            {"module": "pg", "role": "primary", "link": "paired", "data": "UPTODATE", "generation": "9f", "code": "PAIRED", "reason": ""}
        ]},
        "services": {"services": [
            {
                "module": "pg", "name": "postgres", "unit": "", "unit_found": False, "unit_state": "", "program": "/usr/bin/postgres",
                "program_found": True, "program_executable": True, "version": "postgres 15.9", "digest": "", "user": "postgres", "uid": 101,
            },
            {
                "module": "pg", "name": "nginx", "unit": "nginx.service", "unit_found": True, "unit_state": "disabled",
                "program": "/usr/sbin/nginx", "program_found": True, "program_executable": True, "version": "", "digest": "d1", "user": "",
                "uid": None,
            },
        ]},
        "accounts": {"users": {"root": 0, "postgres": 101}, "groups": {"root": 0, "postgres": 104}},
        "directories": {"by_path": {DIRECTORY: {
            "module": "pg", "exists": True, "is_directory": True, "layer": "mirror" if first else "guard", "empty": False,
            "file_system": "ext4", "mount_point": "/srv", "read_only_beneath": False, "nested": [], "required_missing": [],
            "total_bytes": 100 * GIB, "available_bytes": 60 * GIB, "inodes": 1000, "inodes_available": 900, "acl": True, "unfit": "",
            "clones": None,
            "holders": [],
        }}},
        "owners": {"by_path": {DIRECTORY: {
            "entries": 10, "complete": True, "bytes": 3 * GIB, "newest_s": 1.7e9, "uids": {"101": "postgres"}, "gids": {"104": "postgres"},
        }}},
        "status": {
            "verdict": "redundant", "failover": {"state": "armed", "reason": ""}, "warnings": [], "peers": peers, "refused": {},
            "insecure": False, "partial": False,
        },
        "history": {"events": 20, "oldest_age_s": 1e5, "last_move_age_s": 1e5, "script_errors": []},
    }  # fmt: skip
    return copy.deepcopy(facts)


def spoil(facts: dict[str, Any], place_: str, value: Any) -> None:
    """Another value at `directories.by_path./srv/data.empty`; numbers are places in a list."""
    current: Any = facts
    *way, last = place_.split(".")
    for word in way:
        current = current[int(word)] if isinstance(current, list) else current[word]
    if isinstance(current, list):
        current[int(last)] = value
    else:
        assert last in current, f"there is no fact {place_}"
        current[last] = value

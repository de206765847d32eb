"""GlusterFS, replica 2, in the lab's namespaces: what people use today when they want this.

glusterd believes that it owns /var/lib/glusterd, /var/log/glusterfs and /run of its machine. /run is each node's own already;
directories of the node's disk are bound over the other two. Nodes know each other by address, so no names are resolved.
Two volumes, each with bricks of its own: as it comes ("gluster default"), where a write is answered from the client's memory, and with
write-behind off ("gluster"), where it is answered when both bricks have it, as in our mirror.
"""

from __future__ import annotations

import time

from bench.bed import NODES, REPLICATION, Bed
from bench.subject import Process, Subject

VOLUMES = {"gluster": {"performance.write-behind": "off"}, "gluster_default": dict[str, str]()}
READY_TIMEOUT_S = 60.0
OWN = {"/var/lib/glusterd": "/srv/.gluster/state", "/var/log/glusterfs": "/srv/.gluster/log"}


class Gluster:
    """Both daemons and the volumes."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed

    def set_up(self) -> list[Subject]:
        """From nothing to mounted volumes."""
        for node in NODES:
            for target, source in OWN.items():
                self.bed.make_directory(node, source)
                self.bed.lab.run(node, ["mount", "--bind", source, target])
            self.bed.lab.run(node, ["glusterd"])
        self._until("volume", "list")
        self._until("peer", "probe", REPLICATION["node2"])
        self._wait_connected()
        return [self._volume(name, options) for name, options in VOLUMES.items()]

    def processes(self) -> list[Process]:
        """All of them: daemons, bricks, self-healing and the clients."""
        return self.bed.named("gluster")

    def _volume(self, name: str, options: dict[str, str]) -> Subject:
        """Create, start, mount."""
        brick, directory = f"/srv/.gluster/brick-{name}", f"/srv/{name}"
        for node in NODES:
            self.bed.make_directory(node, brick, directory)
        bricks = [f"{REPLICATION[node]}:{brick}" for node in NODES]
        self._until("volume", "create", name, "replica", "2", *bricks, "force")
        for option, value in options.items():
            self._until("volume", "set", name, option, value)
        self._until("volume", "start", name)
        self._mount(name, directory)
        return Subject(name, directory, self.processes, slow=True)

    def _mount(self, name: str, directory: str) -> None:
        """Its client; live when both bricks are connected, which a first file on both shows."""
        self.bed.lab.run("node1", ["glusterfs", f"--volfile-server={REPLICATION['node1']}", f"--volfile-id=/{name}", directory])
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self.bed.exists(f"/srv/.gluster/brick-{name}/first", "node2"):
            if time.monotonic() > deadline:
                raise SystemExit(f"bench: GlusterFS does not mirror its volume {name}")
            self.bed.lab.run("node1", ["sh", "-c", 'mountpoint -q "$0" && rm -f "$0/first" && : > "$0/first"', directory], check=False)
            time.sleep(0.2)

    def _until(self, *words: str) -> None:
        """A command of its own, again until its daemon is ready for it."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            done = self.bed.lab.run("node1", ["gluster", "--mode=script", *words], check=False)
            if done.returncode == 0:
                return
            if time.monotonic() > deadline:
                raise SystemExit(f"bench: gluster {' '.join(words)}: {(done.stderr or done.stdout).strip()}")
            time.sleep(0.5)

    def _wait_connected(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while "Connected" not in self.bed.lab.run("node1", ["gluster", "peer", "status"], check=False).stdout:
            if time.monotonic() > deadline:
                raise SystemExit("bench: the two glusterd do not connect")
            time.sleep(0.2)

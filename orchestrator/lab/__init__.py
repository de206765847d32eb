"""Two servers, a client and a witness on one Linux machine, out of namespaces.

A node is a process tree: an init (`init.py`) that is process 1 of its own PID, mount, network, UTS and IPC namespaces,
and everything started in them. Its power is that init: when it is killed the kernel kills the whole tree, the node's
mounts go with the namespace and the network falls silent, because the switch drops the node's ports first (a dead
machine sends no FIN). What stays is the disk: a sparse image, loop-mounted as ext4 at `/srv` by whoever boots it next.

    node1  node2  client  witness        each: own addresses, mounts, processes, disk, private /run /tmp /dev/shm
      |      |      |       |
    ==lan====================== 10.77.0.0/24     two bridges in the lab's own network namespace ("the switch"):
    ==repl=========             10.77.1.0/24     the host's network is never touched

What this cannot show: the page cache belongs to the host's kernel and survives a node's "power loss". `Lab.sync_copy`
and `Lab.restore` put a disk back to what it held at its last sync, which is what a real power cut may leave.

Nothing is left behind: loop devices detach themselves with the last mount, and whatever a crashed lab left is found
by the name in its init's command line, not by the state file alone.
"""

from orchestrator.lab.errors import LabError
from orchestrator.lab.lab import Lab
from orchestrator.lab.plan import LANS, NODES

__all__ = ["LANS", "NODES", "Lab", "LabError"]

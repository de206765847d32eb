"""Process 1 of a lab node: makes the node's mounts, says so, then reaps until its power is pulled.

Runs alone (`python3 -I -S init.py …`), already inside fresh namespaces, so it may import the standard library only.
Its command line carries the lab's name: that is how a crashed lab's nodes are found again.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

DISK = Path("/srv")
KEPT = DISK / ".node"  # what must survive the power switch besides /srv itself
KEPT_DIRECTORIES = {"etc": "/etc/lockstep", "state": "/var/lib/lockstep", "log": "/var/log/lockstep"}
VOLATILE_DIRECTORIES = {"/run": "0755", "/tmp": "1777", "/dev/shm": "1777"}


def mount(*arguments: str) -> None:
    """mount(8), with its complaint as ours."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"mount {' '.join(arguments)}: {done.stderr.strip()}")


def try_mount(*arguments: str) -> None:
    """For conveniences a kernel may lack."""
    subprocess.run(["mount", *arguments], capture_output=True, check=False)


def make_system_mounts() -> None:
    """A /proc of our processes and a /sys of our network devices; the host's would show the host's."""
    mount("--make-rprivate", "/")
    mount("-t", "proc", "-o", "nosuid,nodev,noexec", "proc", "/proc")
    mount("-t", "sysfs", "-o", "nosuid,nodev,noexec", "sysfs", "/sys")
    try_mount("-t", "fusectl", "fusectl", "/sys/fs/fuse/connections")
    try_mount("-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")  # the node's processes are in a group of its own; hactld makes more below it


def make_disk_mounts(image: str) -> None:
    """The node's own disk at /srv; `-o loop` detaches the loop device with its last mount, whoever dies how."""
    mount("-t", "ext4", "-o", "loop,noinit_itable", image, str(DISK))
    for name, target in KEPT_DIRECTORIES.items():
        (KEPT / name).mkdir(parents=True, exist_ok=True)
        mount("--bind", str(KEPT / name), target)


def open_kept(paths: list[str]) -> dict[str, int]:
    """Directories of the host that our mounts would hide (a checkout below /tmp, say), opened while they can be seen."""
    hidden = (str(DISK), *VOLATILE_DIRECTORIES)
    return {path: os.open(path, os.O_PATH) for path in paths if path.startswith(tuple(f"{target}/" for target in hidden))}


def show_kept(kept: dict[str, int]) -> None:
    """Put them back where they were; the descriptor reaches what the path no longer does."""
    for path, descriptor in kept.items():
        Path(path).mkdir(parents=True, exist_ok=True)
        command = ["mount", "--no-canonicalize", "--bind", f"/proc/self/fd/{descriptor}", path]
        subprocess.run(command, pass_fds=[descriptor], check=True, capture_output=True)
        os.close(descriptor)


def make_volatile_mounts() -> None:
    """Memory file systems, empty at each boot; /run gets the empty directories that a host's boot would make in it."""
    modes = {
        entry.name: entry.stat(follow_symlinks=False)
        for entry in os.scandir("/run")
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(("lockstep", "netns", "systemd"))
    }
    for target, mode in VOLATILE_DIRECTORIES.items():
        mount("-t", "tmpfs", "-o", f"mode={mode},nosuid,nodev", "tmpfs", target)
    for name, status in modes.items():
        path = Path("/run") / name
        path.mkdir(exist_ok=True)  # mount(8) keeps notes in /run/mount, which it may have made by now
        os.chown(path, status.st_uid, status.st_gid)
        path.chmod(status.st_mode & 0o7777)
    Path("/run/lock").mkdir(exist_ok=True)


def give_boot_id() -> str:
    """A new boot id for this boot, laid over the kernel's, so that code which asks sees a machine that restarted."""
    boot_id = str(uuid.uuid4())
    path = Path("/run/boot_id")
    path.write_text(boot_id + "\n")
    path.chmod(0o444)
    mount("--bind", str(path), "/proc/sys/kernel/random/boot_id")
    return boot_id


def reap_for_ever() -> None:
    """Orphans of the node become our children: take their status, or the process table fills with zombies."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            signal.sigwait({signal.SIGCHLD})


def main() -> None:
    """Be the node."""
    parser = argparse.ArgumentParser()
    for option in ("--lab", "--node", "--image"):
        parser.add_argument(option, required=True)
    parser.add_argument("--keep", action="append", default=[])
    arguments = parser.parse_args()
    assert os.getpid() == 1, "a lab node's init outside of its own PID namespace"
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        socket.sethostname(arguments.node)
        make_system_mounts()
        kept = open_kept(arguments.keep)
        make_disk_mounts(arguments.image)
        make_volatile_mounts()
        show_kept(kept)
        boot_id = give_boot_id()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"error {error}", flush=True)
        sys.exit(1)
    os.chdir("/")
    print(f"ready {boot_id}", flush=True)
    quiet = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(quiet, descriptor)
    reap_for_ever()


if __name__ == "__main__":
    main()

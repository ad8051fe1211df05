"""The first process in the namespaces: `python -m tools.e2e.inside DIRECTORY COMMAND...`.

It makes the place look like a machine of its own: directories of the runtime and the kubelet that nobody else sees, a
network with a node address and the address of the API server's service, and knobs of the kernel that the kubelet may read
but not turn. Then it runs the command, and as init it buries whatever loses its parent. When it ends, the kernel ends all.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.controlplane.commands import SERVICE_ADDRESS
from tools.image.tooling import run

NODE_ADDRESS = "10.200.0.1"
PRIVATE = ("/var/lib/containerd", "/var/lib/kubelet", "/var/lib/cni", "/etc/cni", "/var/log/pods", "/var/log/containers")
"""Directories that containerd, kubelet and network plugins write to: each is ours alone."""
KNOBS = {"kernel/panic": "10", "kernel/panic_on_oops": "1", "vm/overcommit_memory": "1"}
"""What the kubelet wants to find in /proc/sys, of the whole machine: it finds it, in files laid over the real ones."""


@contextmanager
def places() -> Iterator[None]:
    """The directories to mount on are there while the context is open; those that it had to make are gone afterwards."""
    made: list[Path] = []
    for path in map(Path, PRIVATE):
        absent = [one for one in (path, *path.parents) if not one.exists()]
        path.mkdir(parents=True, exist_ok=True)
        made = [*absent, *made]
    try:
        yield
    finally:
        for path in made:
            with suppress(OSError):  # another run of this, or an installation, has put something there meanwhile
                path.rmdir()


def main(directory: Path, command: list[str]) -> int:
    """Prepares the namespaces, runs the command, and returns its status."""
    mounts(directory)
    network()
    child = subprocess.Popen(command)
    return bury_until(child.pid)


def mounts(directory: Path) -> None:
    """Lays directories and files of ours over the machine's, in this mount namespace only."""
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for path in map(Path, PRIVATE):
        own = directory / "private" / path.relative_to("/")
        own.mkdir(parents=True)
        run("mount", "--bind", str(own), str(path))
    run("mount", "--make-rshared", "/var/lib/kubelet")
    for name, value in KNOBS.items():
        file = directory / name.replace("/", ".")
        file.write_text(value + "\n")
        run("mount", "--bind", str(file), f"/proc/sys/{name}")


def network() -> None:
    """Loopback with the service's address, and an interface with the node's; nothing leads out of here."""
    for line in (
        "link set lo up",
        f"address add {SERVICE_ADDRESS}/32 dev lo",
        "link add node0 type veth peer name node1",
        f"address add {NODE_ADDRESS}/24 dev node0",
        "link set node0 up",
        "link set node1 up",
        "route add default dev node0",
    ):
        run("ip", *line.split())
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def bury_until(pid: int) -> int:
    """Waits for every child, until the one that matters has ended; returns its status."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))

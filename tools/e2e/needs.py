"""What a machine must have to run a real node, each with the reason or the remedy where it has not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAMS = {
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "mount": "mount",
}
"""Debian's package of each program."""
PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
"""Where network plugins are: Debian's place, and everybody else's."""
_OWN = ("--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc", "--propagation=private")


def unshare(*command: str) -> list[str]:
    """The command line that runs a command in namespaces of its own; killing it kills everything in there."""
    return ["unshare", *_OWN, *command]


def missing() -> list[str]:
    """Why there can be no real node on this machine; empty where there can."""
    if sys.platform != "linux":
        return [f"this is {sys.platform}: a real node needs Linux"]
    found = []
    if os.geteuid() != 0:
        found.append("not root: a kubelet mounts, and makes cgroups and namespaces; run it as root")
    packages = {package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if plugins() is None:
        packages.add("containernetworking-plugins")
    if packages:
        found.append(f"not installed: apt-get install --no-install-recommends {' '.join(sorted(packages))}")
    return found or _namespaces() + _network()


def plugins() -> Path | None:
    """The folder with the network plugins."""
    return next((folder for folder in PLUGINS if (folder / "bridge").exists()), None)


def _namespaces() -> list[str]:
    done = subprocess.run(unshare("true"), capture_output=True, text=True, check=False)
    return [f"no namespaces of our own: {done.stderr.strip()}; allow CAP_SYS_ADMIN"] if done.returncode else []


def _network() -> list[str]:
    """A bridge and a pair of virtual interfaces can be made, and file systems laid over each other."""
    probe = (
        "ip link add probe0 type bridge && ip link add probe1 type veth peer name probe2 && mkdir -p /run/p && "
        "mount -t tmpfs p /run/p && cd /run/p && mkdir a b c d && mount -t overlay o -olowerdir=a,upperdir=b,workdir=c d"
    )
    done = subprocess.run(unshare("sh", "-c", probe), capture_output=True, text=True, check=False)
    return [f"the kernel lacks bridge, veth or overlay: {done.stderr.strip()}"] if done.returncode else []

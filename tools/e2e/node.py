"""One real node beside a control plane of ours: containerd with our images, and the kubelet. Runs inside the namespaces.

Settings that look odd are needed on small machines: see the comments. Everything is removed with the namespaces.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from tools.controlplane.api import Api
from tools.controlplane.build import COMPONENTS, target
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.commands import SERVICE_ADDRESS
from tools.controlplane.process import Component
from tools.controlplane.resources import NODES, Object
from tools.controlplane.scene import is_ready
from tools.e2e.inside import NODE_ADDRESS
from tools.e2e.needs import plugins
from tools.image.tooling import run

IMAGES_VARIABLE = "DRIVER_UPGRADE_E2E_IMAGES"
"""Names the folder with the archives of images, for the tests inside."""
CGROUP_VARIABLE = "DRIVER_UPGRADE_E2E_CGROUP"
"""Names the group that the node's pods belong to."""
NAME = "real-1"
SOCKET = Path("/run/containerd/containerd.sock")
NETWORK = Path("/etc/cni/net.d/10-bridge.conflist")
LOGS = Path("/var/log/pods")
READY_SECONDS = 180.0


def containerd_configuration() -> str:
    """For containerd 1.6 and later, with cgroupfs."""
    return f"""\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/local/pause:1"
  # Without CAP_SYS_RESOURCE nobody may lower the score, and every sandbox would end at once.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins()}"
    conf_dir = "{NETWORK.parent}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def network_configuration() -> Object:
    """A bridge to the node and nothing more: pods reach the node, the node reaches pods."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.201.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "ipam": ipam}
    return {"cniVersion": "0.4.0", "name": "bridge", "plugins": [bridge]}


def kubelet_configuration(cgroup_root: str) -> Object:
    """The kubelet of one node that is never full, listens on loopback, and leaves the machine's kernel alone."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "127.0.0.1",
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup_root,
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "evictionHard": dict.fromkeys(("memory.available", "nodefs.available", "imagefs.available"), "0%"),
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "localStorageCapacityIsolation": False,
        "protectKernelDefaults": True,
        "resolvConf": "",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    }


class Node:
    """The real node, running."""

    def __init__(self, components: Sequence[Component]) -> None:
        self.components = {component.name: component for component in components}

    def check(self) -> None:
        """Raises ComponentError if one of its programs has died."""
        for component in self.components.values():
            component.check()


@asynccontextmanager
async def running(cp: ControlPlane, api: Api, images: Path, cgroup_root: str) -> AsyncIterator[Node]:
    """Starts the node, yields it once it is Ready, and stops it.

    Raises:
        ComponentError: a program died or did not become ready.
        TimeoutError: the node is not Ready in time.
    """
    directory = cp.directory / "node"
    _configure(directory, cgroup_root)
    components = [Component(name, command, directory / f"{name}.log") for name, command in _commands(cp, directory).items()]
    node = Node(components)
    with ExitStack() as stack:
        for component in components:
            stack.callback(component.kill)
            component.start()
            if component.name == "containerd":
                await component.ready(_answers, READY_SECONDS)
                await asyncio.to_thread(_import, images)
        await api.wait_for_object(NODES, NAME, is_ready, timeout=READY_SECONDS)
        node.check()
        yield node


def _configure(directory: Path, cgroup_root: str) -> None:
    directory.mkdir()
    (directory / "containerd.toml").write_text(containerd_configuration())
    NETWORK.parent.mkdir(parents=True, exist_ok=True)
    NETWORK.write_text(json.dumps(network_configuration()))
    (directory / "kubelet.yaml").write_text(yaml.safe_dump(kubelet_configuration(cgroup_root)))


def _commands(cp: ControlPlane, directory: Path) -> dict[str, list[str]]:
    port = str(urlsplit(cp.server).port)
    return {
        "forward": [sys.executable, "-m", "tools.e2e.forward", SERVICE_ADDRESS, "443", port],
        "containerd": ["containerd", f"--config={directory / 'containerd.toml'}"],
        "kubelet": [
            str(target(COMPONENTS["kubelet"])),
            f"--config={directory / 'kubelet.yaml'}",
            f"--kubeconfig={cp.kubeconfig}",
            f"--hostname-override={NAME}",
            f"--node-ip={NODE_ADDRESS}",
        ],
    }


async def _answers() -> bool:
    """Whether containerd serves."""
    process = await asyncio.create_subprocess_exec(
        "ctr", "version", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait() == 0


def _import(images: Path) -> None:
    for archive in sorted(images.glob("*.tar")):
        run("ctr", "--namespace=k8s.io", "images", "import", str(archive))

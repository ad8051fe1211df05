"""A cluster with one real node, and the controller deployed there by its manifests, unmodified but for the image's name."""

import asyncio
import base64
import json
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from tools.controlplane import scene
from tools.controlplane.api import Api
from tools.controlplane.audit import AuditLog, Request
from tools.controlplane.binaries import resolve
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import LEASES, NODES, PODS, Object, Objects, Resource
from tools.controlplane.terminal import Reporter
from tools.e2e import node

ROOT = Path(__file__).parents[2]
NAMESPACE = "driver-upgrade"
LABELS = "app.kubernetes.io/name=driver-upgrade"
USER = "system:serviceaccount:driver-upgrade:driver-upgrade"
POLICIES = Resource("nvidia.com/v1", "driverupgradepolicies", "DriverUpgradePolicy")
IMAGES = {"example.com/driver-upgrade": "local/driver-upgrade:1", "example.com/driver": "local/driver:1"}
TIMEOUT = 180.0
"""For anything that the cluster does by itself, in seconds: generous, for machines are slow and shared."""
LOOK_SECONDS = 0.2
_TAIL = 40


class Site:
    """The cluster, and how a test acts on it and looks at it."""

    def __init__(self, api: Api, cp: ControlPlane, real: node.Node, report: Reporter) -> None:
        self.api = api
        self.cp = cp
        self.real = real
        self._report = report
        self._kubectl = resolve(report).kubectl
        self._began = time.monotonic()
        self._requests: list[Request] = []
        self._log = AuditLog(cp.audit_log)

    def say(self, text: str) -> None:
        """Tells whoever watches what has come true."""
        self._report.line(f"  {time.monotonic() - self._began:6.1f} s  {text}")

    async def kustomize(self, folder: Path) -> Objects:
        """What `kubectl kustomize` makes of a folder of manifests, with nothing changed but the names of images."""
        return await asyncio.to_thread(_kustomized, self._kubectl, folder)

    async def controllers(self) -> Objects:
        """The controller's pods that nobody deletes."""
        pods = await self.api.list(PODS, NAMESPACE, labels=LABELS)
        return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]

    async def deployed(self, count: int = 2, *, without: frozenset[str] = frozenset()) -> Objects:
        """Waits until the controller has exactly `count` pods, all ready, none with these uids; returns them."""

        def settled(pods: Any) -> Objects:
            good = len(pods) == count and all(map(scene.is_ready, pods))
            return list(pods) if good and not without & {pod["metadata"]["uid"] for pod in pods} else []

        return await self.api.wait_for(
            PODS, settled, NAMESPACE, labels=LABELS, timeout=TIMEOUT, what=f"{count} ready replicas of the controller"
        )

    async def leader(self, accept: Callable[[str], bool] = bool) -> str:
        """Waits until the Lease has an acceptable holder; returns the uid of its pod."""

        def uid(lease: Object) -> str:
            return str(lease["spec"].get("holderIdentity") or "").rpartition("_")[2]

        lease = await self.api.wait_for_object(
            LEASES, "driver-upgrade", lambda lease: uid(lease) and accept(uid(lease)), NAMESPACE, timeout=TIMEOUT
        )
        return uid(lease)

    def process_of(self, pod_uid: str) -> int:
        """The process id of a pod's controller, as seen from outside its container.

        The kernel names a process's control group by the pod's uid; the program is the one that runs `run`.
        """
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "cmdline").read_bytes().split(b"\0")
                group = (path / "cgroup").read_text()
            except OSError:  # it ended meanwhile
                continue
            if b"run" in words and b"--leader-elect" in words and pod_uid in group.replace("_", "-"):
                return int(path.name)
        raise AssertionError(f"no process of pod {pod_uid}")

    def mounted_token(self, pod: Object) -> Object:
        """The claims of the token that the kubelet has mounted into a pod."""
        folder = Path("/var/lib/kubelet/pods", pod["metadata"]["uid"], "volumes/kubernetes.io~projected/api-access")
        payload = (folder / "token").read_text().split(".")[1]
        claims: Object = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return claims

    async def real_node(self, predicate: Callable[[Object], object], what: str) -> Object:
        """Waits for something of the real node."""
        return await self.api.wait_for_object(NODES, node.NAME, predicate, timeout=TIMEOUT, what=what)

    def requests(self) -> list[Request]:
        """All requests so far, in the order in which they arrived.

        Whatever is done because of a request arrives after it; it may well be answered before it.
        """
        self._requests += self._log.read()
        return sorted(self._requests, key=lambda request: request.received)

    async def audited(self, wanted: Callable[[list[Request]], bool]) -> list[Request]:
        """All requests, once the log has what is wanted: its line comes a moment after the watch has told."""
        async with asyncio.timeout(TIMEOUT):
            while not wanted(self.requests()):  # noqa: ASYNC110 - nobody tells of a file that grows
                await asyncio.sleep(LOOK_SECONDS)
        return self.requests()

    def writes(self) -> list[Request]:
        """Successful writes of the controller, in order."""
        return [r for r in self.requests() if r.is_write and r.user == USER and 200 <= r.code < 300]

    def logs(self) -> list[tuple[str, str]]:
        """The ends of the logs of all containers and of the node's programs, by a title for each."""
        files = [*sorted(node.LOGS.glob("*/*/*.log")), *(one.log for one in self.real.components.values())]
        return [(str(file), "\n".join(file.read_text(errors="replace").splitlines()[-_TAIL:])) for file in files]


def _kustomized(kubectl: Sequence[str], folder: Path) -> Objects:
    images = [{"name": name, "newName": to.partition(":")[0], "newTag": to.partition(":")[2]} for name, to in IMAGES.items()]
    with tempfile.TemporaryDirectory() as directory:
        overlay = {"resources": [os.path.relpath(folder, Path(directory).resolve())], "images": images}
        Path(directory, "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        done = subprocess.run([*kubectl, "kustomize", directory], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [obj for obj in yaml.safe_load_all(done.stdout) if obj]


def state(obj: Object, driver: str = "gpu") -> str:
    """A node's upgrade state, empty where it has none."""
    return str(obj["metadata"].get("labels", {}).get(f"nvidia.com/{driver}-driver-upgrade-state", ""))


@asynccontextmanager
async def opened(images: Path, cgroup_root: str) -> AsyncIterator[Site]:
    """Starts everything and deploys the controller."""
    report = Reporter()
    async with (
        ControlPlane.start(audit_level="RequestResponse", report=report) as cp,
        Api(cp.access) as api,
    ):
        report.line("The control plane is ready; starting containerd and the kubelet …")
        async with node.running(cp, api, images, cgroup_root) as real:
            site = Site(api, cp, real, report)
            site.say(f"the real node {node.NAME} is Ready, kubelet {await _version(api)}")
            await api.apply([scene.namespace(scene.NAMESPACE)])
            await api.apply(await site.kustomize(ROOT / "manifests" / "base"))
            site.say("applied manifests/base")
            yield site
            real.check()


async def _version(api: Api) -> str:
    info = (await api.get(NODES, node.NAME))["status"]["nodeInfo"]
    return f"{info['kubeletVersion']}, {info['containerRuntimeVersion']}"

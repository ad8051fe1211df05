"""The part of the fake kubelets that kwok cannot play: the init container that waits for safe driver loading.

A driver pod with the label `driver-upgrade.test/safe-load: <driver>` has an init container named `wait-for-safe-load`. While
it runs, and once per pod, this program does what that container does: it sets the annotation
`nvidia.com/<driver>-driver-upgrade.driver-wait-for-safe-load` on its node, waits until somebody removes it, and then ends
the container as a kubelet would, by patching the pod's status. It runs as a process beside kwok, so that it goes on
whatever event loop the tests use, and it keeps no state: a pod is done when its container is no longer running.
"""

import asyncio
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tools.controlplane import kubeconfig
from tools.controlplane.api import Api, ApiError
from tools.controlplane.resources import NODES, PODS, Object

LABEL = "driver-upgrade.test/safe-load"
CONTAINER = "wait-for-safe-load"


def annotation(driver: str) -> str:
    """The node annotation (key 4 of the design) that says: the driver waits to be loaded."""
    return f"nvidia.com/{driver}-driver-upgrade.driver-wait-for-safe-load"


def is_waiting(pod: Object) -> bool:
    """Whether the pod's safe-load init container is running, on a node, in a pod that nobody deletes."""
    if pod["metadata"].get("deletionTimestamp") or not pod["spec"].get("nodeName"):
        return False
    statuses = pod["status"].get("initContainerStatuses", ())
    return any(status["name"] == CONTAINER and "running" in status["state"] for status in statuses)


def completed(pod: Object, now: str) -> Object:
    """The status patch that ends the safe-load init container, and with it, if it is the last, initialization."""
    statuses: list[Object] = [dict(status) for status in pod["status"]["initContainerStatuses"]]
    index = next(index for index, status in enumerate(statuses) if status["name"] == CONTAINER)
    started = statuses[index]["state"]["running"]["startedAt"]
    end = {"exitCode": 0, "reason": "Completed", "startedAt": started, "finishedAt": now}
    statuses[index] |= {"ready": True, "started": False, "state": {"terminated": end}}
    if index + 1 < len(statuses):
        statuses[index + 1] |= {"started": True, "state": {"running": {"startedAt": now}}}
        return {"status": {"initContainerStatuses": statuses}}
    initialized = {"type": "Initialized", "status": "True", "reason": "", "lastTransitionTime": now}
    return {"status": {"initContainerStatuses": statuses, "conditions": [initialized]}}


class SafeLoad:
    """Follows labelled pods and plays the init container of each in a task of its own."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            async for pods in self._api.follow(PODS, labels=LABEL):
                waiting = {pod["metadata"]["uid"]: pod for pod in pods.values() if is_waiting(pod)}
                for uid in self._tasks.keys() - waiting.keys():
                    self._tasks.pop(uid).cancel()
                for uid in waiting.keys() - self._tasks.keys():
                    self._tasks[uid] = group.create_task(self._play(waiting[uid]))

    async def _play(self, pod: Object) -> None:
        with suppress(ApiError):  # the node or the pod went meanwhile; a new pod starts anew
            await self._wait(pod["spec"]["nodeName"], annotation(pod["metadata"]["labels"][LABEL]))
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            metadata = pod["metadata"]
            body = completed(pod, now) | {"metadata": {"uid": metadata["uid"]}}  # another pod of that name refuses it
            await self._api.patch(
                PODS, metadata["name"], body, metadata["namespace"], kind="strategic", subresource="status"
            )

    async def _wait(self, node: str, name: str) -> None:
        marked = await self._api.patch(NODES, node, {"metadata": {"annotations": {name: "true"}}})
        version = marked["metadata"]["resourceVersion"]
        async for kind, obj in self._api.watch(NODES, fields=f"metadata.name={node}", version=version):
            if kind == "DELETED" or name not in obj["metadata"].get("annotations", {}):
                return


async def main(path: Path) -> None:
    """Plays the init containers of the cluster that a kubeconfig leads to, until killed."""
    with tempfile.TemporaryDirectory() as scratch:
        async with Api(kubeconfig.read(path, Path(scratch)), user_agent="fake-kubelet") as api:
            await SafeLoad(api).run()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

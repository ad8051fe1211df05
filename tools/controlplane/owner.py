"""A stand-in for the operator that owns the driver's DaemonSet; for tests and the demo only.

In a real cluster the GPU or network operator turns its custom resource into the DaemonSet. Here, whatever
`spec.driver.repository`, `.image` and `.version` of a policy say becomes the image of the DaemonSet's first container, so
that changing the custom resource is what starts an upgrade. Parts that the policy leaves out stay as they are.
"""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Self

from tools.controlplane import scene
from tools.controlplane.api import Api
from tools.controlplane.resources import DAEMON_SETS, Object


def image(current: str, driver: Mapping[str, str]) -> str:
    """The image that `spec.driver` asks for, with what it does not say taken from the current one."""
    path, colon, tag = current.rpartition(":")
    if not colon or "/" in tag:  # no tag; the colon, if any, is that of a registry's port
        path, tag = current, "latest"
    repository, _, name = path.rpartition("/")
    parts = (driver.get("repository") or repository, driver.get("image") or name)
    return f"{'/'.join(filter(None, parts))}:{driver.get('version') or tag}"


class DriverOwner:
    """Follows the policies of one kind in one namespace; use it as an async context manager."""

    def __init__(
        self,
        api: Api,
        kind: str = "DriverUpgradePolicy",
        *,
        api_version: str = "nvidia.com/v1",
        name: str = "",
        namespace: str = scene.NAMESPACE,
        daemon_set: str = scene.DRIVER,
    ) -> None:
        """Follows the policy `name`, or all of the namespace where it is empty, for the sake of one DaemonSet."""
        self._api = api
        self._kind = (api_version, kind)
        self._fields = f"metadata.name={name}" if name else ""
        self._namespace = namespace
        self._daemon_set = daemon_set
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.run(), name="driver-owner")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled() and (error := self._task.exception()):
            raise error

    async def run(self) -> None:
        """Runs until cancelled.

        Raises:
            ApiError: the kind is not known (its CRD is missing), or the DaemonSet is not there.
        """
        resource = await self._api.resource(*self._kind)
        async with aclosing(self._api.follow(resource, self._namespace, fields=self._fields)) as states:
            async for policies in states:
                for policy in policies.values():
                    await self._apply(policy)

    async def _apply(self, policy: Object) -> None:
        driver = policy["spec"].get("driver", {})
        daemon_set = await self._api.get(DAEMON_SETS, self._daemon_set, self._namespace)
        current = daemon_set["spec"]["template"]["spec"]["containers"][0]["image"]
        if (wanted := image(current, driver)) != current:
            body = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": wanted}]
            await self._api.patch(DAEMON_SETS, self._daemon_set, body, self._namespace, kind="json")

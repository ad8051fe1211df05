"""The init container as the example manifest deploys it: its ServiceAccount's token, bound to a pod, on the real server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from tests.cluster.cli import Command, running
from tests.cluster.fence import patched, refused
from tests.cluster.world import DONE, REQUIRED, World
from tools.controlplane import kubeconfig, scene
from tools.controlplane.api import Api, ApiError
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import NODES, PODS, SERVICE_ACCOUNTS, Object

EXAMPLE = Path(__file__).parents[2] / "manifests" / "examples" / "safe-load-daemonset.yaml"


class Deployed:
    """The example, applied under names of the test's own, with one pod of its DaemonSet on each node."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.api = world.api
        self.account = f"{world.pool}-safe-load"
        self.key = world.safe_load_key()

    async def apply(self) -> None:
        text = EXAMPLE.read_text()
        names = {"nvidia-operator": self.world.namespace, "driver-safe-load": self.account}
        names |= {
            "nvidia.com/gpu-": f"nvidia.com/{self.world.driver_name}-",
            "--driver=gpu": f"--driver={self.world.driver_name}",
        }
        for old, new in names.items():
            text = text.replace(old, new)
        self.objects: list[Object] = list(yaml.safe_load_all(text))
        template = self.objects[-1]["spec"]["template"]
        template["spec"]["nodeSelector"] = {"pool": self.world.pool}
        template["metadata"]["annotations"] = scene.stage(init_delay="1h")
        await self.api.apply(self.objects)

    async def remove(self) -> None:
        for obj in self.objects:
            if "namespace" not in obj["metadata"]:
                resource = await self.api.resource(obj["apiVersion"], obj["kind"])
                await self.api.delete(resource, obj["metadata"]["name"])

    async def token(self, node: str) -> str:
        """The token that the kubelet would give the DaemonSet's pod on a node."""

        def find(pods: object) -> Object:
            return next((p for p in pods if p["spec"].get("nodeName") == node), {})  # type: ignore[attr-defined]

        pod = await self.api.wait_for(PODS, find, self.world.namespace, labels="app=nvidia-driver-daemonset")
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600, "boundObjectRef": bound},
        }
        path = SERVICE_ACCOUNTS.path(self.world.namespace, self.account, "token")
        return str((await self.api.request("POST", path, body))["status"]["token"])

    @asynccontextmanager
    async def waiting(self, node: str, *words: str) -> AsyncIterator[Command]:
        """The init container on a node, with the arguments and the environment of the manifest."""
        (container,) = self.objects[-1]["spec"]["template"]["spec"]["initContainers"]
        config = self.world.control_plane.kubeconfig_for(await self.token(node), node)
        async with running(config, *container["args"], *words, NODE_NAME=node) as command:
            yield command

    async def marked(self, node: str, *, marked: bool = True) -> Object:
        """Waits until the annotation is there, or is not."""
        return await self.api.wait_for_object(
            NODES, node, lambda n: (self.key in n["metadata"].get("annotations", {})) == marked, what=f"{self.key} {marked}"
        )

    def marks(self, node: Object) -> list[Object]:
        """Who set the annotation, and when; whatever others write, the node's own controllers say, leaves that as it is."""
        field = f"f:{self.key}"
        entries = node["metadata"]["managedFields"]
        return [e for e in entries if field in e["fieldsV1"].get("f:metadata", {}).get("f:annotations", {})]

    async def enforced(self, node: str, other: str) -> None:
        """Waits until the API server enforces the admission policy, which no object tells: it is asked until it refuses."""
        config = self.world.control_plane.kubeconfig_for(await self.token(node), node)
        body = {"metadata": {"annotations": {self.key: "true"}}}
        async with Api(kubeconfig.read(config, config.parent)) as user:
            await refused(
                lambda: patched(NODES.path(name=other), body).by(user),
                "only the node that its pod runs on",
            )


@pytest_asyncio.fixture
async def deployed(cluster: World, control_plane: ControlPlane) -> AsyncIterator[Deployed]:
    await cluster.nodes(2)
    made = Deployed(cluster)
    await made.apply()
    yield made
    await made.remove()


async def test_it_waits_until_the_annotation_is_gone_and_says_for_what(deployed: Deployed):
    node = deployed.world.names[0]
    async with deployed.waiting(node) as command:
        line = await command.said("is set on node")
        assert deployed.key in line
        assert f"driver-upgrade explain {node}" in line
        await deployed.marked(node)
        await deployed.api.patch(NODES, node, {"metadata": {"labels": {deployed.world.state_label: REQUIRED}}})
        await command.said(REQUIRED)
        await deployed.api.patch(NODES, node, {"metadata": {"annotations": {deployed.key: None}}})
        answer = await command.ended()
    assert answer.code == 0, answer
    assert "the driver may be loaded" in answer.out
    await deployed.api.patch(NODES, node, {"metadata": {"labels": {deployed.world.state_label: None}}})


async def test_a_signal_ends_it_and_a_restart_waits_on(deployed: Deployed):
    node = deployed.world.names[0]
    async with deployed.waiting(node) as command:
        await command.said("is set on node")
        command.terminate()
        answer = await command.ended()
    assert answer.code == 143, answer
    before = await deployed.marked(node)
    assert deployed.marks(before)
    async with deployed.waiting(node) as command:
        await command.said("is set on node")
        after = await deployed.marked(node)
        assert deployed.marks(before) == deployed.marks(after), "nothing was written anew"
        await deployed.api.patch(NODES, node, {"metadata": {"annotations": {deployed.key: None}}})
        assert (await command.ended()).code == 0


async def test_a_time_out_ends_it_and_leaves_the_annotation(deployed: Deployed):
    node = deployed.world.names[0]
    # As a container finds it that was restarted: two seconds may pass before it comes to mark the node itself.
    await deployed.world.annotate(node, **{"upgrade.driver-wait-for-safe-load": "true"})
    async with deployed.waiting(node, "--timeout", "2") as command:
        answer = await command.ended()
    assert answer.code == 1
    assert "may not be loaded yet after 2 s" in answer.err
    await deployed.marked(node)


async def test_a_deleted_node_is_told(deployed: Deployed):
    node = deployed.world.names[0]
    async with deployed.waiting(node) as command:
        await command.said("is set on node")
        await deployed.api.delete(NODES, node)
        answer = await command.ended()
    assert answer.code == 1
    assert f"node {node} does not exist" in answer.err


async def test_its_account_may_mark_no_other_node(deployed: Deployed):
    node, other = deployed.world.names
    await deployed.enforced(node, other)
    async with deployed.waiting(node, "--node", other) as command:
        assert "only the node that its pod runs on" in await command.said("trying again")
    await deployed.marked(other, marked=False)
    async with deployed.waiting(node) as command:
        await command.said("is set on node")


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"unschedulable": True}},
        {"metadata": {"labels": {"any": "label"}}},
        {"metadata": {"annotations": {"any": "annotation"}}},
        {"metadata": {"annotations": {"kwok.x-k8s.io/node": None}}},
    ],
    ids=["cordon", "label", "annotation", "annotation-removed"],
)
async def test_its_account_may_change_nothing_but_the_annotation(deployed: Deployed, change: Object):
    node, other = deployed.world.names
    await deployed.enforced(node, other)
    config = deployed.world.control_plane.kubeconfig_for(await deployed.token(node), node)
    async with Api(kubeconfig.read(config, config.parent)) as user:
        with pytest.raises(ApiError, match="one annotation and nothing else"):
            await user.patch(NODES, node, change)


async def test_the_controller_lets_it_go_when_the_node_is_empty(cluster: World):
    """From end to end: the driver's pod waits in the command, the controller drains the node, then the command ends."""
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.workload("web", 1, node=node)
    await cluster.hold()
    await cluster.policy()
    async with cluster.controller():
        await cluster.state(DONE)
        words = ("wait-for-safe-load", "--driver", cluster.driver_name, "--node", node)
        async with running(cluster.control_plane.kubeconfig, *words) as command:
            await command.said("drain-required")
            assert (await cluster.api.get(NODES, node))["metadata"]["annotations"][cluster.safe_load_key()]
            await cluster.release()
            answer = await command.ended()
        assert answer.code == 0, answer
        await cluster.state(DONE)
    assert len(cluster.evicted()) == 2

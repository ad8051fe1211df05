"""Other operators' custom resources drive a rollout, under a label domain of our own; nothing of theirs is written.

The CRDs here are ours and minimal: group, version, scope, paths and the defaults of upgradePolicy are those of
NVIDIA/gpu-operator and Mellanox/network-operator, the rest is left open.
"""

import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
import pytest_asyncio

from tests.cluster.process import Process
from tests.cluster.test_events import told
from tests.cluster.world import DONE, FAST_DRIVER, REQUIRED, World, world
from tools.controlplane import scene
from tools.controlplane.api import PATIENCE, Api
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.owner import DriverOwner
from tools.controlplane.resources import CRDS, NODES, Object, Resource

DOMAIN = "upgrade.example.com"
DOMAIN_FLAGS = ("--label-domain", DOMAIN)
CLUSTER_POLICIES = Resource("nvidia.com/v1", "clusterpolicies", "ClusterPolicy", namespaced=False)
NVIDIA_DRIVERS = Resource("nvidia.com/v1alpha1", "nvidiadrivers", "NVIDIADriver", namespaced=False)
NIC_POLICIES = Resource("mellanox.com/v1alpha1", "nicclusterpolicies", "NicClusterPolicy", namespaced=False)
ABSENT_SECONDS = 60
GPU_LABELS = {"app.kubernetes.io/component": "nvidia-driver"}
OPEN: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def field(kind: str, default: Any = None, **more: Any) -> Object:
    return {"type": kind, **({} if default is None else {"default": default}), **more}


def block(**properties: Object) -> Object:
    return {"type": "object", "properties": properties}


DRAIN = {
    "force": field("boolean", False),
    "podSelector": field("string"),
    "timeoutSeconds": field("integer", 300, minimum=0),
    "deleteEmptyDir": field("boolean", False),
}
COMMON = {
    "autoUpgrade": field("boolean", False),
    "maxParallelUpgrades": field("integer", 1, minimum=0),
    "waitForCompletion": block(podSelector=field("string"), timeoutSeconds=field("integer", 0, minimum=0)),
}
GPU_UPGRADE = block(
    **COMMON,
    maxUnavailable={
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "default": "25%",
        "x-kubernetes-int-or-string": True,
    },
    podDeletion=block(
        force=field("boolean", False), timeoutSeconds=field("integer", 300), deleteEmptyDir=field("boolean", False)
    ),
    drain=block(enable=field("boolean", False), **DRAIN),
)
NIC_UPGRADE = block(**COMMON, safeLoad=field("boolean", False), drain=block(enable=field("boolean", True), **DRAIN))


def crd(resource: Resource, spec: Mapping[str, Object]) -> Object:
    """A definition whose spec has these fields, and any other."""
    group, _, version = resource.api_version.partition("/")
    root = {"type": "object", "properties": {"spec": OPEN | {"properties": dict(spec)}, "status": OPEN}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {"kind": resource.kind, "plural": resource.plural, "singular": resource.kind.lower()},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": root},
                }
            ],
        },
    }


CLUSTER_POLICY_CRD = crd(CLUSTER_POLICIES, {"driver": OPEN | {"properties": {"upgradePolicy": GPU_UPGRADE}}})
NVIDIA_DRIVER_CRD = crd(NVIDIA_DRIVERS, {"upgradePolicy": GPU_UPGRADE, "default": field("boolean", False)})
NIC_POLICY_CRD = crd(NIC_POLICIES, {"ofedDriver": OPEN | {"properties": {"upgradePolicy": NIC_UPGRADE}}})


@pytest_asyncio.fixture
async def gpu(api: Api, control_plane: ControlPlane, crds: None) -> AsyncIterator[World]:
    """A cluster under the GPU Operator: its definitions are gone again afterwards."""
    async with world(api, control_plane, "gpu", domain=DOMAIN, folder="overlays/gpu-operator") as made:
        yield made
    await remove(api, CLUSTER_POLICY_CRD, NVIDIA_DRIVER_CRD)


@pytest_asyncio.fixture
async def nic(api: Api, control_plane: ControlPlane, crds: None) -> AsyncIterator[World]:
    """A cluster under the Network Operator."""
    async with world(api, control_plane, "ofed", domain=DOMAIN, folder="overlays/network-operator") as made:
        yield made
    await remove(api, NIC_POLICY_CRD)


async def remove(api: Api, *definitions: Object) -> None:
    for definition in definitions:
        name = definition["metadata"]["name"]
        if name in {found["metadata"]["name"] for found in await api.list(CRDS)}:
            await api.delete(CRDS, name)
            await api.wait_gone(CRDS, name)


async def driver(cluster: World, labels: Mapping[str, str]) -> None:
    """The operator's DaemonSet: its own labels on the driver pods."""
    made = scene.driver_daemon_set(
        "1", name="driver", namespace=cluster.namespace, annotations=FAST_DRIVER, node_selector={"pool": cluster.pool}
    )
    made["spec"]["template"]["metadata"]["labels"].update(labels)
    await cluster.api.create(made)
    await cluster.ready(len(cluster.names), "app=driver", cluster.namespace)


async def validator(cluster: World) -> None:
    """The GPU Operator's validation pods."""
    name = "nvidia-operator-validator"
    await cluster.api.create(
        scene.driver_daemon_set(name=name, namespace=cluster.work, node_selector={"pool": cluster.pool})
    )
    await cluster.ready(len(cluster.names), f"app={name}", cluster.work)


def resource_of(kind: Resource, name: str, spec: Object) -> Object:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}, "spec": spec}


def cluster_policy(**upgrade: Any) -> Object:
    spec = {"driver": {"enabled": True, "version": "1", "upgradePolicy": {"autoUpgrade": False, **upgrade}}}
    return resource_of(CLUSTER_POLICIES, "cluster-policy", spec)


def nvidia_driver(name: str, *, default: bool = False, **labels: str) -> Object:
    spec: Object = {"default": default, "upgradePolicy": {"maxParallelUpgrades": 0, "maxUnavailable": "100%"}}
    return resource_of(NVIDIA_DRIVERS, name, spec | ({"nodeSelector": labels} if labels else {}))


def source(cluster: World, preset: str) -> tuple[str, ...]:
    return ("--source", f"{preset}={cluster.namespace}", *DOMAIN_FLAGS)


def marks(node: Object) -> set[str]:
    """Labels and annotations of a node."""
    return {*node["metadata"]["labels"], *node["metadata"]["annotations"]}


async def owners(cluster: World) -> dict[str, str]:
    """The policy in the record of each node."""
    nodes = await cluster.api.list(NODES, labels=f"pool={cluster.pool}")
    return {
        n["metadata"]["name"]: orjson.loads(n["metadata"]["annotations"][cluster.key("upgrade.record")])["policy"]
        for n in nodes
    }


async def test_a_cluster_policy_drives_a_rollout_under_another_label_domain(gpu: World):
    """Its autoUpgrade is false. GPU pods leave, others stay; validation is awaited; the resource itself is not touched."""
    await gpu.nodes(4)
    await driver(gpu, GPU_LABELS)
    await validator(gpu)
    users = await gpu.workload("train", 2, gpus=1)
    others = await gpu.workload("web", 2)
    await gpu.api.apply([CLUSTER_POLICY_CRD])
    made = await gpu.api.create(cluster_policy(maxParallelUpgrades=2, maxUnavailable="50%"))
    owner = DriverOwner(gpu.api, "ClusterPolicy", namespace=gpu.namespace, daemon_set="driver")
    async with gpu.controller(*source(gpu, "gpu-cluster-policy")), owner:
        await gpu.state(DONE)
        await gpu.api.patch(CLUSTER_POLICIES, "cluster-policy", {"spec": {"driver": {"version": "2"}}})
        await gpu.done("2")
    await gpu.recorder.caught_up()
    assert gpu.recorder.most_in_progress() == 2
    assert {name.partition("-")[0] for name in gpu.evicted()} == {"train"}
    assert {pod["metadata"]["uid"] for pod in users} <= set(gpu.recorder.left(gpu.work))
    assert not {pod["metadata"]["uid"] for pod in others} & set(gpu.recorder.left(gpu.work))
    for name in gpu.names:
        assert gpu.recorder.states(name)[-6:-1] == [
            "cordon-required",
            "pod-deletion-required",
            "pod-restart-required",
            "validation-required",
            "uncordon-required",
        ]
        node = await gpu.api.get(NODES, name)
        assert not [key for key in marks(node) if key.startswith("nvidia.com/gpu-driver-upgrade")]
    async with gpu.controller(*DOMAIN_FLAGS):
        # Handed back, as docs/operators.md says: without the source, with no permissions but those of the manifests.
        await gpu.nodes_are(lambda node: not [key for key in marks(node) if key.startswith(DOMAIN)], what="nodes put back")
    kept = await gpu.api.get(CLUSTER_POLICIES, "cluster-policy")
    assert kept["metadata"].get("annotations") == made["metadata"].get("annotations")
    assert "status" not in kept


async def test_a_nic_cluster_policy_drains_but_leaves_what_its_operator_keeps(nic: World):
    await nic.nodes(2)
    await driver(nic, {"nvidia.com/ofed-driver": "", "ds-owner": "NicClusterPolicy"})
    (kept,) = await nic.workload("operator", labels={"nvidia.com/ofed-driver-upgrade-drain.skip": "true"})
    (left,) = await nic.workload("web")
    await nic.api.apply([NIC_POLICY_CRD])
    upgrade = {"autoUpgrade": False, "maxParallelUpgrades": 0, "safeLoad": False, "drain": {}}
    spec = {"ofedDriver": {"image": "doca-driver", "version": "1", "upgradePolicy": upgrade}}
    await nic.api.create(resource_of(NIC_POLICIES, "nic-cluster-policy", spec))
    async with nic.controller(*source(nic, "nic-cluster-policy")):
        await nic.state(DONE)
        await nic.roll("2")
        await nic.done("2")
    await nic.recorder.caught_up()
    gone = nic.recorder.left(nic.work)
    assert left["metadata"]["uid"] in gone, "drain.enable is true where the block is there: their default, not ours"
    assert kept["metadata"]["uid"] not in gone
    assert set((await owners(nic)).values()) == {"NicClusterPolicy/nic-cluster-policy"}


async def test_a_definition_installed_later_is_found_and_pools_have_their_nodes(gpu: World):
    """The older of two pools that overlap has the node, and the default driver what no pool selects."""
    first, second = await gpu.nodes(2, tier="a", zone="z")
    third, fourth = [*await gpu.nodes(1, zone="z"), *await gpu.nodes(1)]
    await driver(gpu, GPU_LABELS)
    await validator(gpu)
    async with gpu.controller(*source(gpu, "gpu-nvidia-driver")) as controller:
        absent = await controller.logged(msg="resource absent", resource="nvidiadrivers.nvidia.com")
        assert "install its CustomResourceDefinition" in absent["detail"]
        await controller.logged(msg="caches synced")
        assert (await controller.get("/readyz"))[0] == 200
        await gpu.api.apply([NVIDIA_DRIVER_CRD])
        await gpu.api.create(nvidia_driver("default", default=True))
        await gpu.api.create(nvidia_driver("z-older", tier="a"))
        await gpu.api.wait_for(
            NODES,
            lambda nodes: all(gpu.state_of(node) for node in nodes),
            labels=f"pool={gpu.pool}",
            timeout=ABSENT_SECONDS + PATIENCE,
            what="nodes labelled after the definition was installed",
        )
        await gpu.api.create(nvidia_driver("a-younger", zone="z"))
        hindered = await controller.logged(msg="policy hindered", reason="PolicyConflict")
        assert hindered["policy"] == f"NVIDIADriver/{gpu.namespace}/a-younger"
        assert f"belong to NVIDIADriver/{gpu.namespace}/z-older, which is older" in hindered["detail"]
        conflict = (await told(gpu, "a-younger", "PolicyConflict"))["PolicyConflict"]
        assert (conflict["involvedObject"]["kind"], conflict["type"]) == ("NVIDIADriver", "Warning"), "all its owner sees"
        await gpu.roll("2")
        await gpu.done("2")
        assert len(controller.found(msg="resource absent")) == 1
        assert len(controller.found(msg="policy hindered")) == 1, "that the default driver gives way is no conflict"
    assert await owners(gpu) == {
        first: "NVIDIADriver/z-older",
        second: "NVIDIADriver/z-older",
        third: "NVIDIADriver/a-younger",
        fourth: "NVIDIADriver/default",
    }


async def test_the_default_label_domain_is_refused(gpu: World):
    process = await Process.start(
        gpu.control_plane.kubeconfig, gpu.namespace, "--source", f"gpu-cluster-policy={gpu.namespace}"
    )
    assert await process.ended() == 2
    said = " ".join(line["msg"] for line in process.lines)
    assert "needs a --label-domain other than nvidia.com" in said
    assert "such as --label-domain" in said


async def test_the_annotation_pauses_and_the_command_sets_it(gpu: World):
    (node,) = await gpu.nodes(1)
    await driver(gpu, GPU_LABELS)
    await validator(gpu)
    await gpu.api.apply([CLUSTER_POLICY_CRD])
    await gpu.api.create(cluster_policy(maxUnavailable="100%"))
    flags = " ".join(source(gpu, "gpu-cluster-policy"))
    command = f"{sys.executable} -m controller {{}} {flags}"
    policy = f"ClusterPolicy/{gpu.namespace}/cluster-policy"
    paused = f"{DOMAIN}/driver-upgrade.paused"
    async with gpu.controller(*source(gpu, "gpu-cluster-policy")) as controller:
        await gpu.state(DONE)
        await gpu.shell(command.format(f"pause {policy}"))
        await controller.metrics(lambda m: m.value("driver_upgrade_policy_paused") == 1)
        found = await gpu.api.get(CLUSTER_POLICIES, "cluster-policy")
        assert found["metadata"]["annotations"] == {paused: "true"}
        await gpu.roll("2")
        await gpu.state(REQUIRED)
        explained = await gpu.shell(command.format(f"explain {node}"))
        assert f"{policy} is paused" in explained.stdout
        await gpu.shell(command.format(f"resume {policy}"))
        await gpu.done("2")
    found = await gpu.api.get(CLUSTER_POLICIES, "cluster-policy")
    assert paused not in found["metadata"].get("annotations", {})

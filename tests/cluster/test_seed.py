"""The seed's words, taken literally: its example, the label as it tells to look at it, and its manual recovery."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.cluster.world import DONE, DRAIN, FAILED, FAST_DRIVER, World, world
from tools.controlplane import scene
from tools.controlplane.api import Api
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.owner import DriverOwner

EXAMPLE = Path(__file__).parents[1] / "fixtures" / "seed-custom-resource.yaml"
CHANGE = """kubectl patch -n nvidia-operator customresources.nvidia.com example-custom-resource --type merge \
    -p '{"spec": {"driver": {"version": "%s"}}}'"""


@pytest_asyncio.fixture
async def seed(api: Api, control_plane: ControlPlane, crds: None) -> AsyncIterator[World]:
    """A cluster as the seed has it in mind: driver `gpu`, its pods labelled app=nvidia-driver-daemonset."""
    async with world(api, control_plane, "gpu", "nvidia-operator") as made:
        yield made


async def test_example_applied_verbatim_upgrades_all_nodes_at_once_when_the_version_changes(seed: World):
    await seed.nodes(4)
    await seed.driver("1", name=scene.DRIVER, node_selector={})
    await seed.hold()
    await seed.shell(f"kubectl apply -f {EXAMPLE}")
    async with seed.controller(), DriverOwner(seed.api, "CustomResource"):
        await seed.state(DONE)
        await seed.shell(CHANGE % "2")
        await seed.any_in(DRAIN, 4)
        await seed.release()
        await seed.done("2")
    await seed.recorder.caught_up()
    assert seed.recorder.most_in_progress() == 4, "maxParallelUpgrades: 0 means no limit"
    shown = await seed.shell(f"kubectl describe node {seed.names[0]} | grep nvidia.com/gpu-driver-upgrade-state")
    assert shown.stdout.split() == ["nvidia.com/gpu-driver-upgrade-state=upgrade-done"]


async def test_the_version_changed_back_in_the_custom_resource_heals_failed_nodes(seed: World):
    """Change the driver version in the custom resource to one that works: nothing else is to be done by hand."""
    await seed.nodes(3)
    await seed.driver("1", name=scene.DRIVER, node_selector={})
    await seed.shell(f"kubectl apply -f {EXAMPLE}")
    async with seed.controller(), DriverOwner(seed.api, "CustomResource"):
        await seed.state(DONE)
        await seed.shell(CHANGE % "2-crash")
        await seed.state(FAILED)
        await seed.shell(CHANGE % "1")
        await seed.state(DONE)
        await seed.done("1")
    await seed.recorder.caught_up()
    for name in seed.names:
        states = seed.recorder.states(name)
        assert (states.count(FAILED), states[-1]) == (1, DONE)


async def test_manual_recovery_of_a_failed_node(cluster: World):
    """Drain the node, delete the driver pod, wait for the node to finish upgrading."""
    (node,) = await cluster.nodes(1)
    await cluster.driver("1", annotations=FAST_DRIVER)
    await cluster.workload("web", 1)
    await cluster.api.create(scene.budget("web", cluster.work, min_available=1))
    await cluster.policy(drain={"timeoutSeconds": 1})
    async with cluster.controller():
        await cluster.roll("2")
        await cluster.state(FAILED)
        await cluster.shell(f"kubectl delete pdb -n {cluster.work} web")
        await cluster.shell(f"kubectl drain {node} --ignore-daemonsets")
        await cluster.shell(
            f"kubectl delete pod -n `kubectl get -A pods --field-selector spec.nodeName={node} -l app=driver"
            """ --no-headers | awk '{print $1" "$2}'`"""
        )
        await cluster.done("2")
    await cluster.recorder.caught_up()
    assert cluster.recorder.states(node)[-4:] == [FAILED, "validation-required", "uncordon-required", DONE]

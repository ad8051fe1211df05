"""What the driver should be changes in the middle: its version, its DaemonSet, and who else has a hand in its pods."""

import pytest

from tests.cluster.test_interventions import held_in_drain
from tests.cluster.world import DONE, DRAIN, FAST_DRIVER, World
from tools.controlplane import scene
from tools.controlplane.resources import DAEMON_SETS, POD_DISRUPTION_BUDGETS, PODS, Object


def closed(node: Object) -> bool:
    return bool(node["spec"].get("unschedulable"))


def daemon_set(cluster: World, version: str, name: str = "driver", *, select: dict[str, str], **labels: str) -> Object:
    """A DaemonSet of the driver whose selector has further labels."""
    made = scene.driver_daemon_set(
        version, name=name, namespace=cluster.namespace, node_selector=select, annotations=FAST_DRIVER
    )
    made["spec"]["selector"]["matchLabels"] = made["spec"]["template"]["metadata"]["labels"] = {"app": "driver", **labels}
    return made


async def test_put_back_half_way_only_the_nodes_that_had_the_new_version_go_back(cluster: World):
    first, second, third = await cluster.nodes(3)
    await cluster.driver("1")
    await cluster.workload("held", node=second)
    await cluster.api.create(scene.budget("held", cluster.work, min_available=1))
    await cluster.policy()
    await cluster.skip(second, third)
    async with cluster.controller() as controller:
        await cluster.roll("2")
        await cluster.done("2", first)
        await cluster.unskip(second)
        await controller.logged(msg="node waits", node=second, reason="PodDisruptionBudget")
        await cluster.unskip(third)
        await controller.logged(msg="node waits", node=third, reason="NoSlot")
        await cluster.roll("1")
        await cluster.done("1")
    await cluster.recorder.caught_up()
    restarted = {d.node for d in cluster.recorder.departures.values() if d.owner == "DaemonSet"}
    assert restarted == {first}, "the others had the right driver all the time"
    assert cluster.recorder.states(first).count("cordon-required") == 2
    assert "cordon-required" not in cluster.recorder.states(third)


async def test_a_daemon_set_deleted_and_made_again_in_the_middle_of_a_drain(cluster: World):
    """Deleted with its pods: the new one's pod is the version that is wanted, so nobody needs to leave for it."""
    async with held_in_drain(cluster, 1) as (controller, node):
        await cluster.shell(f"kubectl delete daemonset -n {cluster.namespace} driver")
        await controller.logged(msg="node waits", node=node, reason="DaemonSetGone")
        await cluster.nodes_are(lambda n: cluster.state_of(n) == DRAIN and closed(n))
        await cluster.driver("2")
        await cluster.done("2")
        assert cluster.evicted() == []


@pytest.mark.parametrize(
    "how", ["kubectl delete daemonset -n {0} driver", "kubectl label node {1} model-"], ids=["deleted", "elsewhere"]
)
async def test_a_node_that_no_daemon_set_wants_for_two_minutes_is_put_back(cluster: World, how: str):
    """The time is in the record: to pass two minutes it is set two minutes back."""
    (node,) = await cluster.nodes(1, model="a")
    await cluster.driver("1", node_selector={"pool": cluster.pool, "model": "a"})
    await cluster.hold()
    await cluster.policy()
    async with cluster.controller() as controller:
        await cluster.roll("2")
        await controller.logged(msg="node waits", node=node, reason="PodDisruptionBudget")
        await cluster.shell(how.format(cluster.namespace, node))
        await controller.logged(msg="node waits", node=node, reason="DaemonSetGone")
        await cluster.nodes_are(lambda n: cluster.state_of(n) == DRAIN and closed(n))
        await cluster.rewrite(node, lambda record: record.update(gone=record["gone"] - 120))
        await cluster.nodes_are(lambda n: cluster.state_of(n) == "" and not closed(n))
        assert cluster.evicted() == []


async def test_two_daemon_sets_whose_names_share_a_prefix_are_not_confused(cluster: World):
    """P7: the peer takes the newest revision of `driver-x` for one of `driver`, and restarts good drivers without end."""
    (first,) = await cluster.nodes(1, model="a")
    (second,) = await cluster.nodes(1, model="b")
    pool = {"pool": cluster.pool}
    await cluster.api.create(daemon_set(cluster, "1", select={**pool, "model": "a"}, model="a"))
    await cluster.api.create(daemon_set(cluster, "1", "driver-x", select={**pool, "model": "b"}, model="b"))
    await cluster.ready(2, "app=driver", cluster.namespace)
    kept = await cluster.driver_pod(first)
    await cluster.policy()
    async with cluster.controller():
        await cluster.state(DONE)
        for version in ("2", "3"):
            await cluster.roll(version, name="driver-x")
            await cluster.done(version, second)
        await cluster.done("1", first)
        assert (await cluster.driver_pod(first))["metadata"]["uid"] == kept["metadata"]["uid"]
        await cluster.roll("4")
        await cluster.done("4", first)
        await cluster.done("3", second)
    await cluster.recorder.caught_up()
    assert cluster.recorder.states(first).count("cordon-required") == 1


async def test_an_orphaned_driver_pod_is_left_alone_until_its_node_is_requested(cluster: World):
    """`kubectl delete ds --cascade=orphan`; the new DaemonSet's selector does not adopt what the old one left."""
    first, second = await cluster.nodes(2)
    select = {"pool": cluster.pool}
    await cluster.api.create(daemon_set(cluster, "1", select=select))
    await cluster.ready(2, "app=driver", cluster.namespace)
    old = {name: await cluster.driver_pod(name) for name in (first, second)}
    await cluster.workload("web", node=first)
    await cluster.shell(f"kubectl delete daemonset -n {cluster.namespace} driver --cascade=orphan")
    # Its pods sort before what is left: which pod is replaced must not hang on names.
    await cluster.api.create(daemon_set(cluster, "2", "a-new-driver", select=select, generation="new"))
    await cluster.ready(2, "app=driver,generation=new", cluster.namespace)
    await cluster.policy()
    async with cluster.controller():
        await cluster.state(DONE)
        assert cluster.evicted() == []
        await cluster.annotate(first, upgrade_requested="true")
        await cluster.gone(old[first])
        await cluster.done("2", first)
        assert len(cluster.evicted()) == 1
    left = await cluster.api.get(PODS, old[second]["metadata"]["name"], cluster.namespace)
    assert left["metadata"]["uid"] == old[second]["metadata"]["uid"], "nobody asked for this one"
    await cluster.recorder.caught_up()
    assert "cordon-required" not in cluster.recorder.states(second)


async def test_a_driver_pod_that_someone_else_replaces_in_the_middle_ends_the_drain(cluster: World):
    async with held_in_drain(cluster, 1) as (_, node):
        old = await cluster.driver_pod(node)
        await cluster.shell(f"kubectl delete pod -n {cluster.namespace} {old['metadata']['name']}")
        await cluster.done("2")
        assert cluster.evicted() == []
        held = await cluster.api.list(POD_DISRUPTION_BUDGETS, cluster.work)
        assert len(held) == 1, "the budget held until the end: nothing had to leave"
    await cluster.recorder.caught_up()
    assert DAEMON_SETS.kind in {d.owner for d in cluster.recorder.departures.values()}

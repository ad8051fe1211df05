"""Events as people see them: with the real kubectl, on nodes and policies, of a controller that runs as they run it."""

from collections.abc import Sequence

from controller.operate.events import CONTROLLER
from controller.upgrade.remedies import REMEDIES
from tests.cluster.test_cli import explained
from tests.cluster.test_interventions import held_in_drain
from tests.cluster.world import DONE, DRAIN, FAILED, REQUIRED, World
from tools.controlplane.resources import EVENTS, Object


async def told(cluster: World, about: str, *reasons: str, namespace: str = "default") -> dict[str, Object]:
    """Waits until there are Events of ours about an object with all these reasons; returns them by reason."""
    by_reason: dict[str, Object] = {}

    def all_there(events: Sequence[Object]) -> bool:
        by_reason.update({e["reason"]: e for e in events if e["reportingComponent"] == CONTROLLER})
        return by_reason.keys() >= set(reasons)

    fields = f"involvedObject.name={about}"
    await cluster.api.wait_for(EVENTS, all_there, namespace, fields=fields, what=f"events {reasons} about {about}")
    return by_reason


async def test_a_rollout_is_told_step_by_step_where_kubectl_describe_shows_it(cluster: World):
    steps = ["UpgradeRequired", "UpgradeStarted", "Draining", "RestartingDriver", "Uncordoning", "UpgradeDone"]
    async with held_in_drain(cluster, 1) as (controller, node):
        await told(cluster, cluster.pool, "RolloutStarted", namespace=cluster.namespace)
        await cluster.release()
        await cluster.done("2")
        found = await told(cluster, node, *steps)
        await told(cluster, cluster.pool, "RolloutStarted", "RolloutFinished", namespace=cluster.namespace)
        metrics = await controller.metrics()
    assert {found[step]["type"] for step in steps} == {"Normal"}
    assert found["UpgradeStarted"]["related"]["name"] == cluster.pool
    begins = f"driver {cluster.driver_name}: the upgrade to revision 2 of DaemonSet driver begins"
    assert begins in found["UpgradeStarted"]["message"]
    described = (await cluster.shell(f"kubectl describe node {node}")).stdout.partition("Events:")[2]
    assert all(step in described for step in steps), described
    about = f"kubectl describe driverupgradepolicy {cluster.pool} -n {cluster.namespace}"
    described = (await cluster.shell(about)).stdout.partition("Events:")[2]
    assert "RolloutStarted" in described
    assert "RolloutFinished" in described
    assert metrics.value("driver_upgrade_events_total", outcome="written") >= len(steps) + 1
    assert metrics.value("driver_upgrade_events_total", outcome="refused") == 0


async def test_one_blocked_node_has_the_same_reason_wherever_one_looks(cluster: World):
    """In `explain`, the policy's status, the Event and the log: design, section 7."""
    async with held_in_drain(cluster, 1) as (controller, node):
        event = (await told(cluster, node, "PodDisruptionBudget"))["PodDisruptionBudget"]
        status = await cluster.status(lambda s: s.get("waitingFor") == "PodDisruptionBudget")
        found = await explained(cluster, node)
        line, *_ = controller.found(msg="node waits", node=node, reason="PodDisruptionBudget")
        described = (await cluster.shell(f"kubectl describe node {node}")).stdout.partition("Events:")[2]
        await cluster.release()
        await cluster.done("2")
    (active,) = status["active"]
    (blocker,) = active["blockers"]
    assert (active["node"], active["state"], active["reason"]) == (node, DRAIN, "PodDisruptionBudget")
    assert found["reason"] == blocker["reason"] == found["blockers"][0]["reason"] == "PodDisruptionBudget"
    assert blocker["name"] == found["blockers"][0]["name"] == event["related"]["name"]
    assert f"{cluster.work}/{blocker['name']}" in line["blockers"]
    assert line["reconcile"].startswith(f"{node}-")
    assert line["policy"] == found["policy"]
    assert (event["type"], event["related"]["kind"], event["related"]["namespace"]) == ("Warning", "Pod", cluster.work)
    assert REMEDIES[found["reason"]] in event["message"]
    assert "PodDisruptionBudget" in described


async def test_a_node_that_its_paused_policy_keeps_waiting_has_that_reason_wherever_one_looks(cluster: World):
    """Told of the policy and not of each node: ten thousand may wait."""
    first, second = await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.policy(paused=True)
    async with cluster.controller() as controller:
        await cluster.state(DONE)
        await cluster.roll("2")
        await cluster.state(REQUIRED)
        line = await controller.logged(msg="node waits", node=second, reason="Paused")
        status = await cluster.status(
            lambda s: any(b["reason"] == "Paused" and b["nodes"] == 2 for b in s.get("blocked", ()))
        )
        found = await explained(cluster, second)
        await told(cluster, cluster.pool, "RolloutPaused", namespace=cluster.namespace)
        events = await told(cluster, second, "UpgradeRequired")
        metrics = await controller.metrics()
    assert line["state"] == REQUIRED
    assert not controller.found(msg="node waits", reason="NoSlot")
    assert (status["state"], status["waitingFor"]) == ("Paused", "Paused")
    assert status["blocked"] == [{"reason": "Paused", "nodes": 2, "example": min(first, second)}]
    assert found["reason"] == "Paused"
    assert set(events) == {"UpgradeRequired"}
    assert metrics.value("driver_upgrade_nodes_blocked", driver=cluster.driver_name, reason="Paused") == 2


async def test_a_failure_warns_on_node_and_policy_and_its_end_is_told_too(cluster: World):
    first, *_ = await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.pod("bare", first)
    await cluster.policy(parallel=2, failureThreshold=1)
    async with cluster.controller():
        await cluster.roll("2")
        await told(cluster, first, "UnmanagedPod")
        await cluster.expire(first)
        await cluster.state(FAILED, first)
        found = await told(cluster, first, "UpgradeFailed", "UnmanagedPod")
        halted = await told(cluster, cluster.pool, "RolloutHalted", "NodesFailed", namespace=cluster.namespace)
        status = await cluster.status(lambda s: s.get("failed") and s["state"] == "Halted")
        await cluster.edit(drain={"force": True})
        await cluster.shell(f"kubectl label --overwrite node {first} {cluster.state_label}={REQUIRED}")
        await cluster.done("2")
        await told(cluster, cluster.pool, "HaltEnded", "NodesRecovered", namespace=cluster.namespace)
    assert found["UpgradeFailed"]["type"] == found["UnmanagedPod"]["type"] == halted["RolloutHalted"]["type"] == "Warning"
    assert found["UnmanagedPod"]["related"]["name"] == "bare"
    assert "drain.force" in found["UnmanagedPod"]["message"]
    assert f"failed in {DRAIN}: DeadlineExceeded" in found["UpgradeFailed"]["message"]
    assert f"driver-upgrade retry {first}" in found["UpgradeFailed"]["message"]
    (failed,) = status["failed"]
    assert (failed["node"], failed["state"], failed["reason"]) == (first, DRAIN, "DeadlineExceeded")


async def test_an_invalid_policy_is_told_of_and_so_is_its_correction(cluster: World):
    await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.policy(drain={"podSelector": "a in ("})
    async with cluster.controller():
        found = await told(cluster, cluster.pool, "PolicyInvalid", namespace=cluster.namespace)
        await cluster.edit(drain={"podSelector": ""})
        await told(cluster, cluster.pool, "PolicyAccepted", namespace=cluster.namespace)
    assert "spec.driver.upgradePolicy.drain.podSelector" in found["PolicyInvalid"]["message"]

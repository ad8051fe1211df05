"""The policy's status on the real API server, whose schema it must satisfy, and what kubectl shows of it."""

from datetime import datetime

from tests.cluster.test_cli import ok
from tests.cluster.test_events import told
from tests.cluster.test_interventions import held_in_drain
from tests.cluster.world import DONE, DRAIN, REQUIRED, World
from tools.controlplane.resources import DEPLOYMENTS, PODS, Object


async def row(cluster: World, *flags: str) -> dict[str, str]:
    """What `kubectl get` shows of the policy, by column."""
    answer = await cluster.shell(
        f"kubectl get driverupgradepolicies {cluster.pool} -n {cluster.namespace} {' '.join(flags)}"
    )
    head, line = answer.stdout.splitlines()
    starts = [head.index(name) for name in head.split()]
    ends = [*starts[1:], None]
    return {name: line[a:b].strip() for name, a, b in zip(head.split(), starts, ends, strict=True)}


def no_slot_for(count: int, status: Object) -> bool:
    """Whether a node is held up by a budget, and so many wait for its slot."""
    found = [one["nodes"] for one in status.get("blocked", ()) if one["reason"] == "NoSlot"]
    return found == [count] and status.get("waitingFor") == "PodDisruptionBudget"


async def finish_one(cluster: World, node: str) -> None:
    """Lets one node of `hold` go: its workload is deleted, the budget still holds the others."""
    (pod,) = await cluster.api.list(PODS, cluster.work, labels="held=yes", fields=f"spec.nodeName={node}")
    name = pod["metadata"]["labels"]["app"]
    await cluster.api.delete(DEPLOYMENTS, name, cluster.work)
    await cluster.done("2", node)


async def test_kubectl_get_tells_the_story_of_a_rollout(cluster: World):
    async with held_in_drain(cluster, 3) as (_, first):
        status = await cluster.status(lambda s: no_slot_for(2, s))
        assert "estimatedCompletion" not in status, "nothing is done yet: there is no pace"
        shown = await row(cluster)
        assert (shown["STATE"], shown["UPTODATE"], shown["INPROGRESS"]) == ("Upgrading", "0/3", "1")
        assert (shown["FAILED"], shown["WAITINGFOR"], shown["ESTIMATED"]) == ("0", "PodDisruptionBudget", "")
        begun = status["startedAt"]
        (target,) = status["targets"]
        assert (target["daemonSet"], target["revision"], target["nodes"]) == ("driver", 2, 3)
        assert target.get("upToDate", 0) == 0
        assert status["blocked"] == [{"reason": "NoSlot", "nodes": 2, "example": min(set(cluster.names) - {first})}]

        await finish_one(cluster, first)
        second = await cluster.any_in(DRAIN)
        status = await cluster.status(lambda s: "estimatedCompletion" in s and s.get("waitingFor") == "PodDisruptionBudget")
        assert status["startedAt"] == begun, "it is still the same rollout"
        assert datetime.fromisoformat(begun) <= datetime.fromisoformat(status["estimatedCompletion"])
        assert [a["node"] for a in status["active"]] == [second]
        assert status["targets"][0]["upToDate"] == 1
        shown = await row(cluster, "-o", "wide")
        assert (shown["UPTODATE"], shown["STARTED"], shown["PENDING"]) == ("1/3", begun, "1")
        assert shown["ESTIMATED"]

        surveyed = (await ok(cluster, "status", "-o", "json")).data["policies"][0]
        assert surveyed["startedAt"] == begun
        assert surveyed["estimatedCompletion"]
        assert f"since {begun}, done about " in (await ok(cluster, "status")).out

        await cluster.edit(paused=True)
        status = await cluster.status(lambda s: s["state"] == "Paused")
        assert "estimatedCompletion" not in status, "it says nothing of an end while it cannot go on"
        await cluster.edit(paused=False)
        await cluster.release()
        await cluster.done("2")
        status = await cluster.status(lambda s: s["state"] == "Idle")
        assert not {"startedAt", "estimatedCompletion", "active", "waitingFor"} & status.keys()
        assert (await row(cluster))["UPTODATE"] == "3/3"


async def test_a_restarted_controller_goes_on_with_the_rollouts_times(cluster: World):
    async with held_in_drain(cluster, 2) as (_, first):
        await finish_one(cluster, first)
        before = await cluster.status(lambda s: "estimatedCompletion" in s)
    async with cluster.controller() as again:
        await again.logged(msg="node waits", reason="PodDisruptionBudget")
        await cluster.edit(maxParallelUpgrades=2)
        after = await cluster.status(
            lambda s: s["observedGeneration"] > before["observedGeneration"] and s.get("waitingFor") == "PodDisruptionBudget"
        )
        assert after["startedAt"] == before["startedAt"]
        assert "estimatedCompletion" in after
        await cluster.release()
        await cluster.done("2")


async def test_a_rollout_of_which_nothing_can_begin_says_so(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.policy()
    await ok(cluster, "skip", node)
    async with cluster.controller():
        await cluster.state(DONE)
        await cluster.roll("2")
        await cluster.state(REQUIRED)
        found = await cluster.condition("Progressing", "False", reason="Blocked")
        assert found["observedGeneration"] == 1
        assert "1 Skipped" in found["message"]
        shown = await row(cluster)
        assert (shown["STATE"], shown["WAITINGFOR"], shown["UPTODATE"]) == ("Blocked", "Skipped", "0/1")


async def test_a_rollout_that_max_unavailable_stops_says_so_and_goes_on_when_there_is_room(cluster: World):
    await cluster.nodes(3)
    await cluster.driver("1")
    await cluster.policy(parallel=2, maxUnavailable=0)
    async with cluster.controller():
        await cluster.state(DONE)
        await cluster.roll("2")
        await cluster.state(REQUIRED)
        status = await cluster.status(lambda s: s["state"] == "Blocked" and s["nodes"]["pending"] == 3)
        assert "estimatedCompletion" not in status
        found = await cluster.condition("Progressing", "False", reason="Blocked")
        held = "3 MaxUnavailable: 0 of 3 nodes are unavailable, maxUnavailable is 0."
        assert held in found["message"]
        shown = await row(cluster)
        assert (shown["STATE"], shown["WAITINGFOR"], shown["UPTODATE"]) == ("Blocked", "MaxUnavailable", "0/3")
        event = (await told(cluster, cluster.pool, "RolloutBlocked", namespace=cluster.namespace))["RolloutBlocked"]
        assert event["type"] == "Warning"
        assert held in event["message"]

        answer = (await ok(cluster, "status", "-o", "json")).data
        assert answer["nodes"] == [], "what all wait for is told of their policy"
        (policy,) = answer["policies"]
        assert policy["condition"] == "Blocked"
        assert held in policy["message"]
        assert policy["blocked"] == status["blocked"]
        assert [(b["reason"], b["nodes"]) for b in policy["blocked"]] == [("MaxUnavailable", 3)]
        head, line = (await ok(cluster, "status")).out.splitlines()
        assert line[head.index("BLOCKED") :].startswith("3 MaxUnavailable ")
        plan = (await ok(cluster, "plan", "-o", "json")).data
        assert {(n.get("wave", 0), n["reason"]) for n in plan["nodes"]} == {(0, "MaxUnavailable")}

        await cluster.edit(maxUnavailable=1)
        await cluster.done("2")
        await told(cluster, cluster.pool, "RolloutStarted", "RolloutFinished", namespace=cluster.namespace)
        await cluster.status(lambda s: s["state"] == "Idle")

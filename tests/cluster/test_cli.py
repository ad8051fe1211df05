"""The commands on a real cluster, and most of them while no controller runs: they read the cluster themselves."""

import json
from typing import Any

from tests.cluster.cli import Answer, run, running
from tests.cluster.world import DONE, DRAIN, FAILED, REQUIRED, World
from tools.controlplane import scene
from tools.controlplane.resources import NODES, POD_DISRUPTION_BUDGETS, Object, Objects


async def command(cluster: World, *words: str) -> Answer:
    return await run(cluster.control_plane.kubeconfig, *words, "-n", cluster.namespace)


async def ok(cluster: World, *words: str) -> Answer:
    answer = await command(cluster, *words)
    assert answer.code == 0, answer
    return answer


async def explained(cluster: World, node: str) -> Any:
    (found,) = (await ok(cluster, "explain", node, "--driver", cluster.driver_name, "-o", "json")).data["drivers"]
    return found


async def stuck(cluster: World, **drain: Any) -> tuple[str, str]:
    """Two nodes and one slot: the first node's drain is held up by a budget, the second waits; no controller runs."""
    first, second = await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.workload("web", 1, node=first)
    await cluster.api.create(scene.budget("web", cluster.work, min_available=1))
    await cluster.policy(drain=drain)
    await cluster.skip(second)
    async with cluster.controller() as controller:
        await cluster.roll("2")
        await controller.logged(msg="node waits", node=first, reason="PodDisruptionBudget")
        await cluster.unskip(second)
        await controller.logged(msg="node waits", node=second, reason="NoSlot")
        await cluster.state(REQUIRED, second)
    return first, second


async def counted(cluster: World, budget: str) -> None:
    """Waits until the budget's controller has counted the pods: it tells nothing of a budget that it has not seen."""
    await cluster.api.wait_for_object(
        POD_DISRUPTION_BUDGETS,
        budget,
        lambda b: b.get("status", {}).get("observedGeneration") == b["metadata"]["generation"],
        cluster.work,
    )


async def free(cluster: World) -> None:
    await cluster.api.patch(POD_DISRUPTION_BUDGETS, "web", {"spec": {"minAvailable": 0}}, cluster.work)


async def fail(cluster: World) -> str:
    """One node that failed because its drain took too long, and whose budget is free now; no controller runs."""
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.workload("web", 1, node=node)
    await cluster.api.create(scene.budget("web", cluster.work, min_available=1))
    await cluster.policy()
    async with cluster.controller() as controller:
        await cluster.roll("2")
        await controller.logged(msg="node waits", node=node, reason="PodDisruptionBudget")
        await cluster.expire(node)
        await cluster.state(FAILED)
    await free(cluster)
    return node


async def test_explain_names_blockers_deadline_and_remedy_without_a_controller(cluster: World):
    first, second = await stuck(cluster, timeoutSeconds=600)
    drained = await explained(cluster, first)
    assert (drained["state"], drained["reason"], drained["then"]) == (DRAIN, "PodDisruptionBudget", FAILED)
    assert drained["since"] < drained["deadline"]
    (blocker,) = drained["blockers"]
    assert blocker["name"].startswith("web-")
    assert blocker["message"] == "The disruption budget web needs 1 healthy pods and has 1 currently"
    waiting = await explained(cluster, second)
    assert (waiting["reason"], waiting["message"], waiting["holders"]) == ("NoSlot", "1 of 1 slots are in use", [first])
    text = (await ok(cluster, "explain", first)).out
    assert "then upgrade-failed" in text
    assert "\x1b" not in text, "no colour when not on a terminal"


async def test_explain_says_that_a_controller_is_missing_where_nothing_else_is(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.policy()
    assert (await explained(cluster, node))["next"] == f"goes to {DONE}"


async def test_explain_an_unknown_node_suggests_known_ones(cluster: World):
    (node,) = await cluster.nodes(1)
    answer = await command(cluster, "explain", f"{node}x")
    assert answer.code == 1
    assert answer.err.startswith(f"driver-upgrade: there is no node {node}x: did you mean {node}")


async def test_status_shows_slots_and_only_the_nodes_that_matter(cluster: World):
    first, second = await stuck(cluster)
    data = (await ok(cluster, "status", "-o", "json")).data
    (policy,) = data["policies"]
    assert (policy["nodes"], policy["inProgress"], policy["slots"], policy["waiting"]) == (2, 1, 1, 1)
    assert policy["condition"] == "Upgrading"
    assert [node["node"] for node in data["nodes"]] == [first]
    table = (await ok(cluster, "status")).out
    assert first in table
    assert second not in table
    assert "1/1" in table


async def test_status_lists_nodes_with_a_trouble_of_their_own_and_not_those_of_a_paused_policy(cluster: World):
    first, second, third = await cluster.nodes(3)
    await cluster.driver("1")
    await cluster.policy(paused=True)
    async with cluster.controller():
        await cluster.state(DONE)
        await cluster.roll("2")
        await cluster.state(REQUIRED)
    await ok(cluster, "skip", first)
    await cluster.annotate(second, upgrade_requestor_mode="true")
    data = (await ok(cluster, "status", "-o", "json")).data
    assert {node["node"]: node["reason"] for node in data["nodes"]} == {first: "Skipped", second: "OtherOperator"}
    assert data["policies"][0]["condition"] == "Paused"
    assert (await explained(cluster, third))["reason"] == "Paused"


async def test_status_watch_follows_the_cluster(cluster: World):
    first, _ = await stuck(cluster)
    words = ("status", "--watch", "-n", cluster.namespace)
    async with running(cluster.control_plane.kubeconfig, *words, TTY_COMPATIBLE="1") as watching:
        await watching.said("PodDisruptionBudget")
        await ok(cluster, "pause", cluster.pool)
        await watching.said("Paused")
    assert first


async def test_plan_says_who_would_be_evicted_and_what_would_hold_it_up(cluster: World):
    first, second, third = await cluster.nodes(3)
    await cluster.driver("1")
    (web,) = await cluster.workload("web", 1, node=first)
    await cluster.api.create(scene.budget("web", cluster.work, min_available=1))
    await cluster.pod("bare", second)
    await cluster.policy(parallel=2, paused=True)
    await cluster.roll("2")
    await cluster.revised()
    await ok(cluster, "skip", third, "--driver", cluster.driver_name)
    await counted(cluster, "web")
    plan = {n["node"]: n for n in (await ok(cluster, "plan", "-o", "json")).data["nodes"]}
    assert [plan[n].get("wave", 0) for n in (first, second, third)] == [1, 1, 0]
    assert plan[first]["evicts"] == [f"{cluster.work}/{web['metadata']['name']}"]
    assert [plan[n]["blockers"][0]["reason"] for n in (first, second)] == ["PodDisruptionBudget", "UnmanagedPod"]
    assert plan[third]["reason"] == "Skipped"
    text = (await ok(cluster, "plan")).out
    assert f"{cluster.work}/bare" in text
    assert "1 wave: no estimate" in text


async def test_plan_estimates_by_what_the_same_nodes_took_last(cluster: World):
    await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.policy()
    async with cluster.controller():
        await cluster.roll("2")
        await cluster.done("2")
    await cluster.roll("3")
    planned = (await ok(cluster, "plan", "-o", "json")).data
    took = [json.loads(n["metadata"]["annotations"][cluster.key("upgrade.record")])["took"] for n in await nodes_of(cluster)]
    (outlook,) = planned["policies"]
    assert (outlook["waves"], outlook["seconds"], outlook["atMost"]) == (2, sum(took), 2 * (1800 + 300))
    assert "2 waves: about" in (await ok(cluster, "plan")).out


async def nodes_of(cluster: World) -> Objects:
    return await cluster.api.list(NODES, labels=f"pool={cluster.pool}")


async def test_a_failed_node_is_retried_and_done(cluster: World):
    node = await fail(cluster)
    assert (await explained(cluster, node))["reason"] == "DeadlineExceeded"
    assert "tried again" in (await ok(cluster, "retry", node)).out
    assert "already" in (await ok(cluster, "retry", node)).out
    async with cluster.controller():
        await cluster.done("2")
    answer = await command(cluster, "retry", node, "no-such-node")
    assert answer.code == 1
    assert "is not failed but upgrade-done" in answer.err
    assert "no-such-node" in answer.err


async def test_a_skipped_node_waits_until_that_is_undone(cluster: World):
    first, second = await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.policy(parallel=2)
    async with cluster.controller():
        await cluster.state(DONE)
        for _ in range(2):
            await ok(cluster, "skip", first)
        await cluster.roll("2")
        await cluster.done("2", second)
        assert (await explained(cluster, first))["reason"] == "Skipped"
        await ok(cluster, "skip", first, "--undo")
        await cluster.done("2")


async def test_a_kept_cordon_outlives_the_upgrade(cluster: World):
    first, second = await stuck(cluster)
    refused = await command(cluster, "keep-cordon", first, second)
    assert (refused.code, refused.out.count("\n")) == (1, 1), "what could be done is done"
    assert f"kubectl cordon {second}" in refused.err
    await free(cluster)
    async with cluster.controller():
        await cluster.done("2", cordoned=[first])


async def test_a_kept_cordon_can_be_let_go_again(cluster: World):
    first, _ = await stuck(cluster)
    await ok(cluster, "keep-cordon", first)
    await ok(cluster, "keep-cordon", first, "--undo")
    await free(cluster)
    async with cluster.controller():
        await cluster.done("2")


async def test_a_paused_policy_starts_nothing_until_resumed(cluster: World):
    (node,) = await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.policy()
    async with cluster.controller() as controller:
        await cluster.state(DONE)
        for _ in range(2):
            await ok(cluster, "pause", cluster.pool)
        await cluster.condition("Progressing", "False", reason="Paused")
        await cluster.roll("2")
        await controller.logged(msg="node moved", node=node, state=REQUIRED)
        paused = await explained(cluster, node)
        assert paused["reason"] == "Paused"
        assert paused["remedy"] == f"Run `driver-upgrade resume DriverUpgradePolicy/{cluster.namespace}/{cluster.pool}`."
        await ok(cluster, "resume", f"{cluster.namespace}/{cluster.pool}")
        await cluster.done("2")


async def test_an_unknown_policy_suggests_known_ones(cluster: World):
    await cluster.policy()
    answer = await command(cluster, "pause", cluster.pool[:-1])
    assert answer.code == 1
    assert f"did you mean {cluster.pool}" in answer.err


async def test_a_user_without_permission_is_told_what_is_missing(cluster: World):
    node: Object = (await cluster.api.list(NODES))[0] if await cluster.nodes(1) else {}
    token = await cluster.api.service_account_token("default", cluster.work)
    kubeconfig = cluster.control_plane.kubeconfig_for(token, cluster.pool)
    answer = await run(kubeconfig, "skip", node["metadata"]["name"], "--driver", cluster.driver_name)
    assert answer.code == 1
    assert "not allowed" in answer.err
    assert 'cannot get resource "nodes"' in answer.err

"""The controller dies at the worst moments, and the next one goes on where it was."""

from tests.cluster.test_driver import validator
from tests.cluster.world import DRAIN, FAILED, JOBS, REQUIRED, RESTART, VALIDATION, World
from tools.controlplane import scene

STATES = [REQUIRED, JOBS, DRAIN, RESTART, VALIDATION]


async def test_killed_in_every_state_and_started_again_it_finishes_within_the_limit(cluster: World):
    await cluster.nodes(6)
    await cluster.driver("1")
    await validator(cluster)
    await cluster.workload("web", 6)
    jobs = [await cluster.job(f"train-{n}", node, "1h", kind="training") for n, node in enumerate(cluster.names[:2])]
    await cluster.policy(
        parallel=2, waitForCompletion={"podSelector": "kind=training"}, validation={"podSelector": "app=validator"}
    )
    await cluster.roll("2")
    for state in STATES:
        async with cluster.controller() as controller:
            await cluster.any_in(state)
            controller.kill()
        if state == JOBS:
            await cluster.finish(*jobs)
    async with cluster.controller():
        await cluster.done("2")
    await cluster.recorder.caught_up()
    assert cluster.recorder.most_in_progress() == 2
    evicted = cluster.evicted()
    assert len(set(evicted)) == len(evicted)
    assert not {job["metadata"]["name"] for job in jobs} & set(evicted)
    for node in cluster.names:
        assert cluster.recorder.states(node).count("cordon-required") == 1, "no upgrade begins twice"


async def test_the_time_used_before_a_restart_counts(cluster: World):
    """A drain's deadline passes while no controller runs: the next one gives up before it waits for anything."""
    first, _ = await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.workload("web", node=first)
    await cluster.api.create(scene.budget("web", cluster.work, min_available=1))
    await cluster.policy(select={"kubernetes.io/hostname": first})
    await cluster.roll("2")
    async with cluster.controller() as controller:
        await controller.logged(msg="node waits", node=first, reason="PodDisruptionBudget")
        controller.kill()
        await controller.ended()
    await cluster.expire(first)
    async with cluster.controller() as controller:
        await controller.logged(msg="node moved", node=first, state=FAILED, reason="DeadlineExceeded")
        assert not controller.found(msg="node waits", reason="PodDisruptionBudget")

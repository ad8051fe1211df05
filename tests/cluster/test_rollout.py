"""A rollout in its straight path: how many nodes at a time, through which states, and what is left behind."""

import pytest

from tests.cluster.world import DONE, DRAIN, REQUIRED, RESTART, World


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (3, 3), (0, 5)])
async def test_no_more_nodes_at_a_time_than_the_limit_and_no_fewer(cluster: World, limit: int, most: int):
    await cluster.nodes(5)
    await cluster.driver("1")
    await cluster.hold()
    await cluster.policy(parallel=limit)
    async with cluster.controller():
        await cluster.state(DONE)
        await cluster.roll("2")
        await cluster.any_in(DRAIN, most)
        await cluster.release()
        await cluster.done("2")
    await cluster.recorder.caught_up()
    assert cluster.recorder.most_in_progress() == most
    upgrade = [REQUIRED, "cordon-required", DRAIN, RESTART, "uncordon-required", DONE]
    for node in cluster.names:
        assert cluster.recorder.states(node) == ["", DONE, *upgrade]

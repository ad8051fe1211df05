"""What readiness says where everything can be watched and something else is missing."""

import orjson

from tests.cluster.test_connection import CLUSTER_ROLES, account, rules
from tests.cluster.world import World


async def test_without_the_list_before_the_first_grant_it_is_not_ready_and_says_why(cluster: World):
    """Watches bring all nodes, so nothing but that one list is missing; it starts no upgrade then."""
    await cluster.nodes(1)
    await cluster.driver("1")
    await cluster.policy()
    async with account(cluster, ("nodes", "list")) as kubeconfig, cluster.controller(kubeconfig=kubeconfig) as controller:
        await controller.logged(msg="caches synced")
        await controller.logged(msg="nodes not listed, no grants yet")
        status, text = await controller.get("/readyz")
        assert status == 503
        waiting = orjson.loads(text)["waiting"]
        assert list(waiting) == ["nodes"]
        assert "no grants yet" in waiting["nodes"]
        assert "grant list on nodes cluster-wide" in waiting["nodes"]
        await cluster.api.patch(CLUSTER_ROLES, cluster.pool, {"rules": rules()})
        await cluster.roll("2")
        await cluster.done("2")
        assert await controller.get("/readyz") == (200, "ok\n")

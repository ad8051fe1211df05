"""What the controller tells over HTTP in the course of a rollout."""

from tests.cluster.world import DONE, DRAIN, REQUIRED, World

FROM_UNCORDON = {"from": "uncordon-required"}
NAMES = {
    "driver_upgrade_build_info",
    "driver_upgrade_nodes",
    "driver_upgrade_nodes_blocked",
    "driver_upgrade_nodes_in_progress",
    "driver_upgrade_nodes_failed",
    "driver_upgrade_nodes_unavailable",
    "driver_upgrade_transitions_total",
    "driver_upgrade_state_seconds_bucket",
    "driver_upgrade_driver_restarts_total",
    "driver_upgrade_evictions_total",
    "rest_client_requests_total",
    "rest_client_request_duration_seconds_bucket",
    "rest_client_rate_limiter_duration_seconds_bucket",
    "reflector_lists_total",
    "workqueue_depth",
    "workqueue_adds_total",
    "workqueue_retries_total",
    "workqueue_queue_duration_seconds_bucket",
    "workqueue_work_duration_seconds_bucket",
    "process_resident_memory_bytes",
}


async def test_health_readiness_and_metrics_follow_a_rollout(cluster: World):
    *_, third = await cluster.nodes(3)
    await cluster.driver("1")
    await cluster.hold()
    await cluster.skip(third)
    await cluster.policy(parallel=1)
    policy = {"driver": cluster.pool, "policy": f"DriverUpgradePolicy/{cluster.namespace}/{cluster.pool}"}
    async with cluster.controller() as controller:
        for node in cluster.names:
            await controller.logged(msg="node moved", node=node, state=DONE)
        assert await controller.get("/healthz") == (200, "ok\n")
        assert await controller.get("/readyz") == (200, "ok\n")
        await controller.metrics(lambda m: m.value("driver_upgrade_nodes", **policy, state=DONE) == 3)
        await cluster.roll("2")
        await controller.logged(msg="node waits", reason="PodDisruptionBudget")
        for node in cluster.names:
            await controller.logged(msg="node waits", node=node, state=REQUIRED)
        await controller.metrics(lambda m: m.value("driver_upgrade_nodes_blocked", **policy, reason="Skipped") == 1)
        held = await controller.metrics(lambda m: m.value("driver_upgrade_nodes", **policy, state=DRAIN) == 1)
        assert held.value("driver_upgrade_nodes", **policy, state=REQUIRED) == 2
        assert held.value("driver_upgrade_nodes_in_progress", **policy) == 1
        assert held.value("driver_upgrade_nodes_unavailable", **policy) == 1
        assert held.value("driver_upgrade_nodes_failed", **policy) == 0
        await cluster.release()
        others = [name for name in cluster.names if name != third]
        await cluster.done("2", *others)
        for node in others:
            await controller.logged(msg="node moved", node=node, state=DONE, **FROM_UNCORDON)
        after = await controller.metrics(lambda m: m.value("workqueue_depth", name="nodes") == 0)
    driver = {"driver": cluster.pool}
    assert after.value("driver_upgrade_nodes", **policy, state=DONE) == 2
    assert after.value("driver_upgrade_nodes_in_progress", **policy) == 0
    assert after.value("driver_upgrade_evictions_total", outcome="evicted") == 2
    assert after.value("driver_upgrade_driver_restarts_total", **driver) == 2
    assert after.value("driver_upgrade_transitions_total", **driver, **FROM_UNCORDON, to=DONE) == 2
    assert after.value("driver_upgrade_transitions_total", **driver, to="upgrade-failed") == 0
    assert after.value("driver_upgrade_state_seconds_count", **driver, state=DRAIN) == 2
    assert after.value("rest_client_requests_total", resource="pods", code="201") == 2
    assert after.names >= NAMES

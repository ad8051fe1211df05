"""For real: a Prometheus and an Alertmanager scrape the controller while a rollout fails, halts, and is mended.

The rules are those that are shipped, with their `for` and thresholds unchanged. NodeFailed and Halted have none, because
neither ends by itself; the alerts that hold for minutes before they fire are left to promtool, where time costs nothing.
"""

from typing import Any

from tests.cluster.test_failures import new_driver_pod
from tests.cluster.world import DONE, FAILED, REQUIRED, RESTART, World
from tests.monitoring.programs import needed
from tests.monitoring.table import rows, series
from tools.monitoring import dashboard
from tools.monitoring.servers import Monitoring, monitoring

# Alerts that a controller that nobody works against must not raise, within the time of the test.
_CALM = {"DriverUpgradeControllerAbsent", "DriverUpgradeNotLeading", "DriverUpgradeClientErrors", "DriverUpgradeErrors"}


async def firing(seen: Monitoring, driver: str) -> dict[str, dict[str, Any]]:
    """What the Alertmanager holds for a driver, by name."""
    return {a["labels"]["alertname"]: a for a in await seen.alerts() if a["labels"].get("driver", driver) == driver}


async def test_a_failed_node_raises_the_alarm_and_the_version_put_back_ends_it(cluster: World):
    for program in ("prometheus", "prometheus-alertmanager"):
        needed(program)
    first, second, third = await cluster.nodes(3)
    await cluster.driver("1")
    await cluster.workload("web", node=first)
    await cluster.skip(third)
    await cluster.policy(failureThreshold=1, maxUnavailable=2)
    async with cluster.controller() as controller:
        await cluster.state(DONE)
        address = (await controller.logged(msg="listening"))["address"]
        async with monitoring(address) as seen:
            policy = f"DriverUpgradePolicy/{cluster.namespace}/{cluster.pool}"
            healthy = f'driver_upgrade_nodes{{policy="{policy}",state="upgrade-done"}} == 3'
            await seen.until(lambda: seen.query(healthy), "all nodes done, as Prometheus sees it")
            assert not await firing(seen, cluster.pool)

            await cluster.roll("2")
            await cluster.done("2", first, second)
            await cluster.roll("3-notready")
            bad = await cluster.any_in(RESTART)
            await new_driver_pod(cluster, bad, "3-notready")
            await cluster.expire(bad)
            await cluster.state(FAILED, bad)
            await seen.until(lambda: _has(seen, cluster.pool, "DriverUpgradeNodeFailed"), "alert of the failed node")
            await seen.until(lambda: _has(seen, cluster.pool, "DriverUpgradeHalted"), "alert of the halt")
            found = await firing(seen, cluster.pool)
            _check(
                found["DriverUpgradeNodeFailed"]["annotations"], f"1 nodes failed to upgrade driver {cluster.pool}", policy
            )
            _check(found["DriverUpgradeHalted"]["annotations"], cluster.pool, f"1 nodes of {policy} failed")
            assert not _CALM & found.keys()
            skipped = f'driver_upgrade_nodes_blocked{{policy="{policy}",reason="Skipped"}} == 1'
            await seen.until(lambda: seen.query(skipped), "the skipped node waits")
            await cluster.state(REQUIRED, third)
            await _every_panel_has_data(seen, cluster.pool, policy)

            await cluster.roll("2")
            await cluster.done("2", first, second)
            await seen.until(lambda: _has_not(seen, cluster.pool), "the end of both alerts")
            await _table_is_the_exposition(seen)

            await cluster.shell(f"kubectl delete driverupgradepolicies.nvidia.com -n {cluster.namespace} {cluster.pool}")
            await seen.until(lambda: _is_forgotten(seen, policy), "the end of all series of the policy")


async def _has(seen: Monitoring, driver: str, name: str) -> bool:
    return name in await firing(seen, driver)


async def _has_not(seen: Monitoring, driver: str) -> bool:
    return not {"DriverUpgradeNodeFailed", "DriverUpgradeHalted"} & (await firing(seen, driver)).keys()


async def _is_forgotten(seen: Monitoring, policy: str) -> bool:
    return not await seen.query(f'{{job="driver-upgrade",policy="{policy}"}}')


def _check(notes: dict[str, str], summary: str, description: str) -> None:
    assert summary in notes["summary"]
    assert description in notes["description"]
    assert "driver-upgrade status" in notes["description"]


async def _every_panel_has_data(seen: Monitoring, driver: str, policy: str) -> None:
    chosen = dashboard.Choice(driver, policy)
    for panel in dashboard.panels():
        for query in panel.queries:
            expr = dashboard.substituted(query.expr, chosen)

            async def look(expr: str = expr) -> bool:
                return bool(dashboard.numbers(await seen.query(expr)))

            await seen.until(look, f"data of panel {panel.title!r}: {expr}")


async def _table_is_the_exposition(seen: Monitoring) -> None:
    """What a controller that upgraded, failed and was mended tells is documented, and what is documented is told."""
    told = {s["metric"]["__name__"] for s in await seen.query('{job="driver-upgrade"}')}
    told -= {name for name in told if name.startswith("scrape_") or name == "up"}
    documented = {name for row in rows().values() for name in series(row)}
    assert told <= documented
    # Told only once a watch has ended, which takes minutes.
    assert documented - told <= {"reflector_watches_total", "reflector_short_watches_total"}

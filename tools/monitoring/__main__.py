"""Draws docs/dashboard.png: ``python -m tools.monitoring`` (or ``make dashboard``).

A real control plane with fake nodes, the controller, a Prometheus; a rollout in which two nodes are skipped and one fails.
When three quarters are done, every panel of the dashboard is asked for the whole time and drawn.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec

import click
from rich.console import Console

from tools import controllerprocess, trouble
from tools.account import installed
from tools.bench import setting
from tools.bench.setting import Size
from tools.controllerprocess import CRDS
from tools.controlplane import scene
from tools.controlplane.api import Api
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import DAEMON_SETS, NODES, PODS, Object
from tools.controlplane.terminal import Reporter
from tools.monitoring.dashboard import Choice, panels, substituted
from tools.monitoring.picture import PICTURE, Drawn, draw
from tools.monitoring.servers import Monitoring, MonitoringError, monitoring

SIZE = Size(nodes=48, parallel=4)
POLICY = f"DriverUpgradePolicy/{scene.NAMESPACE}/{setting.POLICY}"
STATE = "nvidia.com/gpu-driver-upgrade-state"
SKIP = "nvidia.com/gpu-driver-upgrade.skip"
SKIPPED = 2
SHARE = 0.75
DRIVER_DELAY = "5s"
"""How long a new driver takes to load."""
STEP_SECONDS = 1.0
RATE = "15s"
"""What $__rate_interval stands for: a multiple of the scrape interval, as in Grafana."""
TIMEOUT = 600.0


@click.command(help=__doc__)
def main() -> None:
    """Plays the rollout and draws it."""
    if find_spec("matplotlib") is None:
        click.echo("Error: matplotlib is missing: run make dashboard, or pip install -e '.[docs]'", err=True)
        sys.exit(trouble.FAILED)
    report = Reporter(Console(stderr=True, highlight=False))
    try:
        draw(asyncio.run(_play(report)), PICTURE)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(trouble.INTERRUPTED)
    except Exception as error:  # told in a sentence where it is no defect, else raised
        message = str(error) if isinstance(error, MonitoringError) else trouble.known(error)
        if not message:
            raise
        click.echo(f"Error: {message}", err=True)
        sys.exit(trouble.FAILED)
    click.echo(f"Wrote {PICTURE}")


async def _play(report: Reporter) -> Drawn:
    trouble.stop_when_asked()
    with report.task(f"a rollout over {SIZE.nodes} nodes"):
        async with ControlPlane.start(report=report) as cp, Api(cp.access) as api:
            await _install(api)
            flags = ("--driver-namespaces", scene.NAMESPACE)
            ours = await installed(api, cp.access, scene.NAMESPACE, cp.directory)
            async with controllerprocess.running(ours, cp.directory / "controller.log", *flags) as controller:
                await api.wait_for(NODES, lambda nodes: _count(nodes, "upgrade-done") == SIZE.nodes, timeout=TIMEOUT)
                async with monitoring(controller.url.removeprefix("http://")) as seen:
                    return await controller.alongside(_roll(api, seen))


async def _install(api: Api) -> None:
    for crd in CRDS:
        await api.apply(crd.read_text())
    await setting.install(api, SIZE)
    policy = setting.policy(SIZE)
    policy["spec"]["driver"]["upgradePolicy"] |= {
        "failureThreshold": 3,
        "maxUnavailable": "25%",
        "drain": {"enable": True, "timeoutSeconds": 20},
    }
    await api.create(policy)
    for node in (await api.list(NODES))[:SKIPPED]:
        await api.patch(NODES, node["metadata"]["name"], {"metadata": {"labels": {SKIP: "true"}}})


async def _roll(api: Api, seen: Monitoring) -> Drawn:
    done = f'sum(driver_upgrade_nodes{{policy="{POLICY}",state="upgrade-done"}})'
    await seen.until(lambda: seen.query(f"{done} == {SIZE.nodes}"), "all nodes done")
    start = time.time()
    unlucky = (await api.list(NODES))[SKIPPED + 3]["metadata"]["name"]
    bare = scene.pod("notebook", "default", spec=scene.pod_spec(on_node=unlucky))
    await api.create(bare)
    await api.wait_for_object(PODS, "notebook", scene.is_ready, "default")
    template = scene.driver_daemon_set(setting.NEW_VERSION, annotations=scene.stage(ready_delay=DRIVER_DELAY))["spec"][
        "template"
    ]
    await api.patch(DAEMON_SETS, scene.DRIVER, {"spec": {"template": template}}, scene.NAMESPACE)
    await api.wait_for_object(NODES, unlucky, lambda node: _state(node) == "upgrade-failed", timeout=TIMEOUT)
    enough = round(SHARE * SIZE.nodes)
    await api.wait_for(NODES, lambda nodes: _count(nodes, "upgrade-done") >= enough, timeout=TIMEOUT)
    await seen.until(lambda: seen.query(f"{done} >= {enough}"), "most nodes done")
    end, chosen = time.time(), Choice("gpu", POLICY)
    found: Drawn = {}
    for panel in panels():
        found[panel.title] = [
            (query, await seen.query_range(substituted(query.expr, chosen, RATE), start, end, STEP_SECONDS))
            for query in panel.queries
        ]
    return found


def _state(node: Object) -> str:
    return str(node["metadata"]["labels"].get(STATE, ""))


def _count(nodes: Sequence[Object], state: str) -> int:
    return sum(_state(node) == state for node in nodes)


if __name__ == "__main__":
    main(prog_name="python -m tools.monitoring")

"""``driver-upgrade run``: the controller itself. All that it says from here on is said by its log, errors too."""

import asyncio
import logging
import sys

import click

from controller import app, logs
from controller.app import Settings
from controller.cli.common import (
    USAGE_ERROR,
    check_drivers,
    check_namespaces,
    connection_options,
    domain_option,
    seed_options,
)
from controller.cli.serving import serving_options
from controller.cli.sources import source_option, sources_of
from controller.kube.errors import ConfigError
from controller.kube.leaderelection import LeadershipLost
from controller.operate.options import Options
from controller.server.http import ListenError, MetricsAccess
from controller.upgrade.sources import seed_kind

RUNTIME_ERROR = 1

logger = logging.getLogger(__name__)


@click.command()
@connection_options
@click.option(
    "--driver-namespaces",
    default="",
    callback=check_namespaces,
    help="Comma-separated namespaces of drivers and policies. Default: our own, and those of the sources.",
)
@domain_option
@source_option
@click.option(
    "--driver-order",
    default="",
    callback=check_drivers,
    help="Comma-separated drivers: who goes first where two want the same node.",
)
@seed_options
@serving_options
@click.option(
    "--kube-api-qps",
    default=100.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Requests a second to the API server, watches apart. Half of them may mark nodes that wait for their turn.",
)
@click.option(
    "--kube-api-burst",
    default=200,
    show_default=True,
    type=click.IntRange(min=1),
    help="Requests at once after a rest.",
)
@click.option(
    "--workers",
    default=64,
    show_default=True,
    type=click.IntRange(min=1),
    help="Nodes worked on at the same time.",
)
@click.option(
    "--leader-elect/--no-leader-elect",
    default=False,
    show_default=True,
    help="Act only while holding a Lease; needed for more than one replica.",
)
@click.option("--lease-name", default="driver-upgrade", show_default=True, help="Name of that Lease, in our own namespace.")
@click.option("--pod-name", default="", help="Name of our own pod, which the Lease names us by (downward API).")
@click.option("--pod-uid", default="", help="uid of our own pod, which a drain never evicts (downward API).")
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
)
@click.option(
    "--log-format",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "json", "text"]),
    help="auto: text on a terminal, else JSON.",
)
def run(
    *,
    kubeconfig: str | None,
    context: str | None,
    driver_namespaces: tuple[str, ...],
    label_domain: str,
    source: tuple[str, ...],
    driver_order: tuple[str, ...],
    seed_driver: str,
    seed_pod_selector: str,
    listen: str,
    metrics: MetricsAccess,
    kube_api_qps: float,
    kube_api_burst: int,
    workers: int,
    leader_elect: bool,
    lease_name: str,
    pod_name: str,
    pod_uid: str,
    log_level: str,
    log_format: str,
) -> None:
    """Run the controller until SIGTERM or SIGINT; a second one ends it at once, leaving writes unanswered."""
    logs.configure(log_level, log_format)
    seed = seed_kind(seed_driver, seed_pod_selector)
    options = Options(
        driver_namespaces=driver_namespaces,
        sources=sources_of(source, seed, domain=label_domain, namespaces=driver_namespaces),
        domain=label_domain,
        driver_order=driver_order,
        workers=workers,
        pod_uid=pod_uid,
    )
    lease, identity = (lease_name if leader_elect else ""), (f"{pod_name}_{pod_uid}" if pod_name and pod_uid else "")
    settings = Settings(kubeconfig, context, listen, kube_api_qps, kube_api_burst, lease, identity, metrics)
    try:
        asyncio.run(app.run(options, settings))
    except (ConfigError, ListenError) as error:
        logger.error("controller not started", extra={"error": str(error)})  # noqa: TRY400 - the message has it all
        sys.exit(USAGE_ERROR)
    except LeadershipLost as error:
        remedy = "nothing: it ends, so that what runs it starts a standby in its place"
        logger.error("leadership lost", extra={"error": str(error), "remedy": remedy})  # noqa: TRY400 - as above
        sys.exit(RUNTIME_ERROR)

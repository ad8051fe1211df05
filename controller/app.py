"""Composition root: from settings to a running process."""

import asyncio
import logging
import os
import signal
import socket
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import Final

from controller import __version__
from controller.kube import config
from controller.kube.client import Client
from controller.kube.leaderelection import LeaderElectionConfig, LeaderElector, LeadershipLost
from controller.kube.ratelimiters import TokenBucket
from controller.kube.transport import AiohttpTransport, Transport
from controller.operate.controller import Controller
from controller.operate.marking import SHARE
from controller.operate.metrics import Metrics
from controller.operate.options import Options
from controller.server.guard import REVIEWS_BURST, REVIEWS_QPS, Guard
from controller.server.http import MetricsAccess, Server

LEASE_CONNECTIONS: Final = 2
"""A request for the Lease that hangs must not take the next one's connection."""
LEASE_QPS: Final = 5.0
LEASE_BURST: Final = 5
SIGNALLED: Final = 128
"""Shells add this to the number of the signal that ended a process; so do we where a second one ends ours."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What the command line says about the process; :class:`Options` says what it does."""

    kubeconfig: str | None = None
    context: str | None = None
    listen: str = "127.0.0.1:8080"
    qps: float = 100.0
    burst: int = 200
    lease: str = ""
    """Name of the Lease in our own namespace; empty for a single replica that leads without one."""
    identity: str = ""
    """``<pod name>_<pod uid>``: what the Lease names us by."""
    metrics: MetricsAccess = field(default_factory=MetricsAccess)
    """Where ``/metrics`` is served, and to whom."""


async def run(options: Options, settings: Settings) -> None:
    """Run the controller until SIGTERM or SIGINT, then end cleanly; a second one of either ends it at once.

    Raises:
        ConfigError: No usable kubeconfig or service account.
        ListenError: The HTTP address cannot be used.
        LeadershipLost: Another replica leads; the process must exit.
    """
    connection = await config.load(settings.kubeconfig, settings.context)
    namespaces = options.driver_namespaces or options.default_namespaces(connection.namespace)
    options = replace(options, driver_namespaces=namespaces, marks_qps=settings.qps * SHARE)
    metrics = Metrics()
    agent = f"driver-upgrade/{__version__} {options.pod_uid}".rstrip()
    transport = AiohttpTransport(connection, user_agent=agent)
    async with transport, AiohttpTransport(connection, user_agent=agent, connections=LEASE_CONNECTIONS) as apart:
        client = Client(transport, limiter=TokenBucket(settings.qps, settings.burst), metrics=metrics)
        elector = _elector(apart, connection.namespace, settings)
        controller = Controller(client, options, metrics, elector)
        metrics.leads(lambda: controller.leads)
        logger.info("starting", extra={"version": __version__, "server": connection.server, "namespaces": list(namespaces)})
        # Scrapers have a budget of their own: they must not delay a rollout, nor the rollout them.
        guard = Guard(Client(transport, limiter=TokenBucket(REVIEWS_QPS, REVIEWS_BURST), metrics=metrics))
        server = Server(settings.listen, controller.not_ready, metrics.registry, settings.metrics, guard)
        async with metrics.watching_loop(), server.serving():
            lost = await _until_signalled(controller)
    if lost is not None:
        logger.error("leadership lost", extra={"error": str(lost)})
        raise lost
    logger.info("stopped")


def _elector(transport: Transport, namespace: str, settings: Settings) -> LeaderElector | None:
    """The Lease has connections and a rate of its own: a renewal must never wait behind the controller's other requests."""
    if not settings.lease:
        return None
    config = LeaderElectionConfig(namespace, settings.lease, settings.identity or f"{socket.gethostname()}_{uuid.uuid4()}")
    logger.info("electing a leader", extra={"lease": f"{namespace}/{config.name}", "identity": config.identity})
    return LeaderElector(Client(transport, limiter=TokenBucket(LEASE_QPS, LEASE_BURST)), config, clock=_uptime)


def _uptime() -> float:
    """Monotonic seconds that go on while the machine sleeps, where the system has them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


async def _until_signalled(controller: Controller) -> LeadershipLost | None:
    """Run until a signal, or until leadership is lost, which is returned."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(controller.run(), name="controller")
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, task, number)
    try:
        await task
    except asyncio.CancelledError:
        pass
    except LeadershipLost as lost:
        return lost  # not raised: on its way out it would become part of a task group's exception
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    return None


def _stop(task: asyncio.Task[None], number: signal.Signals) -> None:
    """The first signal ends the controller cleanly, the second ends the process at once."""
    logger.info("stopping", extra={"signal": number.name})
    task.cancel()
    for other in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(other)
        # Not the default action: that is to do nothing where we are a container's first process.
        signal.signal(other, lambda number, _: os._exit(SIGNALLED + number))

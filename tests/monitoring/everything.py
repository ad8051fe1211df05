"""One registry in which every metric of the controller has at least one series: what a long life would leave behind."""

import asyncio

from prometheus_client import CollectorRegistry

from controller.kube.informer import Informer
from controller.kube.resources import NODES
from controller.kube.workqueue import WorkQueue
from controller.operate.metrics import Metrics
from controller.upgrade.facts import Ask, Facts
from controller.upgrade.fleet import Fleet
from controller.upgrade.reasons import Reason
from controller.upgrade.states import State
from tests.unit.kube.fake import FakeTransport, make_client
from tests.unit.upgrade.builders import policy

_S = State


async def everything() -> CollectorRegistry:
    """Calls every method that counts, and follows everything that can be followed."""
    metrics, fleet, of = Metrics(), Fleet(), policy(paused=True)
    informer, clock = Informer(make_client(FakeTransport()), NODES), asyncio.get_running_loop().time
    informer.reflector.heard = clock()
    metrics.leads(lambda: True)
    metrics.follow(fleet, lambda: (of,), {}, lambda: 0.0)
    metrics.follow_queue(WorkQueue(metrics=metrics))
    metrics.follow_informers(lambda: (informer,), clock)
    fleet.update("gpu", "a", Facts(of.full_name, _S.UPGRADE_REQUIRED, managed=True, ask=Ask.GRANT, blocked=Reason.SKIPPED))
    metrics.transition("gpu", of.full_name, _S.DRAIN_REQUIRED, _S.UPGRADE_FAILED, 1.0)
    metrics.upgraded("gpu", of.full_name, _S.DRAIN_REQUIRED, _S.UPGRADE_FAILED, 1.0)
    metrics.failed("gpu", of.full_name, _S.DRAIN_REQUIRED, Reason.DEADLINE_EXCEEDED)
    metrics.driver_restarted("gpu", of.full_name)
    metrics.request("GET", "nodes", "200", 0.1)
    metrics.throttled("GET", 0.1)
    metrics.listed("nodes", 1, 0.1)
    metrics.watched("nodes", 0, 0.1, short=True)
    return metrics.registry

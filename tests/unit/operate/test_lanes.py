"""Evictions that take long delay no other node: they are few at a time, and leave room for those of other namespaces.

A webhook of one namespace that holds each eviction for ten seconds would otherwise fill the transport's connections, and
the client's rate limiter, which carry the watches, lists and PATCHes of all other nodes as well.
"""

import asyncio
from collections.abc import Callable, Mapping

import pytest
from msgspec.structs import replace

from controller.api.meta import ObjectMeta
from controller.api.selectors import LabelSelector
from controller.api.workloads import PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus
from controller.kube.client import Client
from controller.kube.clock import ServerClock
from controller.kube.ratelimiters import RateLimiter, TokenBucket
from controller.kube.store import Store
from controller.kube.transport import CONNECTIONS, Response
from controller.operate.budgetwaits import BY_NAMESPACE
from controller.operate.evictor import Evictor
from controller.operate.lanes import EVICTIONS_AT_ONCE
from controller.operate.nodepods import MANY
from controller.upgrade.actions import EvictPod
from tests.unit.kube.fake import FakeTransport
from tests.unit.upgrade.builders import pod

pytestmark = pytest.mark.looptime
SECONDS = {"slow": 10.0, "calm": 0.02}
LATE = 0.1
RESOURCES = 20
"""More than there are informers."""


class Webhooks(FakeTransport):
    """Accepts every eviction, after as long as the pod's namespace takes."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[str, float] = {}
        self.under_way = self.most = 0

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float,  # noqa: ASYNC109
    ) -> Response:
        _, namespace, _, name, _ = path.removeprefix("/api/v1/").split("/")
        assert name not in self.sent
        self.sent[name] = asyncio.get_running_loop().time()
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(SECONDS[namespace])
        self.under_way -= 1
        return Response(201, {}, b'{"kind":"Status","status":"Success"}')


class Counted:
    """What the evictor counts; not looked at here."""

    def evicted(self, outcome: str) -> None: ...


class Drains:
    """Nodes that are emptied, each pod of them without a budget unless there is one."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        limiter: RateLimiter | None = None,
        wanted: Callable[[str, str], bool] = lambda *_: True,
    ) -> None:
        self.transport = Webhooks()
        self.budgets: Store[PodDisruptionBudget] = Store()
        self.budgets.index_by(BY_NAMESPACE, lambda b: (b.namespace,))
        self.client = Client(self.transport, limiter=limiter, clock=ServerClock(asyncio.get_running_loop().time))
        self.evictor = Evictor(self.client, self.budgets, tasks, wanted, lambda _: None, Counted())

    def drain(self, node: str, namespace: str, pods: int, app: str = "") -> list[str]:
        """Asks for the eviction of some pods of a node; returns their names."""
        names = [f"{node}-{number}" for number in range(pods)]
        for name in names:
            one = pod(name, labels={"app": app})
            one = replace(one, metadata=replace(one.metadata, namespace=namespace))
            self.evictor.submit(node, EvictPod(namespace, name, name), one)
        return names

    def when(self, names: list[str]) -> list[float]:
        return sorted(self.transport.sent[name] for name in names)


async def test_many_slow_evictions_leave_connections_for_everything_else():
    async with asyncio.TaskGroup() as tasks:
        drains = Drains(tasks)
        names = [name for node in range(MANY) for name in drains.drain(f"n{node}", "slow", 5)]
    assert len(drains.transport.sent) == len(names)
    assert drains.transport.most <= EVICTIONS_AT_ONCE <= (CONNECTIONS - MANY - RESOURCES) / 2


async def test_one_namespaces_slow_webhook_delays_no_other_namespace():
    async with asyncio.TaskGroup() as tasks:
        drains = Drains(tasks)
        for node in range(MANY):
            drains.drain(f"n{node}", "slow", 3)
        await asyncio.sleep(0.5)
        began = asyncio.get_running_loop().time()
        calm = drains.drain("calm", "calm", 20)
        await asyncio.sleep(5)
        assert drains.when(calm)[-1] - began <= LATE


async def test_one_nodes_many_pods_do_not_go_before_another_nodes_few():
    async with asyncio.TaskGroup() as tasks:
        drains = Drains(tasks)
        began = asyncio.get_running_loop().time()
        drains.drain("many", "slow", 500)
        few = drains.drain("few", "slow", 3)
        await asyncio.sleep(60)
        assert drains.when(few)[-1] - began <= SECONDS["slow"] + LATE


async def test_few_of_many_evictions_stand_before_another_nodes_patch_in_the_rate_limiter():
    async with asyncio.TaskGroup() as tasks:
        drains = Drains(tasks, limiter=TokenBucket(qps=10, burst=10))
        drains.drain("many", "calm", 500)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        await drains.client.in_turn("PATCH")
        assert asyncio.get_running_loop().time() - began <= EVICTIONS_AT_ONCE / 10


async def test_evictions_without_a_budget_in_common_are_sent_at_once():
    async with asyncio.TaskGroup() as tasks:
        drains = Drains(tasks)
        began = asyncio.get_running_loop().time()
        names = drains.drain("n", "slow", EVICTIONS_AT_ONCE // 2)
        await asyncio.sleep(1)
        assert drains.when(names)[-1] == began


async def test_evictions_that_share_a_budget_are_sent_one_after_the_other():
    async with asyncio.TaskGroup() as tasks:
        drains = Drains(tasks)
        for app in ("a", "b"):
            meta = ObjectMeta(name=app, namespace="slow", uid=app, generation=1, resource_version="1")
            status = PodDisruptionBudgetStatus(observed_generation=1, disruptions_allowed=9)
            drains.budgets.apply(
                PodDisruptionBudget(meta, PodDisruptionBudgetSpec(LabelSelector(match_labels={"app": app})), status)
            )
        began = asyncio.get_running_loop().time()
        shared = [*drains.drain("n1", "slow", 2, "a"), *drains.drain("n2", "slow", 1, "a")]
        other = drains.drain("n3", "slow", 1, "b")
    assert [at - began for at in drains.when(shared)] == [0, 10, 20]
    assert drains.when(other) == [began]


async def test_who_has_waited_for_a_slot_is_decided_on_once_more():
    unwanted: set[str] = set()
    async with asyncio.TaskGroup() as tasks:
        drains = Drains(tasks, wanted=lambda node, _: node not in unwanted)
        names = drains.drain("n", "slow", EVICTIONS_AT_ONCE)
        await asyncio.sleep(5)
        unwanted.add("n")
    assert len(drains.transport.sent) == EVICTIONS_AT_ONCE // 2
    assert not drains.evictor.attempts.keys() & (set(names) - drains.transport.sent.keys())

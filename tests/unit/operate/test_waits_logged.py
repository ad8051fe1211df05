"""What the log says at info level of nodes that wait: what a person must act on, once, and never a flood."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from controller.api.node import Node
from controller.kube.client import Client
from controller.kube.clock import ServerClock
from controller.kube.ratelimiters import Unlimited
from controller.kube.store import Store
from controller.kube.workqueue import WorkQueue
from controller.operate.marking import Marking
from controller.operate.worker import LINE_SECONDS, LINES_AT_ONCE, Worker
from controller.upgrade.reasons import Reason
from controller.upgrade.record import Failure
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import State
from tests.unit.kube.fake import FakeTransport
from tests.unit.upgrade.builders import KEYS, NEW, NOW, OLD, STARTING, at, driver_set, node, policy, record, view, workload

pytestmark = pytest.mark.looptime
S, R = State, Reason
SKIP = {KEYS.skip: "true"}
MANY = 1000
THEIRS = {KEYS.requestor_mode: ""}
VALIDATED = policy(validation={"podSelector": "app=check"})
DRAINING = policy(drain={"enable": True})


class Views:
    """One driver on every node that is given."""

    def __init__(self) -> None:
        self.seen: dict[str, NodeView] = {}

    def drivers_of(self, on: Node) -> list[str]:
        return ["gpu"] if on.name in self.seen else []

    def look(self, on: Node, _driver: str) -> NodeView:
        return self.seen[on.name]


class Pods:
    """The pods of nodes, which the views hold already."""

    def ensure(self, name: str) -> None: ...

    def drop(self, name: str) -> None: ...


class Effects:
    """What is decided is not done."""

    async def carry_out(self, *_: object) -> None: ...


def _nothing(*_: object) -> None: ...


class Bench:
    """A worker that looks at nodes as they are given, and what it says."""

    def __init__(self, said: pytest.LogCaptureFixture) -> None:
        self.views, self._said, self._nodes = Views(), said, Store[Node]()
        client = Client(FakeTransport(), clock=ServerClock(asyncio.get_running_loop().time, lambda: NOW))
        views: Any = self.views
        pods: Any = Pods()
        effects: Any = Effects()
        queue = WorkQueue[str]()
        marking = Marking(Unlimited(), queue.add)
        self.worker = Worker(
            client, self._nodes, queue, views, pods, effects, marking, _nothing, _nothing, _nothing, pytest.fail
        )

    async def look(self, seen: NodeView) -> list[str]:
        """Looks at a node, and returns the reasons that were said at info level meanwhile."""
        self._said.clear()
        self.views.seen[seen.node.name] = seen
        self._nodes.apply(seen.node)
        await self.worker.reconcile(seen.node.name)
        return [
            vars(r)["reason"] for r in self._said.records if r.levelno == logging.INFO and r.getMessage() == "node waits"
        ]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, logger="controller.operate.worker"):
        yield caplog


TO_ACT_ON = (
    (at(S.UPGRADE_REQUIRED, OLD, labels=SKIP), R.SKIPPED),
    (at(S.UPGRADE_REQUIRED, OLD, ready=False), R.NODE_NOT_READY),
    (at(S.UPGRADE_REQUIRED, OLD, cordoned=True, policy=policy(cordonedNodes="Skip")), R.NODE_CORDONED),
    (at(S.UPGRADE_REQUIRED, OLD, notes=THEIRS), R.OTHER_OPERATOR),
    (at(S.UPGRADE_DONE, NEW, notes=THEIRS), R.OTHER_OPERATOR),
    (view(node("nonsense"), OLD), R.INVALID_STATE),
    (at(S.UPGRADE_REQUIRED), R.DRIVER_POD_MISSING),
    (at(S.UPGRADE_REQUIRED, OLD, sets=(driver_set(wants=False),), rec={"gone": 999_999.0}), R.DAEMONSET_GONE),
    (at(S.VALIDATION_REQUIRED, NEW, policy=VALIDATED), R.VALIDATION_POD_MISSING),
    (at(S.DRAIN_REQUIRED, OLD, policy=DRAINING, workload=(workload(owner=None),)), R.UNMANAGED_POD),
)
EVERYDAY = (
    (at(S.UPGRADE_REQUIRED, OLD), R.NO_SLOT),
    (at(S.UPGRADE_REQUIRED, OLD, policy=policy(drain={"podSelector": "("})), R.POLICY_INVALID),
    (view(node()), R.DRIVER_POD_MISSING),
    (at(S.UPGRADE_DONE), R.DRIVER_POD_MISSING),
    (at(S.UPGRADE_DONE, NEW, sets=(driver_set(observed=False),)), R.REVISION_UNKNOWN),
    (at(S.DRAIN_REQUIRED, OLD, policy=DRAINING, workload=(workload(),)), R.EVICTING),
    (at(S.POD_RESTART_REQUIRED), R.DRIVER_POD_MISSING),
    (at(S.POD_RESTART_REQUIRED, STARTING), R.DRIVER_POD_NOT_READY),
    (at(S.UPGRADE_FAILED, STARTING, rec={"failure": Failure(R.DRIVER_POD_CRASHING, target="ds@2")}), R.DRIVER_POD_CRASHING),
)


@pytest.mark.parametrize(("seen", "reason"), TO_ACT_ON, ids=[f"{r} [{v.state}]" for v, r in TO_ACT_ON])
async def test_what_a_person_must_act_on_is_said_once(said: pytest.LogCaptureFixture, seen: NodeView, reason: Reason):
    worker = Bench(said)
    assert await worker.look(seen) == [reason]
    assert await worker.look(seen) == []


@pytest.mark.parametrize(("seen", "reason"), EVERYDAY, ids=[f"{r} [{v.state}]" for v, r in EVERYDAY])
async def test_what_every_upgrade_goes_through_is_not(said: pytest.LogCaptureFixture, seen: NodeView, reason: Reason):
    worker = Bench(said)
    assert await worker.look(seen) == []
    assert [vars(r)["reason"] for r in said.records if r.getMessage() == "node waits"] == [reason]


def skipped(number: int) -> NodeView:
    return view(node(S.UPGRADE_REQUIRED, record(S.UPGRADE_REQUIRED), name=f"n{number}", labels=SKIP), OLD)


async def test_of_very_many_nodes_the_first_are_named_and_other_reasons_still_are(said: pytest.LogCaptureFixture):
    worker = Bench(said)
    named = [await worker.look(skipped(number)) for number in range(MANY)]
    assert sum(map(len, named)) == LINES_AT_ONCE
    assert all(named[:LINES_AT_ONCE])
    assert await worker.look(view(node("nonsense", name="typo"), OLD)) == [R.INVALID_STATE]
    await asyncio.sleep(LINE_SECONDS)
    assert await worker.look(skipped(MANY)) == [R.SKIPPED]
    assert await worker.look(skipped(MANY + 1)) == []


async def test_nodes_that_hold_a_slot_are_all_named(said: pytest.LogCaptureFixture):
    worker = Bench(said)
    for number in range(2 * LINES_AT_ONCE):
        on = node(S.VALIDATION_REQUIRED, record(S.VALIDATION_REQUIRED), name=f"n{number}", cordoned=True)
        assert await worker.look(view(on, NEW, policy=VALIDATED)) == [R.VALIDATION_POD_MISSING]

"""Marks of nodes at rest leave the API server to the nodes in progress."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from controller.kube.ratelimiters import TokenBucket
from controller.operate.marking import Marking, is_mark
from controller.upgrade.actions import PatchNode
from controller.upgrade.record import Record
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import State
from tests.unit.upgrade.builders import KEYS, NEW, OLD, at, node, view

pytestmark = pytest.mark.looptime

S = State
LOADING = {KEYS.safe_load: ""}


def mark(state: S | None, *, unschedulable: bool | None = None) -> PatchNode:
    return PatchNode(Record(state=state) if state else None, unschedulable)


@pytest.mark.parametrize(
    ("seen", "patch", "waits"),
    [
        pytest.param(at(S.UPGRADE_DONE, OLD), mark(S.UPGRADE_REQUIRED), True, id="outdated"),
        pytest.param(at(S.UPGRADE_REQUIRED, NEW), mark(S.UPGRADE_DONE), True, id="current after all"),
        pytest.param(view(node(), NEW), mark(S.UPGRADE_DONE), True, id="seen for the first time"),
        pytest.param(at(S.UPGRADE_DONE, NEW), mark(None), True, id="put back"),
        pytest.param(at(S.UPGRADE_REQUIRED, OLD), mark(None, unschedulable=False), False, id="uncordoned"),
        pytest.param(at(S.UPGRADE_REQUIRED, OLD), mark(S.CORDON_REQUIRED), False, id="granted"),
        pytest.param(at(S.DRAIN_REQUIRED, OLD), mark(S.POD_RESTART_REQUIRED), False, id="in progress"),
        pytest.param(at(S.UNCORDON_REQUIRED, NEW), mark(S.UPGRADE_DONE), False, id="at its end"),
        pytest.param(at(S.DRAIN_REQUIRED, OLD), mark(S.UPGRADE_FAILED), False, id="failed"),
        pytest.param(
            at(S.UPGRADE_DONE, OLD, notes={KEYS.safe_load: ""}), mark(S.UPGRADE_REQUIRED), False, id="waits to load"
        ),
    ],
)
def test_what_waits_for_its_turn(seen: NodeView, patch: PatchNode, waits: bool):
    assert is_mark(seen, patch) is waits


class Rush:
    """Nodes that are looked at as soon as that is asked for, and what was written when."""

    def __init__(self, burst: int) -> None:
        self.written: list[tuple[float, str]] = []
        self.outdated = True
        self.marking = Marking(TokenBucket(10, burst), self.look)

    def look(self, name: str) -> None:
        seen = view(node(S.UPGRADE_DONE, name=name), OLD)
        if self.outdated and self.marking.may_write(seen, mark(S.UPGRADE_REQUIRED)):
            self.written.append((round(asyncio.get_running_loop().time(), 3), name))
        self.marking.looked_at(name)


@asynccontextmanager
async def rush(burst: int) -> AsyncIterator[Rush]:
    them = Rush(burst)
    task = asyncio.create_task(them.marking.run())
    try:
        yield them
    finally:
        task.cancel()


async def test_few_at_once_then_one_after_the_other_in_their_order():
    async with rush(2) as them:
        for name in ("b", "a", "d", "c"):
            them.look(name)
        them.look("a")  # an event: it neither goes now nor twice
        assert them.written == []
        await asyncio.sleep(1)
        assert them.written == [(0.0, "b"), (0.0, "a"), (0.1, "d"), (0.2, "c")]


async def test_a_turn_that_is_not_needed_any_more_is_over_with_the_look():
    async with rush(1) as them:
        them.look("a")
        them.outdated = False
        await asyncio.sleep(1)
        them.outdated = True
        them.look("a")
        assert them.written == [], "the turn of a second ago is nobody's now"
        await asyncio.sleep(1)
        assert [name for _, name in them.written] == ["a"]

"""The rollout's task: what it remembers of refused and unanswered grants, what it counts once, and what it gives way to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from controller.api.node import Node
from controller.kube.client import Client
from controller.kube.clock import ServerClock
from controller.kube.errors import Forbidden, NetworkError
from controller.kube.store import Store
from controller.operate.rollout import SLICE, Rollout
from controller.upgrade.facts import Unlisted
from controller.upgrade.policy import Policy
from controller.upgrade.reasons import Reason
from controller.upgrade.snapshot import NodeView
from controller.upgrade.states import State
from tests.unit.kube.fake import FakeTransport
from tests.unit.upgrade.builders import NEW, NOW, OLD, at, node, policy, record, view

pytestmark = pytest.mark.looptime
S = State
REFUSED = Forbidden(403, message="no changes in this week")
LOST = NetworkError("reset")


def waiting(name: str = "n1") -> NodeView:
    """A node that asks for a grant."""
    return view(node(S.UPGRADE_REQUIRED, record(S.UPGRADE_REQUIRED), name=name), OLD)


class Site:
    """A rollout over nodes that are as they are put, and whose grants end as they are told to."""

    def __init__(self, parallel: int = 1, *, ends: Callable[[NodeView], Exception | None] = lambda _: None) -> None:
        self.seen: dict[str, NodeView | Unlisted] = {}
        self.looked: list[str] = []
        self.granted: list[str] = []
        self.nodes: Store[Node] = Store()
        self._policy, self._ends, self._version = policy(maxParallelUpgrades=parallel), ends, 1
        here: Any = self
        client = Client(FakeTransport(), clock=ServerClock(asyncio.get_running_loop().time, lambda: NOW))
        self.rollout = Rollout(client, self.nodes, here, here, here, lambda _: None, lambda _: None)

    def put(self, seen: NodeView | Unlisted) -> None:
        """The node is like that from now on, and the watch has told."""
        half = seen.half if isinstance(seen, Unlisted) else seen
        self._version += 1
        on = replace(half.node, metadata=replace(half.node.metadata, resource_version=str(self._version)))
        half = replace(half, node=on)
        self.seen[on.name] = Unlisted(half) if isinstance(seen, Unlisted) else half
        self.nodes.apply(on)
        self.rollout.touch(on.name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.rollout.run())
        await asyncio.sleep(0.01)
        yield
        task.cancel()
        await asyncio.wait([task])

    # The parts that a rollout has beside it.

    def drivers_of(self, _: Node) -> list[str]:
        return ["gpu"]

    def order(self, driver: str) -> tuple[int, str]:
        return 0, driver

    def look(self, on: Node, _driver: str) -> NodeView | Unlisted:
        self.looked.append(on.name)
        return self.seen[on.name]

    def view(self, on: Node, _driver: str) -> NodeView | None:
        seen = self.seen[on.name]
        return seen if isinstance(seen, NodeView) else None

    def drivers(self) -> tuple[str, ...]:
        return ("gpu",)

    def of_driver(self, _: str) -> tuple[Policy, ...]:
        return (self._policy,)

    def get(self, _: str) -> Policy:
        return self._policy

    def before_transition(self, _: Callable[..., None]) -> None: ...

    async def patch_node(self, seen: NodeView, _patch: object) -> None:
        self.granted.append(seen.node.name)
        await asyncio.sleep(0.001)
        if error := self._ends(seen):
            raise error
        self.put(at(S.DRAIN_REQUIRED, OLD))


async def test_why_a_grant_was_refused_is_forgotten_with_the_wish():
    """The version was put back, and came again: it told why the first one had been refused before it was tried."""
    site = Site(ends=lambda _: REFUSED)
    site.put(waiting())
    async with site.running():
        assert (site.rollout.why_waiting("gpu", "n1") or ("",))[0] is Reason.FORBIDDEN
        site.put(Unlisted(waiting()))
        await asyncio.sleep(0.001)
        assert site.rollout._held_back.why(("gpu", "n1")), "what is not known is no change of mind"
        site.put(at(S.UPGRADE_DONE, NEW))
        await asyncio.sleep(0.001)
        assert not site.rollout._held_back.why(("gpu", "n1"))
        assert not site.rollout._held_back.nodes()


async def test_an_answer_that_the_watch_brought_while_it_was_waited_for_frees_the_slot_at_once():
    site: Site

    def carried_out(seen: NodeView) -> Exception:
        site.put(at(S.UPGRADE_DONE, NEW))
        return LOST

    site = Site(ends=carried_out)
    site.put(waiting())
    async with site.running():
        assert site.granted == ["n1"]
        assert not site.rollout._granting


async def test_unanswered_grants_share_one_handler():
    """Each added one of its own to the store: with no limit on slots, thousands were called at each event of any node."""
    site = Site(parallel=0, ends=lambda _: LOST)
    for n in range(100):
        site.put(waiting(f"n{n}"))
    before = len(site.nodes._handlers)
    async with site.running():
        assert len(site.rollout._granting) == 100
        assert len(site.nodes._handlers) == before
        site.put(view(node(S.UPGRADE_DONE, record(S.UPGRADE_DONE), name="n7"), NEW))
        await asyncio.sleep(0.001)
        assert {name for _, name in site.rollout._granting} == {f"n{n}" for n in range(100)} - {"n7"}
    assert not site.rollout._unanswered


async def test_counting_thousands_gives_way_and_nothing_is_granted_before_its_end():
    """In one go it took a second of ten thousand nodes, with nobody renewing the Lease; half of the counts is no count."""
    site, turns = Site(), 0
    site.put(view(node(S.DRAIN_REQUIRED, record(S.DRAIN_REQUIRED), name="busy"), OLD))
    for n in range(10 * SLICE):
        site.put(waiting(f"n{n}"))

    async def others() -> None:
        nonlocal turns
        while len(site.looked) <= 9 * SLICE:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    async with site.running():
        await task
        assert turns >= 9
        assert len(site.looked) == 10 * SLICE + 1
        assert site.granted == [], "the slot was taken all the while"


@pytest.mark.parametrize("changed", [False, True])
async def test_what_a_worker_has_counted_is_not_counted_once_more_unless_it_changed_meanwhile(changed: bool):
    site = Site()
    site.put(at(S.DRAIN_REQUIRED, OLD))
    site.rollout.refresh("gpu", "n1", site.seen["n1"])
    if changed:
        site.rollout.touch("n1")
    site.rollout.looked_at("n1")
    async with site.running():
        assert site.looked == (["n1"] if changed else [])
        assert site.rollout.fleet.tally("gpu", policy().full_name).in_progress == 1


async def test_a_deleted_node_is_forgotten_by_whoever_looks_first():
    site = Site(ends=lambda _: REFUSED)
    site.put(waiting())
    async with site.running():
        site.nodes.delete(site.nodes.list()[0], "99")
        site.rollout.touch("n1")
        site.rollout.looked_at("n1")
        assert site.rollout.fleet.facts("gpu", "n1") is None
        assert not site.rollout._stale

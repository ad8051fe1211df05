"""All pods of a node, by a watch of its own or by the cluster's; what cannot be decoded is there all the same."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from controller.operate import nodepods
from controller.operate.nodepods import Look, NodePods
from tests.unit.kube.fake import HANG, Answer, FakeTransport, event, json_answer, make_client, watch_list

pytestmark = pytest.mark.looptime


def pod(name: str, version: int, node: str = "n1") -> dict[str, Any]:
    meta = {"name": name, "namespace": "ml", "uid": name, "resourceVersion": str(version)}
    return {"metadata": meta, "spec": {"nodeName": node}}


def bad(name: str, version: int, node: Any = "n1") -> dict[str, Any]:
    return {**pod(name, version), "spec": {"nodeName": node, "containers": "none"}}


def watched(*steps: Any, initial: tuple[Any, ...] = ()) -> Answer:
    return Answer(200, (watch_list(10, *initial), *steps, HANG))


def listed(version: int, *items: Any) -> Answer:
    return json_answer({"metadata": {"resourceVersion": str(version)}, "items": list(items)})


class Bench:
    """The pods of nodes, and who was told of a change."""

    def __init__(self, tasks: asyncio.TaskGroup, *script: Answer) -> None:
        self.transport = FakeTransport(*script)
        self.changed: list[str] = []
        self.pods = NodePods(make_client(self.transport), tasks, self.changed.append, lambda _: None, lambda _: None)

    def told(self) -> list[str]:
        """Who was told since the last time."""
        told, self.changed[:] = list(self.changed), []
        return told

    def names(self, node: str = "n1") -> list[str] | None:
        found = self.pods.look(node).pods
        return None if found is None else sorted(p.name for p in found)

    def selectors(self) -> list[str]:
        """Which node each request was about; empty is all."""
        return [request.params.get("fieldSelector", "") for request in self.transport.requests]


@asynccontextmanager
async def bench(*script: Answer) -> AsyncIterator[Bench]:
    async with asyncio.TaskGroup() as tasks:
        made = Bench(tasks, *script)
        yield made
        for node in (*made.pods._own, *made.pods._shared):
            made.pods.drop(node)


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every node is served by the cluster-wide watch."""
    monkeypatch.setattr(nodepods, "MANY", 0)


async def test_a_pod_that_cannot_be_decoded_is_on_the_node_until_it_is_gone_or_can_be():
    """It was invisible: the node was taken for empty, and the driver deleted under it."""
    steps = (
        5, event("DELETED", bad("a", 11)),
        5, event("ADDED", bad("b", 12)),
        5, event("MODIFIED", pod("b", 13)),
    )  # fmt: skip
    async with bench(watched(*steps, initial=(bad("a", 5),))) as b:
        b.pods.ensure("n1")
        assert b.pods.look("n1") == Look(None)
        await asyncio.sleep(1)
        (error,) = b.pods.look("n1").unreadable.values()
        assert "containers" in error
        assert (b.names(), list(b.pods.look("n1").unreadable), set(b.told())) == ([], ["ml/a"], {"n1"})
        await asyncio.sleep(5)
        assert (b.names(), b.pods.look("n1").unreadable, b.told()) == ([], {}, ["n1"])
        await asyncio.sleep(5)
        assert (list(b.pods.look("n1").unreadable), b.told()) == (["ml/b"], ["n1"])
        await asyncio.sleep(5)
        assert (b.names(), b.pods.look("n1").unreadable, set(b.told())) == (["b"], {}, {"n1"})


async def test_while_the_state_is_taken_anew_what_could_not_be_decoded_before_is_not_forgotten():
    gone = event("ERROR", {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "no"})
    anew = Answer(200, (event("ADDED", pod("b", 14)), 100, event("ADDED", bad("a", 5)), 1, watch_list(20), HANG))
    async with bench(watched(1, gone, initial=(bad("a", 5),)), anew) as b:
        b.pods.ensure("n1")
        await asyncio.sleep(60)
        assert b.transport.kinds == ["WATCHLIST", "WATCHLIST"]
        assert list(b.pods.look("n1").unreadable) == ["ml/a"]
        await asyncio.sleep(60)
        assert (b.names(), list(b.pods.look("n1").unreadable)) == (["b"], ["ml/a"])


async def test_what_a_new_state_no_longer_has_is_told_as_gone():
    gone = event("ERROR", {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "no"})
    async with bench(watched(1, gone, initial=(bad("a", 5),)), watched()) as b:
        b.pods.ensure("n1")
        await asyncio.sleep(0.5)
        b.told()
        await asyncio.sleep(60)
        assert (b.pods.look("n1"), b.told()) == (Look(()), ["n1"])


@pytest.mark.usefixtures("crowded")
async def test_a_node_that_joins_a_watch_that_is_synced_already_is_told():
    """Nobody told: where no write of ours made the node be looked at again, it waited for an event about something else."""
    async with bench(watched(initial=(pod("a", 5, "n2"),))) as b:
        b.pods.ensure("n1")
        await asyncio.sleep(1)
        assert b.told() == ["n1"]
        b.pods.ensure("n2")
        assert (b.told(), b.names("n2")) == (["n2"], ["a"])
        b.pods.ensure("n2")
        assert b.told() == []


@pytest.mark.usefixtures("crowded")
async def test_a_node_is_confirmed_by_a_list_until_a_pod_comes():
    async with bench(watched(5, event("ADDED", pod("a", 20))), listed(15)) as b:
        b.pods.ensure("n1")
        await asyncio.sleep(1)
        assert b.pods.look("n1") == Look((), final=False)
        await b.pods.confirm("n1")
        assert b.pods.look("n1") == Look((), final=True)
        await asyncio.sleep(5)
        assert (b.names(), b.pods.look("n1").final) == (["a"], False)
        assert b.selectors() == ["", "spec.nodeName=n1"]


@pytest.mark.usefixtures("crowded")
async def test_a_node_on_which_a_list_finds_what_cannot_be_decoded_gets_a_watch_of_its_own():
    own = watched(5, event("DELETED", bad("a", 21, node=5)), initial=(bad("a", 9, node=5),))
    async with bench(watched(initial=(bad("a", 9, node=5),)), listed(15, bad("a", 9, node=5)), own) as b:
        b.pods.ensure("n1")
        b.pods.ensure("n2")
        await asyncio.sleep(1)
        await b.pods.confirm("n1")
        assert b.pods.look("n1") == Look(None), "not known again until its own watch has told"
        b.told()
        await asyncio.sleep(1)
        assert (list(b.pods.look("n1").unreadable), set(b.told())) == (["ml/a"], {"n1"})
        assert not b.pods.look("n2").unreadable
        await asyncio.sleep(5)
        assert (b.pods.look("n1"), b.told()) == (Look(()), ["n1"])
        assert b.selectors() == ["", "spec.nodeName=n1", "spec.nodeName=n1"]


@pytest.mark.usefixtures("crowded")
@pytest.mark.parametrize(("node", "doubted"), [("n1", ["n1"]), (5, ["n1", "n2"])], ids=["readable", "unreadable"])
@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED"])
async def test_what_cannot_be_decoded_takes_the_proof_from_the_nodes_that_it_may_be_on(node, doubted, kind):
    async with bench(watched(5, event(kind, bad("a", 20, node))), listed(15), listed(15)) as b:
        for name in ("n1", "n2"):
            b.pods.ensure(name)
        await asyncio.sleep(1)
        for name in ("n1", "n2"):
            await b.pods.confirm(name)
            assert b.pods.look(name).final
        await asyncio.sleep(5)
        assert [name for name in ("n1", "n2") if not b.pods.look(name).final] == doubted


@pytest.mark.usefixtures("crowded")
async def test_a_list_proves_nothing_about_what_came_while_it_was_under_way():
    late = Answer(200, (5, b'{"metadata": {"resourceVersion": "15"}, "items": []}'))
    async with bench(watched(3, event("ADDED", bad("a", 20, node=5))), late, listed(21)) as b:
        b.pods.ensure("n1")
        await asyncio.sleep(1)
        b.told()
        await b.pods.confirm("n1")
        assert (b.pods.look("n1").final, b.told()) == (False, ["n1"])
        await b.pods.confirm("n1")
        assert b.pods.look("n1").final

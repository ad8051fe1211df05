"""What the caches remember beside what they are told goes with what it is about."""

import asyncio
import json
from typing import Any

import pytest

from controller.api.selectors import parse
from controller.kube.resources import NODES
from controller.operate.caches import Caches
from controller.operate.options import Options
from tests.unit.kube.fake import Answer, FakeTransport, json_answer, make_client, node, node_list
from tests.unit.upgrade.builders import daemonset, pod
from tests.unit.upgrade.test_revision import revision

pytestmark = pytest.mark.looptime
DAEMONSET = {
    "metadata": {"name": "ds", "namespace": "ops", "uid": "ds", "resourceVersion": "5"},
    "spec": {"selector": {"matchLabels": {"app": "driver"}}, "template": {"spec": {"containers": []}}},
}


def listed(*items: Any) -> Any:
    return json_answer({"metadata": {"resourceVersion": "9"}, "items": list(items)})


def made(*lists: int) -> Caches:
    """Caches that hold a DaemonSet without revisions, and are asked for these so many times."""
    transport = FakeTransport(*[answer for _ in lists for answer in (listed(), listed(DAEMONSET))])
    caches = Caches(make_client(transport), Options(("ops",)))
    caches.daemonsets["ops"].store.apply(daemonset())
    return caches


async def test_hashes_of_no_revision_are_forgotten_with_their_daemonset():
    caches = made(1)
    await caches.list_revisions("ops", "ds", frozenset({"a"}))
    assert caches._absent == {"ds": {"a"}}
    store = caches.daemonsets["ops"].store
    held = store.get("ops/ds")
    assert held is not None
    store.delete(held)
    assert caches._absent == {}


@pytest.mark.parametrize(("carried", "known"), [("a", {"a", "b"}), ("c", {"b"})])
async def test_hashes_of_no_revision_are_forgotten_when_no_pod_carries_them(carried: str, known: set[str]):
    caches = made(1, 2)
    caches.driver_pods("ops", parse("app=driver"))
    for store in caches.driver_pod_stores():
        store.apply(pod("p", labels={"controller-revision-hash": carried}))
    for unknown in ("a", "b"):
        await caches.list_revisions("ops", "ds", frozenset({unknown}))
    assert caches._absent == {"ds": known}


async def test_a_node_that_is_deleted_between_two_pages_of_a_new_leaders_list_stays_deleted():
    """It came back, and the watch, which had told its end, never told it again: a ghost that held its slot for ever."""
    transport = FakeTransport(
        node_list(100, node("gone", 5), more="next"), Answer(200, (1.0, *node_list(100, node("stays", 6)).steps))
    )
    caches = Caches(make_client(transport), Options(("ops",)))
    store = caches.nodes.store
    store.apply(NODES.decoder.decode(json.dumps(node("gone", 5))))
    listing = asyncio.create_task(caches.list_nodes())
    await asyncio.sleep(0.5)
    store.delete(NODES.decoder.decode(json.dumps(node("gone", 110))))
    await listing
    assert [n.name for n in store.list()] == ["stays"]


async def test_an_older_revision_is_not_taken_for_the_newest_while_that_is_missing():
    """What a deleted DaemonSet leaves is collected in no order: its old pods were current, and their nodes done."""
    caches = made(1)
    ds, store = daemonset(), caches.controller_revisions["ops"].store
    older, newest = revision("drv-a", 1), revision("drv-b", 2)
    store.apply(older)
    store.apply(newest)
    assert caches.revisions(ds).newest == ("b", 2)
    store.delete(newest)
    assert caches.revisions(ds).newest is None
    store.apply(revision("drv-c", 3))
    assert caches.revisions(ds).newest == ("c", 3)


async def test_where_the_daemonset_stands_what_a_list_says_is_the_newest():
    """A person deleted the newest revision, or all of them: the DaemonSet controller counts on from what is left."""
    caches = made(1)
    store = caches.controller_revisions["ops"].store
    first, newest = revision("drv-a", 1), revision("drv-b", 9)
    for each in (first, newest):
        store.apply(each)
        store.delete(each)
    await caches.list_revisions("ops", "ds", frozenset({"b"}))
    store.apply(revision("drv-d", 1))
    assert caches.revisions(daemonset()).newest == ("d", 1)


async def test_numbers_of_revisions_are_forgotten_with_the_last_of_them_or_with_the_daemonset():
    caches = made(1)
    store, daemonsets = caches.controller_revisions["ops"].store, caches.daemonsets["ops"].store
    strange = revision("web-a", 4, owner="a StatefulSet")
    store.apply(strange)
    store.apply(revision("drv-a", 1))
    store.delete(strange)
    assert caches._highest == {"ds": 1}
    held = daemonsets.get("ops/ds")
    assert held is not None
    daemonsets.delete(held)
    assert caches._highest == {}

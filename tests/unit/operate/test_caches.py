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

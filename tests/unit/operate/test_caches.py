"""What the caches remember beside what they are told goes with what it is about."""

from typing import Any

import pytest

from controller.api.selectors import parse
from controller.operate.caches import Caches
from controller.operate.options import Options
from tests.unit.kube.fake import FakeTransport, json_answer, make_client
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

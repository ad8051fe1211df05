"""What is remembered of DaemonSets and selectors is as new as the caches, and lasts as long as a node goes by it."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from controller.api.meta import ObjectMeta, OwnerReference
from controller.api.policy import PolicyObject
from controller.api.selectors import parse
from controller.api.workloads import ControllerRevision
from controller.operate.caches import Caches
from controller.operate.nodepods import Look
from controller.operate.options import Options
from controller.operate.policies import Policies
from controller.operate.views import Views
from controller.upgrade.facts import Unlisted
from controller.upgrade.snapshot import NodeView
from controller.upgrade.sources import OWN_KIND
from controller.upgrade.states import State
from tests.unit.kube.fake import FakeTransport, json_answer, make_client
from tests.unit.upgrade.builders import OLD, daemonset, node, record

pytestmark = pytest.mark.looptime
DRIVER = parse("app=driver")
BUSY = node(State.DRAIN_REQUIRED, record(State.DRAIN_REQUIRED), cordoned=True)
LABELS = {"app": "driver"}
STANDING = {
    "metadata": {"name": "ds", "namespace": "ops", "uid": "ds", "resourceVersion": "5", "generation": 2},
    "spec": {"selector": {"matchLabels": LABELS}, "template": {"metadata": {"labels": LABELS}}},
}


class NoPods:
    def look(self, _: str) -> Look:
        return Look(None)


def listed(*items: Any) -> Any:
    return json_answer({"metadata": {"resourceVersion": "9"}, "items": list(items)})


def revision(number: int) -> ControllerRevision:
    owner = OwnerReference(kind="DaemonSet", name="ds", uid="ds", controller=True)
    meta = ObjectMeta(
        name=f"ds-{number}",
        namespace="ops",
        uid=f"r{number}",
        resource_version=str(number),
        labels={"controller-revision-hash": f"hash{number}"},
        owner_references=(owner,),
    )
    return ControllerRevision(metadata=meta, revision=number)


def of_version(version: str, labels: Mapping[str, str]) -> Any:
    made = daemonset()
    template = replace(made.spec.template, metadata=replace(made.spec.template.metadata, labels=labels))
    meta = replace(made.metadata, resource_version=version)
    return replace(made, metadata=meta, spec=replace(made.spec, template=template))


class Bench:
    """Caches with a DaemonSet and a policy, and the views that are made of them."""

    def __init__(self, *script: Any) -> None:
        options = Options(("ops",), sources=(OWN_KIND,))
        self.caches = Caches(make_client(FakeTransport(*script)), options)
        self.daemonsets = self.caches.daemonsets["ops"].store
        self.daemonsets.apply(of_version("1", LABELS))
        self.policies = Policies(self.caches.policies.items(), ("ops",), options.domain, lambda _: None)
        self.views = Views(self.caches, self.policies, NoPods(), {}, options)

    def policy(self) -> None:
        driver = {"name": "gpu", "podSelector": {"matchLabels": {"app": "driver"}}, "upgradePolicy": {"autoUpgrade": True}}
        meta = ObjectMeta(name="gpu", namespace="ops", uid="p", resource_version="1", generation=1)
        self.caches.policies[OWN_KIND].store.apply(PolicyObject(metadata=meta, spec={"driver": driver}))

    def list_pods(self) -> None:
        """The driver pods have been listed, and one is on the node."""
        self.caches.driver_pods("ops", DRIVER)
        for informer in self.caches.informers():
            informer.reflector._synced.set()
        for store in self.caches.driver_pod_stores():
            store.apply(OLD)

    def look(self) -> NodeView:
        seen = self.views.look(BUSY, "gpu")
        assert isinstance(seen, NodeView)
        return seen


async def test_what_is_not_known_yet_is_neither_a_view_nor_none_of_our_business():
    bench = Bench()
    assert isinstance(bench.views.look(BUSY, "gpu"), Unlisted), "the policy is gone, and the DaemonSet's pods are not listed"
    assert bench.views.view(BUSY, "gpu") is None
    assert bench.views.look(node(), "gpu") is None
    bench.list_pods()
    assert [pod.name for pod in bench.look().driver_pods] == [OLD.name]


@pytest.mark.parametrize("lost", [True, False], ids=["by its record", "by its policy"])
async def test_daemonsets_and_revisions_are_those_of_the_caches(lost: bool):
    bench = Bench(listed(), listed(STANDING), listed(), listed(STANDING))
    if not lost:
        bench.policy()
    bench.list_pods()
    assert not bench.look().sets[0].revisions.known
    for number in (1, 2):
        bench.caches.controller_revisions["ops"].store.apply(revision(number))
    assert bench.look().sets[0].revisions.known == {"hash1": 1, "hash2": 2}
    assert bench.look().sets[0].revisions is bench.look().sets[0].revisions, "collected once"
    for unknown in ("hash8", "hash9"):
        await bench.caches.list_revisions("ops", "ds", frozenset({unknown}))
        assert bench.look().sets[0].revisions.absent == {unknown}
    bench.daemonsets.apply(of_version("7", {"app": "another"}))
    assert [s.daemonset.metadata.resource_version for s in bench.look().sets] == (["7"] if lost else [])


async def test_the_selector_of_a_node_in_progress_outlives_every_edit_of_policies():
    """The second edit of two, before anybody looked, dropped the informer by which the node went."""
    bench = Bench()
    caches = bench.caches
    async with asyncio.TaskGroup() as tasks:
        caches._tasks = tasks
        caches.driver_pods("ops", DRIVER)
        caches.driver_pods("ops", parse("app=nobody"))
        caches.nodes.store.apply(BUSY)
        for _ in range(3):
            caches.keep_driver_pods([])
        assert list(caches._driver_pods) == [("ops", "app=driver")]
        caches.nodes.store.delete(BUSY)
        caches.keep_driver_pods([])
        assert not caches._driver_pods

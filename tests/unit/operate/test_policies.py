"""Policies are found with their objects, and every change of one is told: also of those that count for nothing."""

import pytest

from controller.api.meta import ObjectMeta
from controller.api.policy import PolicyObject
from controller.operate.caches import Caches
from controller.operate.options import Options
from controller.operate.policies import Policies
from controller.upgrade.sources import OWN_KIND, Source
from tests.unit.kube.fake import FakeTransport, make_client

pytestmark = pytest.mark.looptime
WIDE = Source("ClusterPolicy", "clusterpolicies", namespaced=False, namespace="ops")


class Bench:
    """Policies over caches that are filled by hand."""

    def __init__(self, source: Source) -> None:
        caches = Caches(make_client(FakeTransport()), Options(("ops",), sources=(source,)))
        self.store = caches.policies[source].store
        self.policies = Policies(caches.policies.items(), ("ops",), "nvidia.com", lambda _: None)
        self.heard = 0
        self.policies.on_change(self._hear)

    def _hear(self) -> None:
        self.heard += 1

    def apply(self, namespace: str, version: int, status: str = "", driver: str = "gpu") -> PolicyObject:
        meta = ObjectMeta(name="gpu", namespace=namespace, uid=f"{namespace}-gpu", resource_version=str(version))
        obj = PolicyObject(metadata=meta, spec={"driver": {"name": driver}}, status={"state": status})
        self.store.apply(obj)
        return obj


@pytest.mark.parametrize(("source", "namespace"), [(OWN_KIND, "ops"), (WIDE, "")], ids=["namespaced", "cluster-scoped"])
async def test_the_object_of_a_policy_is_found(source: Source, namespace: str):
    """The command looked for a cluster-scoped one in the namespace that it counts in, and found none."""
    bench = Bench(source)
    obj = bench.apply(namespace, 1)
    (policy,) = bench.policies.all()
    assert policy.namespace == "ops"
    assert bench.policies.object_of(policy) is obj
    bench.store.delete(obj)
    assert bench.policies.object_of(policy) is None


@pytest.mark.parametrize(("namespace", "driver"), [("ops", "gpu"), ("elsewhere", "gpu"), ("ops", "Not_Legal")])
async def test_every_change_is_told(namespace: str, driver: str):
    bench = Bench(OWN_KIND)
    bench.apply(namespace, 1, driver=driver)
    bench.apply(namespace, 2, "Theirs", driver)
    obj = bench.apply(namespace, 3, "Theirs", "other")
    bench.store.delete(obj)
    assert bench.heard == 4
    bench.store.delete(obj)
    assert bench.heard == 4

"""Contract: what a cluster's own controllers do - of DaemonSets, of workloads and their budgets, the scheduler, kubelets.

Our controller depends on all of it: a driver pod is outdated by its revision's hash, comes back with the newest one when
it is deleted, and is put on a cordoned node where a workload is not.
"""

from collections.abc import Sequence

from tests.contract.server import OWN, Obj, Server, contract
from tests.sim.objects import controller_of, labels, node_of, ready_pod

HASH = "controller-revision-hash"
HOLD = "example.com/hold"


def image(version: str) -> Obj:
    """What a new version of the driver changes."""
    containers = [{"name": "main", "image": f"local/driver:{version}"}]
    return {"spec": {"template": {"spec": {"containers": containers}}}}


async def driver(s: Server, version: str = "1") -> Obj:
    """The DaemonSet ``driver``, for the nodes that joined."""
    chosen = {"app": "driver", "part": "driver"}
    spec = {**image(version)["spec"]["template"]["spec"], "nodeSelector": {OWN: s.namespace}}
    body: Obj = {"selector": {"matchLabels": chosen}, "updateStrategy": {"type": "OnDelete"}}
    body["template"] = {"metadata": {"labels": chosen}, "spec": spec}
    made = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "driver"}, "spec": body}
    return await s.create("daemonsets", made)


async def observed(s: Server) -> Obj:
    """The DaemonSet, once its controller has seen the newest template."""

    def seen(obj: Obj) -> bool:
        return bool((obj.get("status") or {}).get("observedGeneration") == obj["metadata"]["generation"])

    return await s.until("daemonsets", "driver", seen)


async def ready(s: Server, count: int, app: str = "driver") -> list[Obj]:
    """The pods, once there are so many, all ready, and none on its way out."""
    return await s.until_all("pods", lambda pods: len(pods) == count and all(map(ready_pod, pods)), f"app={app}")


async def revisions(s: Server, *numbers: int) -> list[Obj]:
    """The DaemonSet's revisions by their numbers, once they have these."""

    def numbered(found: Sequence[Obj]) -> bool:
        return sorted(r["revision"] for r in found) == list(numbers)

    return sorted(await s.until_all("revisions", numbered, "app=driver"), key=lambda r: r["revision"])


def owned_by(obj: Obj, daemonset: Obj) -> bool:
    """Whether the DaemonSet is the object's controller."""
    meta, owner = daemonset["metadata"], controller_of(obj) or {}
    return [owner.get(name) for name in ("kind", "name", "uid")] == ["DaemonSet", meta["name"], meta["uid"]]


def uid_of(obj: Obj) -> str:
    return str(obj["metadata"]["uid"])


async def remove(s: Server, what: str, name: str, **options: object) -> None:
    """DELETE, which must be accepted."""
    answer = await s.ask("DELETE", s.path(what, name), options)
    assert answer.code in {200, 202}, answer


@contract
async def test_a_revision_has_its_hash_in_name_and_label_and_its_daemonset_as_owner(s: Server):
    nodes = {await s.cluster.join(), await s.cluster.join()}
    made = await driver(s)
    (revision,) = await revisions(s, 1)
    digest = labels(revision)[HASH]
    assert revision["metadata"]["name"] == f"driver-{digest}"
    assert owned_by(revision, made)
    template = revision["data"]["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == "local/driver:1"
    pods = await ready(s, 2)
    assert {labels(pod)[HASH] for pod in pods} == {digest}
    assert all(owned_by(pod, made) for pod in pods)
    assert {node_of(pod) for pod in pods} == nodes


@contract
async def test_a_change_restarts_nothing_and_a_pod_that_is_deleted_comes_back_new(s: Server):
    """``updateStrategy: OnDelete``."""
    await s.cluster.join()
    await s.cluster.join()
    await driver(s)
    old = await ready(s, 2)
    await s.patch("daemonsets", "driver", image("2"))
    await observed(s)
    first, second = await revisions(s, 1, 2)
    assert labels(first)[HASH] != labels(second)[HASH]
    assert {uid_of(pod) for pod in await ready(s, 2)} == {uid_of(pod) for pod in old}
    await remove(s, "pods", old[0]["metadata"]["name"], preconditions={"uid": uid_of(old[0])})
    gone = uid_of(old[0])
    replaced = await s.until_all(
        "pods",
        lambda pods: len(pods) == 2 and all(map(ready_pod, pods)) and gone not in map(uid_of, pods),
        "app=driver",
    )
    (new,) = [pod for pod in replaced if uid_of(pod) != uid_of(old[1])]
    assert (node_of(new), labels(new)[HASH]) == (node_of(old[0]), labels(second)[HASH])
    assert {labels(pod)[HASH] for pod in replaced} == {labels(first)[HASH], labels(second)[HASH]}


@contract
async def test_a_rollback_raises_the_number_of_the_revision_that_was(s: Server):
    await driver(s)
    (first,) = await revisions(s, 1)
    await s.patch("daemonsets", "driver", image("2"))
    await revisions(s, 1, 2)
    await s.patch("daemonsets", "driver", image("1"))
    other, again = await revisions(s, 2, 3)
    assert (uid_of(again), labels(again)[HASH]) == (uid_of(first), labels(first)[HASH])
    assert uid_of(other) != uid_of(first)


@contract
async def test_a_pod_that_is_disowned_is_adopted_again(s: Server):
    await s.cluster.join()
    made = await driver(s)
    (pod,) = await ready(s, 1)
    disowned = await s.patch("pods", pod["metadata"]["name"], {"metadata": {"ownerReferences": None}})
    assert controller_of(disowned) is None
    adopted = await s.until("pods", pod["metadata"]["name"], lambda obj: owned_by(obj, made))
    assert uid_of(adopted) == uid_of(pod)
    assert [uid_of(one) for one in await ready(s, 1)] == [uid_of(pod)]


@contract
async def test_a_pod_that_is_not_selected_any_more_is_let_go_and_another_one_made(s: Server):
    """It stays as it is, nobody's: what our controller calls an orphan, where the policy selects by other labels."""
    node = await s.cluster.join()
    made = await driver(s)
    (pod,) = await ready(s, 1)
    await s.patch("pods", pod["metadata"]["name"], {"metadata": {"labels": {"part": None}}})
    pods = await ready(s, 2)
    (orphan,) = [one for one in pods if uid_of(one) == uid_of(pod)]
    (other,) = [one for one in pods if uid_of(one) != uid_of(pod)]
    assert controller_of(orphan) is None
    assert owned_by(other, made)
    assert [node_of(one) for one in pods] == [node, node]


@contract
async def test_what_a_daemonset_leaves_is_adopted_by_the_next_of_its_kind(s: Server):
    """``kubectl delete --cascade=orphan``."""
    await s.cluster.join()
    first = await driver(s)
    (pod,) = await ready(s, 1)
    (revision,) = await revisions(s, 1)
    await remove(s, "daemonsets", "driver", propagationPolicy="Orphan")
    await s.until("pods", pod["metadata"]["name"], lambda obj: controller_of(obj) is None)
    await s.until("revisions", revision["metadata"]["name"], lambda obj: controller_of(obj) is None)
    await s.until_all("daemonsets", lambda found: not found)
    second = await driver(s)
    assert uid_of(second) != uid_of(first)
    for what, old in (("pods", pod), ("revisions", revision)):
        adopted = await s.until(what, old["metadata"]["name"], lambda obj: owned_by(obj, second))
        assert uid_of(adopted) == uid_of(old)
    assert len(await ready(s, 1)) == len(await revisions(s, 1)) == 1


@contract
async def test_a_daemonset_made_anew_goes_by_the_old_ones_revision_until_it_is_collected(s: Server):
    """Its name stands for the template. Until it is gone nothing says by its owner which revision is the newest."""
    await s.cluster.join()
    first = await driver(s)
    await ready(s, 1)
    (revision,) = await revisions(s, 1)
    name = revision["metadata"]["name"]
    await s.patch("revisions", name, {"metadata": {"finalizers": [HOLD]}})
    await remove(s, "daemonsets", "driver", propagationPolicy="Background")
    await s.until("revisions", name, lambda obj: "deletionTimestamp" in obj["metadata"])
    await s.until_all("pods", lambda pods: not any(owned_by(pod, first) and ready_pod(pod) for pod in pods), "app=driver")
    second = await driver(s)
    pods = await s.until_all("pods", lambda pods: any(owned_by(p, second) and ready_pod(p) for p in pods), "app=driver")
    (mine,) = [pod for pod in pods if owned_by(pod, second)]
    assert labels(mine)[HASH] == labels(revision)[HASH]
    (there,) = await revisions(s, 1)
    assert owned_by(there, first)
    await s.patch("revisions", name, {"metadata": {"finalizers": None}})
    await s.patch("daemonsets", "driver", {"metadata": {"annotations": {"example.com/look": "again"}}})
    found = await s.until_all("revisions", lambda all_: len(all_) == 1 and owned_by(all_[0], second), "app=driver")
    assert (found[0]["metadata"]["name"], labels(found[0])[HASH]) == (name, labels(revision)[HASH])
    assert uid_of(found[0]) != uid_of(revision)


@contract
async def test_a_cordoned_node_gets_its_daemonsets_pod_and_no_other(s: Server):
    cordoned, other = await s.cluster.join(), await s.cluster.join()
    assert (await s.ask("PATCH", f"/api/v1/nodes/{cordoned}", {"spec": {"unschedulable": True}})).code == 200
    await driver(s)
    await s.cluster.deploy("work", 3)
    assert {node_of(pod) for pod in await ready(s, 3, "work")} == {other}
    assert {node_of(pod) for pod in await ready(s, 2)} == {cordoned, other}
    (taint,) = (await s.get(f"/api/v1/nodes/{cordoned}")).obj["spec"]["taints"]
    assert (taint["key"], taint["effect"]) == ("node.kubernetes.io/unschedulable", "NoSchedule")


@contract
async def test_a_node_that_is_not_selected_any_more_loses_its_pod(s: Server):
    node = await s.cluster.join()
    await driver(s)
    await ready(s, 1)
    assert (await s.ask("PATCH", f"/api/v1/nodes/{node}", {"metadata": {"labels": {OWN: "other"}}})).code == 200
    await s.until_all("pods", lambda pods: not pods, "app=driver")

"""Contract: deletion, graceful or not, held by finalizers, or of the wrong object."""

import pytest

from controller.kube.errors import Conflict, NotFound
from controller.kube.resources import PODS
from tests.contract.server import Obj, Server, contract, lease, pod, running


def marks(obj: Obj) -> tuple[bool, object]:
    meta = obj["metadata"]
    return "deletionTimestamp" in meta, meta.get("deletionGracePeriodSeconds")


@contract
async def test_deleting_answers_with_a_status_and_the_uid(s: Server):
    made = await s.create("leases", lease("a"))
    answer = await s.ask("DELETE", s.path("leases", "a"))
    assert (answer.code, answer.obj["kind"], answer.obj["status"]) == (200, "Status", "Success")
    assert answer.obj["details"]["uid"] == made["metadata"]["uid"]
    assert (await s.ask("DELETE", s.path("leases", "a"))).code == 404


@contract
async def test_an_object_of_another_uid_is_not_deleted(s: Server):
    await s.create("leases", lease("a"))
    answer = await s.ask("DELETE", s.path("leases", "a"), {"preconditions": {"uid": "another"}})
    assert (answer.code, answer.obj["reason"], answer.obj["details"]["name"]) == (409, "Conflict", "a")
    assert answer.obj["message"].startswith('Operation cannot be fulfilled on Lease.coordination.k8s.io "a": the UID in the')
    assert (await s.get(s.path("leases", "a"))).code == 200
    await s.create("pods", pod("p", s.node))
    with pytest.raises(Conflict):
        await s.client.delete(PODS, "p", s.namespace, uid="another")


@contract
async def test_a_pod_that_runs_is_given_its_grace_and_leaves_when_its_kubelet_says_so(s: Server):
    made = await s.create("pods", pod("p", s.node, grace=20))
    await s.patch("pods", "p", running(), sub="status")
    version = await s.version("pods")
    answer = await s.client.delete(PODS, "p", s.namespace, uid=made["metadata"]["uid"])
    assert answer is not None
    there = (await s.get(s.path("pods", "p"))).obj
    assert marks(there) == (True, 20)
    again = await s.ask("DELETE", s.path("pods", "p"))
    assert again.code == 200
    assert again.obj["metadata"]["resourceVersion"] == there["metadata"]["resourceVersion"], "asked twice, marked once"
    end = await s.ask("DELETE", s.path("pods", "p"), {"gracePeriodSeconds": 0})
    assert end.code == 200
    with pytest.raises(NotFound):
        await s.client.get(PODS, "p", s.namespace)
    found = await s.events_until("DELETED", s.path("pods"), version)
    assert {e["type"] for e in found[:-1]} == {"MODIFIED"}
    last = found[-1]["object"]
    assert marks(found[0]["object"]) == (True, 20)
    assert int(last["metadata"]["resourceVersion"]) > int(there["metadata"]["resourceVersion"])
    assert last["metadata"]["uid"] == made["metadata"]["uid"]


@contract
async def test_a_pod_that_no_node_has_goes_at_once(s: Server):
    made = await s.create("pods", pod("p"))
    await s.client.delete(PODS, "p", s.namespace, uid=made["metadata"]["uid"])
    assert (await s.get(s.path("pods", "p"))).code == 404


@contract
async def test_a_pod_that_has_ended_goes_at_once(s: Server):
    made = await s.create("pods", pod("p", s.node))
    await s.patch("pods", "p", {"status": {"phase": "Succeeded"}}, sub="status")
    await s.client.delete(PODS, "p", s.namespace, uid=made["metadata"]["uid"])
    assert (await s.get(s.path("pods", "p"))).code == 404


@contract
async def test_a_shorter_grace_is_taken_and_a_longer_one_is_not(s: Server):
    await s.create("pods", pod("p", s.node, grace=30))
    await s.patch("pods", "p", running(), sub="status")
    graces = []
    for asked in (20, 25, 10):
        await s.ask("DELETE", s.path("pods", "p"), {"gracePeriodSeconds": asked})
        graces.append(marks((await s.get(s.path("pods", "p"))).obj)[1])
    assert graces == [20, 20, 10]


@contract
async def test_a_finalizer_holds_an_object_until_it_is_taken_off(s: Server):
    body = lease("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await s.create("leases", body)
    version = await s.version()
    answer = await s.ask("DELETE", s.path("leases", "a"))
    assert (answer.code, answer.obj["kind"]) == (200, "Lease")
    assert marks(answer.obj) == (True, 0)
    assert (await s.get(s.path("leases", "a"))).obj["metadata"]["finalizers"] == ["example.com/hold"]
    freed = await s.ask("PATCH", s.path("leases", "a"), {"metadata": {"finalizers": None}})
    assert freed.code == 200
    assert (await s.get(s.path("leases", "a"))).code == 404
    found = await s.events(2, s.path("leases"), version)
    assert [e["type"] for e in found] == ["MODIFIED", "DELETED"]
    versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in found]
    assert versions[1] > versions[0]


@contract
async def test_a_name_can_be_had_again_and_is_another_object(s: Server):
    first = await s.create("leases", lease("a"))
    await s.ask("DELETE", s.path("leases", "a"))
    second = await s.create("leases", lease("a"))
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])

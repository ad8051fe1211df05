"""Contract: creating, patching and replacing objects, and what is said about each refusal."""

import pytest

from controller.kube.errors import Conflict, Invalid
from controller.kube.resources import LEASES
from tests.contract.server import Obj, Server, budget, contract, lease, pod, policy, running


def details(name: str, kind: str = "leases") -> Obj:
    return {"name": name, "group": "coordination.k8s.io", "kind": kind}


@contract
async def test_creating_what_exists_is_a_conflict_that_says_so(s: Server):
    await s.create("leases", lease("a"))
    answer = await s.ask("POST", s.path("leases"), lease("a", "b"))
    assert (answer.code, answer.obj["reason"]) == (409, "AlreadyExists")
    assert answer.obj["message"] == 'leases.coordination.k8s.io "a" already exists'
    assert answer.obj["details"] == details("a")
    with pytest.raises(Conflict) as caught:
        await s.client.create(LEASES, lease("a", "b"), s.namespace)
    assert caught.value.reason == "AlreadyExists"


@contract
async def test_a_created_object_gets_its_identity_from_the_server(s: Server):
    body = lease("a")
    body["metadata"]["uid"] = "mine"
    made = (await s.create("leases", body))["metadata"]
    assert made["namespace"] == s.namespace
    assert made["uid"] not in {"", "mine"}
    assert made["creationTimestamp"].endswith("Z")
    assert made["resourceVersion"].isdigit()


@contract
async def test_a_patch_of_an_old_version_is_a_conflict_and_changes_nothing(s: Server):
    old = (await s.create("leases", lease("a")))["metadata"]["resourceVersion"]
    new = await s.patch("leases", "a", {"metadata": {"resourceVersion": old}, "spec": {"holderIdentity": "b"}})
    answer = await s.ask("PATCH", s.path("leases", "a"), {"metadata": {"resourceVersion": old, "labels": {"x": "y"}}})
    assert (answer.code, answer.obj["reason"]) == (409, "Conflict")
    assert answer.obj["message"].startswith(
        'Operation cannot be fulfilled on leases.coordination.k8s.io "a": the object has'
    )
    assert answer.obj["details"] == details("a")
    assert (await s.get(s.path("leases", "a"))).obj["metadata"] == new["metadata"]
    with pytest.raises(Conflict):
        await s.client.patch(LEASES, "a", {"metadata": {"resourceVersion": old}, "spec": {}}, namespace=s.namespace)


@contract
async def test_a_patch_that_changes_nothing_is_no_write(s: Server):
    made = await s.create("leases", lease("a", tier="one"))
    version = await s.version()
    for body in ({}, {"spec": {"holderIdentity": "a"}}, {"metadata": {"labels": {"tier": "one", "none": None}}}):
        same = await s.patch("leases", "a", body)
        assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    await s.create("leases", lease("b"))
    (event,) = await s.events(1, s.path("leases"), version)
    assert event["object"]["metadata"]["name"] == "b", "no watcher was told of a write that is none"


@contract
async def test_a_merge_patch_sets_and_removes_keys(s: Server):
    body = lease("a", tier="one")
    body["metadata"]["annotations"] = {"x": "1", "y": "2"}
    await s.create("leases", body)
    patched = await s.patch("leases", "a", {"metadata": {"annotations": {"x": None, "z": "3"}, "labels": None}})
    assert patched["metadata"]["annotations"] == {"y": "2", "z": "3"}
    assert not patched["metadata"].get("labels")
    assert patched["spec"] == body["spec"]


@contract
async def test_a_patch_of_what_is_gone_is_not_found(s: Server):
    answer = await s.ask("PATCH", s.path("leases", "none"), {"spec": {}})
    assert (answer.code, answer.obj["reason"], answer.obj["details"]) == (404, "NotFound", details("none"))


@contract
async def test_a_lease_is_replaced_only_by_who_says_what_was_read(s: Server):
    made = await s.create("leases", lease("a"))
    unread = await s.ask("PUT", s.path("leases", "a"), lease("a", "b"))
    assert (unread.code, unread.obj["reason"]) == (422, "Invalid")
    (cause,) = unread.obj["details"]["causes"]
    assert (cause["reason"], cause["field"]) == ("FieldValueInvalid", "metadata.resourceVersion")
    with pytest.raises(Invalid):
        await s.client.update(LEASES, "a", lease("a", "b"), namespace=s.namespace)
    taken = {**made, "spec": {**made["spec"], "holderIdentity": "b"}}
    answer = await s.ask("PUT", s.path("leases", "a"), taken)
    assert (answer.code, answer.obj["spec"]["holderIdentity"]) == (200, "b")
    stale = await s.ask("PUT", s.path("leases", "a"), {**taken, "spec": {**made["spec"], "holderIdentity": "c"}})
    assert (stale.code, stale.obj["reason"], stale.obj["details"]) == (409, "Conflict", details("a"))
    now = (await s.get(s.path("leases", "a"))).obj
    assert (now["spec"]["holderIdentity"], now["metadata"]["uid"]) == ("b", made["metadata"]["uid"])


@contract
async def test_replacing_keeps_what_the_server_owns(s: Server):
    made = await s.create("leases", lease("a"))
    bare = lease("a", "b")
    bare["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
    now = (await s.ask("PUT", s.path("leases", "a"), bare)).obj["metadata"]
    for name in ("uid", "creationTimestamp"):
        assert now[name] == made["metadata"][name]


@contract
async def test_status_is_written_apart_from_the_rest(s: Server):
    made = await s.create("policies", {**policy("a"), "status": {"observedGeneration": 7}})
    assert not made.get("status")
    both: Obj = {"spec": {"driver": {"upgradePolicy": {"paused": True}}}, "status": {"observedGeneration": 8}}
    through_main = await s.patch("policies", "a", both)
    assert through_main["spec"]["driver"]["upgradePolicy"]["paused"] is True
    assert not through_main.get("status")
    both["spec"]["driver"]["upgradePolicy"]["paused"] = False
    through_status = await s.patch("policies", "a", both, sub="status")
    assert through_status["spec"]["driver"]["upgradePolicy"]["paused"] is True
    assert through_status["status"] == {"observedGeneration": 8}
    assert through_status["metadata"]["resourceVersion"] != through_main["metadata"]["resourceVersion"]


@contract
async def test_generation_counts_changes_of_the_spec_alone(s: Server):
    generations = [(await s.create("policies", policy("a")))["metadata"]["generation"]]
    for body, sub in (
        ({"metadata": {"labels": {"x": "y"}}}, ""),
        ({"status": {"observedGeneration": 1}}, "status"),
        ({"spec": {"driver": {"upgradePolicy": {"paused": True}}}}, ""),
        ({"spec": {"driver": {"upgradePolicy": {"paused": True}}}}, ""),
    ):
        generations.append((await s.patch("policies", "a", body, sub))["metadata"]["generation"])
    assert generations == [1, 1, 1, 2, 2]
    generation = (await s.create("budgets", budget("b", 1, app="x")))["metadata"]["generation"]
    changed = await s.patch("budgets", "b", {"spec": {"minAvailable": 2}})
    assert (generation, changed["metadata"]["generation"]) == (1, 2)


@contract
async def test_defaults_of_our_own_kind_are_the_servers(s: Server):
    sparse = (await s.create("policies", policy("a", autoUpgrade=True, drain={})))["spec"]["driver"]["upgradePolicy"]
    assert sparse == {
        "autoUpgrade": True,
        "cordonedNodes": "Upgrade",
        "maxParallelUpgrades": 1,
        "paused": False,
        "drain": {
            "deleteEmptyDir": False,
            "enable": False,
            "force": False,
            "gracePeriodSeconds": -1,
            "podSelector": "",
            "timeoutSeconds": 300,
        },
    }
    more = await s.patch("policies", "a", {"spec": {"driver": {"upgradePolicy": {"podRestart": {"maxRestarts": 3}}}}})
    assert more["spec"]["driver"]["upgradePolicy"]["podRestart"] == {
        "maxRestarts": 3,
        "timeoutSeconds": 1800,
        "unchangedEnv": "",
    }


@contract
async def test_controller_revisions(s: Server):
    body: Obj = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 3, "data": {"spec": {}}}
    made = await s.create("revisions", {**body, "metadata": {"name": "r3", "labels": {"controller-revision-hash": "h"}}})
    assert (made["revision"], made["data"]) == (3, {"spec": {}})
    raised = await s.patch("revisions", "r3", {"revision": 4})
    assert raised["revision"] == 4
    (found,) = (await s.get(s.path("revisions"), labelSelector="controller-revision-hash=h")).obj["items"]
    assert found["metadata"]["resourceVersion"] == raised["metadata"]["resourceVersion"]


@contract
async def test_events_of_the_newer_group_are_created(s: Server):
    event: Obj = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "node.1", "namespace": s.namespace},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "nvidia.com/driver-upgrade",
        "reportingInstance": "one",
        "action": "Cordon",
        "reason": "Cordoned",
        "type": "Normal",
        "note": "cordoned",
        "regarding": {"kind": "Lease", "name": "a", "namespace": s.namespace},
    }
    made = await s.create("events", event)
    assert {name: made[name] for name in ("reason", "note", "action", "type")} == {
        "reason": "Cordoned",
        "note": "cordoned",
        "action": "Cordon",
        "type": "Normal",
    }
    series = {"series": {"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}}
    assert (await s.patch("events", "node.1", series))["series"]["count"] == 2
    assert (await s.ask("POST", s.path("events"), event)).obj["reason"] == "AlreadyExists"


@contract
async def test_a_new_pod_is_pending_whatever_its_creator_says(s: Server):
    made = await s.create("pods", {**pod("a", s.node), **running()})
    assert made["status"]["phase"] == "Pending"
    now = await s.patch("pods", "a", running(), sub="status")
    assert now["status"]["phase"] == "Running"
    assert int(now["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])

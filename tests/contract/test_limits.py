"""Contract: where servers draw a line - versions that are not there yet, tokens, sizes, names that come again, odd budgets.

None of it happens in a quiet cluster. All of it does when an etcd is restored, a webhook writes a megabyte, a node of the
same name is registered anew, or two evictions of one pod cross.
"""

from email.utils import parsedate_to_datetime

import pytest

from controller.api.meta import KubeObject
from controller.kube.errors import Conflict, Invalid, NotFound, ServerError
from controller.kube.resources import LEASES, Resource
from tests.contract.server import Obj, Server, contract, lease, pod, policy, running
from tests.contract.test_eviction import guarded, ready

WATCH_LIST = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
AHEAD = 10_000_000


@contract
async def test_a_list_of_a_version_that_is_not_there_yet_is_refused(s: Server):
    """After a restore of etcd all that clients know is newer than what the server has."""
    version = str(int(await s.version()) + AHEAD)
    answer = await s.get(s.path("leases"), resourceVersion=version, resourceVersionMatch="NotOlderThan")
    assert (answer.code, answer.obj["reason"]) == (504, "Timeout")
    assert answer.obj["message"].startswith(f"Timeout: Too large resource version: {version}, current: ")
    assert answer.obj["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert answer.obj["details"]["retryAfterSeconds"] == 1
    with pytest.raises(ServerError):
        await s.client.list(LEASES, s.namespace, resource_version=version)


@contract
async def test_a_watch_list_of_a_version_that_is_not_there_yet_is_refused(s: Server):
    version = str(int(await s.version()) + AHEAD)
    (event,) = await s.events(1, s.path("leases"), version, **WATCH_LIST)
    assert event["type"] == "ERROR", event
    assert (event["object"]["code"], event["object"]["reason"]) == (504, "Timeout")
    assert event["object"]["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


@contract
async def test_a_watch_from_a_version_that_is_not_there_yet_tells_nothing(s: Server):
    version = str(int(await s.version()) + AHEAD)
    await s.create("leases", lease("a"))
    assert not await s.events(1, s.path("leases"), version, timeoutSeconds="2")


@contract
async def test_a_watch_list_has_seen_every_write_before_it(s: Server):
    """The controller takes a node for empty on the word of one."""
    await s.create("pods", pod("elsewhere"))
    made = await s.create("pods", pod("here", s.node))
    where = {"fieldSelector": f"spec.nodeName={s.node}"}
    found = await s.events(2, s.path("pods"), **WATCH_LIST, **where)
    assert [(e["type"], e["object"]["metadata"].get("name", "")) for e in found] == [("ADDED", "here"), ("BOOKMARK", "")]
    assert int(found[1]["object"]["metadata"]["resourceVersion"]) >= int(made["metadata"]["resourceVersion"])
    (end,) = await s.events(1, s.path("pods"), **WATCH_LIST, labelSelector="app=none")
    assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}, (
        "nothing is there, and it says so"
    )


@contract
async def test_the_client_reads_all_pages_of_a_selection(s: Server):
    for name in "abcde":
        await s.create("leases", lease(name, tier="one" if name != "c" else "two"))
    for version in (None, await s.version()):
        found = await s.client.list(LEASES, s.namespace, label_selector="tier=one", resource_version=version, limit=2)
        assert [item.metadata.name for item in found.items] == ["a", "b", "d", "e"]


@contract
async def test_a_continue_token_brings_its_own_version(s: Server):
    for name in "abc":
        await s.create("leases", lease(name))
    first = (await s.get(s.path("leases"), limit="2")).obj["metadata"]
    both = {"continue": first["continue"], "resourceVersion": first["resourceVersion"]}
    answer = await s.get(s.path("leases"), limit="2", **both)
    assert (answer.code, answer.obj["reason"]) == (400, "BadRequest")
    assert "continue" in answer.obj["message"]


@contract
async def test_a_resource_that_has_no_definition_is_not_found(s: Server):
    unknown = Resource("nvidia.com", "v1", "undefined", True, KubeObject)
    with pytest.raises(NotFound):
        await s.client.list(unknown, s.namespace)
    with pytest.raises(NotFound):
        async with s.client.watch(unknown, s.namespace, params=WATCH_LIST, timeout=20):
            pass


@contract
async def test_time_is_the_servers(s: Server):
    """A deadline that was written by one answer's Date is judged by another's."""
    answer = await s.ask("POST", s.path("pods"), pod("p", s.node, grace=600))
    made = answer.obj["metadata"]["creationTimestamp"]
    date = parsedate_to_datetime(answer.headers["Date"])
    assert date.strftime("%Y-%m-%dT%H:%M:%SZ") >= made, "an answer is not older than what it tells of"
    gone = await s.ask("DELETE", s.path("pods", "p"))
    meta = gone.obj["metadata"]
    assert meta["deletionGracePeriodSeconds"] == 600
    assert meta["deletionTimestamp"] > made, "it says until when there is time"


@contract
async def test_taking_away_what_is_not_there_is_no_write(s: Server):
    made = await s.create("leases", {**lease("a"), "metadata": {"name": "a"}})
    nothings: tuple[Obj, ...] = ({"annotations": {"x": None}}, {"labels": None}, {"labels": {}})
    for body in ({"metadata": nothing} for nothing in nothings):
        same = await s.patch("leases", "a", body)
        assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"], body
        assert not same["metadata"].get("annotations")


@contract
async def test_a_cordon_is_lifted_by_false_and_shows_as_absent(s: Server):
    node = f"/api/v1/nodes/{s.node}"
    cordoned = await s.ask("PATCH", node, {"spec": {"unschedulable": True}})
    assert cordoned.obj["spec"]["unschedulable"] is True
    lifted = await s.ask("PATCH", node, {"spec": {"unschedulable": False}})
    assert "unschedulable" not in lifted.obj["spec"]
    assert int(lifted.obj["metadata"]["resourceVersion"]) > int(cordoned.obj["metadata"]["resourceVersion"])


@contract
async def test_the_version_of_a_former_object_of_the_name_is_a_conflict(s: Server):
    """What was decided about a node is not done to another machine of its name."""
    former = await s.create("leases", lease("a"))
    await s.ask("DELETE", s.path("leases", "a"))
    now = await s.create("leases", lease("a", "b"))
    body: Obj = {"metadata": {"resourceVersion": former["metadata"]["resourceVersion"], "labels": {"x": "y"}}}
    with pytest.raises(Conflict):
        await s.client.patch(LEASES, "a", body, namespace=s.namespace)
    assert (await s.get(s.path("leases", "a"))).obj["metadata"] == now["metadata"]


@contract
async def test_labels_and_annotations_have_limits(s: Server):
    await s.create("policies", policy("a"))
    await s.create("leases", lease("a"))
    half = "x" * 140_000
    await s.patch("leases", "a", {"metadata": {"annotations": {"one": half}}})
    for what, body, reason, field in (
        ("leases", {"metadata": {"annotations": {"two": half}}}, "FieldValueTooLong", "metadata.annotations"),
        ("leases", {"metadata": {"labels": {"x": "y" * 64}}}, "FieldValueInvalid", "metadata.labels"),
        ("policies", {"metadata": {"labels": {"x": "not a label"}}}, "FieldValueInvalid", "metadata.labels"),
    ):
        answer = await s.ask("PATCH", s.path(what, "a"), body)
        assert (answer.code, answer.obj["reason"]) == (422, "Invalid"), body
        assert {(c["reason"], c["field"]) for c in answer.obj["details"]["causes"]} == {(reason, field)}
        assert f"{field}: " in answer.obj["message"]
    with pytest.raises(Invalid):
        await s.client.patch(LEASES, "a", {"metadata": {"annotations": {"two": half}}}, namespace=s.namespace)


@contract
async def test_a_leases_times_are_kept_to_the_microsecond(s: Server):
    body = lease("a")
    body["spec"] |= {"renewTime": "2026-01-01T00:00:00.123456Z", "acquireTime": "2026-01-01T00:00:00.000001Z"}
    body["spec"]["leaseTransitions"] = 3
    made = await s.create("leases", body)
    assert made["spec"] == body["spec"]
    freed = {**made, "spec": {name: value for name, value in made["spec"].items() if name != "holderIdentity"}}
    answer = await s.ask("PUT", s.path("leases", "a"), freed)
    assert answer.obj["spec"] == freed["spec"], "a field that is left out of an update is gone"


@contract
async def test_the_status_of_what_is_gone_is_not_found(s: Server):
    answer = await s.ask("PATCH", s.path("policies", "none", "status"), {"status": {"observedGeneration": 1}})
    assert (answer.code, answer.obj["reason"]) == (404, "NotFound")


@contract
async def test_a_bound_pod_without_grace_goes_with_its_last_finalizer(s: Server):
    made = await s.create("pods", pod("p", s.node, finalizers=("example.com/hold",)))
    await s.patch("pods", "p", running(), sub="status")
    held = await s.ask("DELETE", s.path("pods", "p"), {"gracePeriodSeconds": 0})
    assert (held.code, held.obj["metadata"]["deletionGracePeriodSeconds"]) == (200, 0)
    assert (await s.get(s.path("pods", "p"))).obj["metadata"]["uid"] == made["metadata"]["uid"]
    await s.ask("PATCH", s.path("pods", "p"), {"metadata": {"finalizers": None}})
    assert (await s.get(s.path("pods", "p"))).code == 404


@contract
async def test_a_bound_pod_with_grace_outlives_its_last_finalizer(s: Server):
    await s.create("pods", pod("p", s.node, finalizers=("example.com/hold",)))
    await s.patch("pods", "p", running(), sub="status")
    await s.ask("DELETE", s.path("pods", "p"))
    freed = await s.patch("pods", "p", {"metadata": {"finalizers": None}})
    assert freed["metadata"]["deletionGracePeriodSeconds"] == 30, "its kubelet has the last word"
    assert (await s.get(s.path("pods", "p"))).code == 200


@contract
async def test_a_pod_that_was_evicted_may_be_evicted_again(s: Server):
    """An eviction whose answer was lost is asked for again; no budget is asked for it."""
    uid = await ready(s, "p", app="a")
    await s.client.evict("p", s.namespace, uid)
    first = (await s.get(s.path("pods", "p"))).obj["metadata"]
    await guarded(s, "keep", 1, 0, app="a")
    await s.client.evict("p", s.namespace, uid)
    again = (await s.get(s.path("pods", "p"))).obj["metadata"]
    assert again["deletionTimestamp"] == first["deletionTimestamp"]


@contract
async def test_a_pod_that_has_ended_needs_no_budget(s: Server):
    await s.create("pods", pod("p", s.node, app="a"))
    await s.patch("pods", "p", {"status": {"phase": "Succeeded"}}, sub="status")
    await guarded(s, "keep", 1, 0, app="a")
    assert (await s.evict("p")).code == 201
    assert (await s.get(s.path("pods", "p"))).code == 404


@contract
async def test_a_pod_that_is_not_ready_goes_where_its_budget_is_met_without_it(s: Server):
    await ready(s, "up", app="a")
    await s.create("pods", pod("down", s.node, app="a"))
    unready = running()
    unready["status"]["conditions"][0]["status"] = "False"
    unready["status"]["containerStatuses"][0]["ready"] = False
    await s.patch("pods", "down", unready, sub="status")
    await guarded(s, "keep", 1, 1, app="a")
    refused = await s.evict("up")
    assert (refused.code, refused.obj["details"]["causes"][0]["reason"]) == (429, "DisruptionBudget")
    assert (await s.evict("down")).code == 201


@contract
async def test_a_pod_that_is_not_ready_stays_where_its_budget_is_not_met(s: Server):
    await s.create("pods", pod("down", s.node, app="a"))
    unready = running()
    unready["status"]["conditions"][0]["status"] = "False"
    unready["status"]["containerStatuses"][0]["ready"] = False
    await s.patch("pods", "down", unready, sub="status")
    await guarded(s, "keep", 1, 0, app="a")
    refused = await s.evict("down")
    assert (refused.code, refused.obj["details"]["causes"][0]["reason"]) == (429, "DisruptionBudget")


@contract
async def test_a_budget_with_an_empty_selector_guards_every_pod(s: Server):
    await ready(s, "p", app="a")
    await guarded(s, "keep", 1, 1)
    refused = await s.evict("p")
    assert (refused.code, refused.obj["details"]["causes"][0]["reason"]) == (429, "DisruptionBudget")


@contract
async def test_an_eviction_under_another_name_is_refused(s: Server):
    await ready(s, "p", app="a")
    answer = await s.evict("p", metadata={"name": "q", "namespace": s.namespace})
    assert (answer.code, answer.obj["reason"]) == (400, "BadRequest")
    assert "deletionTimestamp" not in (await s.get(s.path("pods", "p"))).obj["metadata"]

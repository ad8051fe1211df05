"""Contract: lists, pages, selectors and watches."""

from email.utils import parsedate_to_datetime

import pytest

from controller.api.meta import KubeObject
from controller.kube.errors import Gone, Invalid, NotFound
from controller.kube.resources import LEASES, PODS, Resource
from controller.kube.watch import events
from tests.contract.server import Server, contract, lease, pod

POLICIES = Resource("nvidia.com", "v1", "driverupgradepolicies", True, KubeObject)


@contract
async def test_resource_versions_grow_with_every_write(s: Server):
    first = await s.create("leases", lease("a"))
    second = await s.create("leases", lease("b"))
    third = await s.patch("leases", "a", {"spec": {"holderIdentity": "z"}})
    versions = [int(obj["metadata"]["resourceVersion"]) for obj in (first, second, third)]
    assert versions == sorted(set(versions))
    assert int(await s.version()) >= versions[-1]
    assert third["metadata"]["uid"] == first["metadata"]["uid"] != second["metadata"]["uid"]
    assert third["metadata"]["creationTimestamp"] == first["metadata"]["creationTimestamp"]


@contract
async def test_every_answer_has_a_date(s: Server):
    for path in (s.path("leases"), s.path("leases", "none")):
        assert parsedate_to_datetime((await s.get(path)).headers["Date"]).tzinfo is not None


@contract
async def test_what_is_not_there_is_a_status(s: Server):
    answer = await s.get(s.path("leases", "none"))
    assert answer.code == answer.obj["code"] == 404
    assert {k: answer.obj[k] for k in ("kind", "apiVersion", "status", "reason")} == {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": "NotFound",
    }
    assert answer.obj["message"] == 'leases.coordination.k8s.io "none" not found'
    assert answer.obj["details"] == {"name": "none", "group": "coordination.k8s.io", "kind": "leases"}
    pods = await s.get(s.path("pods", "none"))
    assert pods.obj["message"] == 'pods "none" not found'
    assert pods.obj["details"] == {"name": "none", "kind": "pods"}
    with pytest.raises(NotFound) as absent:
        await s.client.get(LEASES, "none", s.namespace)
    assert absent.value.name == "none"
    for group, version in (("example.com", "v1"), ("coordination.k8s.io", "v9")):
        with pytest.raises(NotFound) as unknown:
            await s.client.get(Resource(group, version, "leases", True, KubeObject), "none", s.namespace)
        assert not unknown.value.name, "what is not served is no word about an object"


@contract
async def test_a_list_has_the_version_of_its_moment(s: Server):
    before = int(await s.version())
    made = await s.create("leases", lease("a"))
    listing = (await s.get(s.path("leases"))).obj
    assert [item["metadata"]["name"] for item in listing["items"]] == ["a"]
    assert int(listing["metadata"]["resourceVersion"]) >= int(made["metadata"]["resourceVersion"]) > before
    typed = await s.client.list(LEASES, s.namespace)
    assert [item.metadata.name for item in typed.items] == ["a"]


@contract
async def test_pages_are_of_one_revision(s: Server):
    for name in "abcde":
        await s.create("leases", lease(name))
    first = (await s.get(s.path("leases"), limit="2")).obj
    await s.create("leases", lease("late"))
    token = first["metadata"]["continue"]
    second = (await s.get(s.path("leases"), limit="2", **{"continue": token})).obj
    third = (await s.get(s.path("leases"), limit="2", **{"continue": second["metadata"]["continue"]})).obj
    pages = [[item["metadata"]["name"] for item in page["items"]] for page in (first, second, third)]
    assert pages == [["a", "b"], ["c", "d"], ["e"]]
    assert len({page["metadata"]["resourceVersion"] for page in (first, second, third)}) == 1
    assert not third["metadata"].get("continue")
    again = (await s.get(s.path("leases"), limit="2", **{"continue": token})).obj
    assert [item["metadata"]["name"] for item in again["items"]] == ["c", "d"]


@contract
async def test_a_continue_token_expires_with_its_revision(s: Server):
    for name in "abcd":
        await s.create("leases", lease(name))
    token = (await s.get(s.path("leases"), limit="2")).obj["metadata"]["continue"]
    await s.create("leases", lease("later"))
    await s.expire()
    answer = await s.get(s.path("leases"), limit="2", **{"continue": token})
    if answer.code == 200:  # a server may still have that revision in its own cache
        assert [item["metadata"]["name"] for item in answer.obj["items"]] == ["c", "d"]
        return
    assert (answer.code, answer.obj["reason"]) == (410, "Expired")
    assert answer.obj["message"].startswith("The provided continue parameter is too old")
    rest = await s.get(s.path("leases"), limit="9", **{"continue": answer.obj["metadata"]["continue"]})
    assert [item["metadata"]["name"] for item in rest.obj["items"]] == ["c", "d", "later"]


@contract
async def test_a_token_that_is_none_is_refused(s: Server):
    answer = await s.get(s.path("leases"), **{"continue": "xx"})
    assert (answer.code, answer.obj["reason"]) == (400, "BadRequest")


@contract
async def test_label_selectors(s: Server):
    await s.create("leases", lease("a", tier="one"))
    await s.create("leases", lease("b", tier="two"))
    await s.create("leases", lease("c"))
    wanted = {
        "tier=one": "a",
        "tier==one": "a",
        "tier!=one": "bc",
        "tier": "ab",
        "!tier": "c",
        "tier in (one,two)": "ab",
        "tier notin (one)": "bc",
        "tier in (one, two),tier!=two": "a",
        "": "abc",
    }
    for selector, names in wanted.items():
        found = (await s.get(s.path("leases"), labelSelector=selector)).obj["items"]
        assert "".join(item["metadata"]["name"] for item in found) == names, selector
    answer = await s.get(s.path("leases"), labelSelector="tier=((")
    assert (answer.code, answer.obj["reason"]) == (400, "BadRequest")
    assert answer.obj["message"].startswith("unable to parse requirement: ")


@contract
async def test_field_selectors(s: Server):
    await s.create("pods", pod("here", s.node))
    await s.create("pods", pod("nowhere"))
    for selector, names in {
        f"spec.nodeName={s.node}": ["here"],
        "spec.nodeName=": ["nowhere"],
        "metadata.name=nowhere": ["nowhere"],
        f"spec.nodeName={s.node},metadata.name=nowhere": [],
    }.items():
        found = (await s.get(s.path("pods"), fieldSelector=selector)).obj["items"]
        assert [item["metadata"]["name"] for item in found] == names, selector
    typed = await s.client.list(PODS, field_selector=f"spec.nodeName={s.node}")
    assert [item.metadata.name for item in typed.items] == ["here"]
    answer = await s.get(s.path("pods"), fieldSelector="spec.foo=1")
    assert (answer.code, answer.obj["reason"]) == (400, "BadRequest")
    assert answer.obj["message"] == "field label not supported: spec.foo"
    with pytest.raises(Invalid):
        await s.client.list(PODS, field_selector="spec.foo=1")


@contract
async def test_a_watch_tells_everything_after_its_version_in_order(s: Server):
    await s.create("leases", lease("before"))
    version = await s.version()
    await s.create("leases", lease("a"))
    await s.patch("leases", "a", {"spec": {"holderIdentity": "b"}})
    await s.ask("DELETE", s.path("leases", "a"))
    found = await s.events(3, s.path("leases"), version)
    assert [e["type"] for e in found] == ["ADDED", "MODIFIED", "DELETED"]
    assert [e["object"]["spec"]["holderIdentity"] for e in found] == ["a", "b", "b"]
    versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in found]
    assert versions == sorted({int(version), *versions})[1:], "a deletion has a version of its own"


@contract
async def test_a_watch_without_a_version_begins_with_what_is_there(s: Server):
    await s.create("leases", lease("a"))
    await s.create("leases", lease("b"))
    for params in ({}, {"resourceVersion": "0"}):
        found = await s.events(2, s.path("leases"), **params)
        assert sorted((e["type"], e["object"]["metadata"]["name"]) for e in found) == [("ADDED", "a"), ("ADDED", "b")]


@contract
async def test_what_enters_or_leaves_a_selection_is_added_or_deleted(s: Server):
    version = await s.version()
    await s.create("leases", lease("a"))
    await s.patch("leases", "a", {"metadata": {"labels": {"tier": "one"}}})
    await s.patch("leases", "a", {"spec": {"holderIdentity": "b"}})
    left = await s.patch("leases", "a", {"metadata": {"labels": {"tier": "two"}}})
    back = await s.patch("leases", "a", {"metadata": {"labels": {"tier": "one"}}})
    await s.patch("leases", "a", {"metadata": {"labels": {"tier": None}}})
    await s.ask("DELETE", s.path("leases", "a"))
    await s.create("leases", lease("b", tier="one"))
    found = await s.events(6, s.path("leases"), version, labelSelector="tier=one")
    assert [e["type"] for e in found] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED", "ADDED"]
    told = [e["object"]["metadata"] for e in found]
    assert told[2]["resourceVersion"] == left["metadata"]["resourceVersion"]
    assert told[2]["labels"] == {"tier": "one"}, "the state before it left"
    assert told[3]["resourceVersion"] == back["metadata"]["resourceVersion"]
    assert len({meta["uid"] for meta in told[:5]}) == 1, "it is the same object all the time"
    assert told[5]["name"] == "b", "of the end of what is out of sight nothing is told"


@contract
async def test_a_watch_by_node_tells_of_its_pods(s: Server):
    version = await s.version("pods")
    await s.create("pods", pod("elsewhere"))
    await s.create("pods", pod("here", s.node))
    (event,) = await s.events(1, s.path("pods"), version, fieldSelector=f"spec.nodeName={s.node}")
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "here")


@contract
async def test_a_watch_list_ends_its_beginning_with_a_bookmark(s: Server):
    made = [await s.create("leases", lease(name)) for name in "ab"]
    params = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    found = await s.events(3, s.path("leases"), **params)
    assert sorted((e["type"], e["object"]["metadata"]["name"]) for e in found[:2]) == [("ADDED", "a"), ("ADDED", "b")]
    end = found[2]
    assert end["type"] == "BOOKMARK"
    assert (end["object"]["kind"], end["object"]["apiVersion"]) == ("Lease", "coordination.k8s.io/v1")
    assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(end["object"]["metadata"]["resourceVersion"]) >= int(made[-1]["metadata"]["resourceVersion"])
    async with s.client.watch(LEASES, s.namespace, params=params, timeout=60) as stream:
        ends = []
        async for event in events(stream, LEASES):
            ends.append(event.initial_end)
            if event.initial_end:
                break
    assert ends == [False, False, True]


@contract
async def test_a_watch_list_must_say_which_version_will_do(s: Server):
    (refused,) = await s.events(1, s.path("leases"), sendInitialEvents="true")
    assert (refused["type"], refused["code"]) == ("REFUSED", 422)
    (cause,) = refused["object"]["details"]["causes"]
    assert (cause["reason"], cause["field"]) == ("FieldValueForbidden", "resourceVersionMatch")


@contract
async def test_a_watch_of_a_version_that_is_too_old_says_so_in_the_stream(s: Server):
    await s.expire()
    event = (await s.events_until("ERROR", s.path("policies"), "1"))[-1]
    status = event["object"]
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")
    assert status["message"].startswith("too old resource version: 1 (")
    async with s.client.watch(POLICIES, s.namespace, params={"resourceVersion": "1"}, timeout=60) as stream:
        with pytest.raises(Gone):
            await anext(events(stream, POLICIES))


@contract
async def test_a_watch_ends_in_peace_when_its_time_is_over(s: Server):
    params = {"timeoutSeconds": "1", "allowWatchBookmarks": "true"}
    found = await s.events(9, s.path("leases"), await s.version(), **params)
    assert {e["type"] for e in found} <= {"BOOKMARK"}
    assert all(e["object"]["metadata"]["resourceVersion"].isdigit() for e in found)

"""What the client sends, and what it makes of the answers."""

import asyncio
import json
from email.utils import formatdate
from typing import Any

import pytest

from controller.kube import errors
from controller.kube.client import Client
from controller.kube.errors import NetworkError, Status
from controller.kube.resources import CONTROLLER_REVISIONS, DAEMONSETS, NODES, POD_DISRUPTION_BUDGETS, PODS
from tests.unit.kube.fake import (
    Answer,
    FakeTransport,
    bad_node,
    event,
    json_answer,
    make_client,
    node,
    node_list,
    status_answer,
)

pytestmark = pytest.mark.looptime
POD = {
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "4"},
    "status": {"phase": "x"},
}
SUCCESS = {"kind": "Status", "status": "Success"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (NODES.path(), "/api/v1/nodes"),
        (NODES.path("ignored", "n1", "status"), "/api/v1/nodes/n1/status"),
        (PODS.path(), "/api/v1/pods"),
        (PODS.path("ns", "p", "eviction"), "/api/v1/namespaces/ns/pods/p/eviction"),
        (DAEMONSETS.path("ns"), "/apis/apps/v1/namespaces/ns/daemonsets"),
        (CONTROLLER_REVISIONS.path(), "/apis/apps/v1/controllerrevisions"),
        (POD_DISRUPTION_BUDGETS.path("a/../b", "?x"), "/apis/policy/v1/namespaces/a%2F..%2Fb/poddisruptionbudgets/%3Fx"),
    ],
)
def test_paths(path: str, expected: str) -> None:
    assert path == expected


async def test_get_sends_its_time_limit_to_the_server_too() -> None:
    transport = FakeTransport(json_answer(node("a", 5)))
    found = await make_client(transport).get(NODES, "a", resource_version="0")
    assert (found.name, found.metadata.resource_version) == ("a", "5")
    (request,) = transport.requests
    assert (request.method, request.path, request.timeout) == ("GET", "/api/v1/nodes/a", 30)
    assert request.params == {"resourceVersion": "0", "timeout": "30s"}


async def test_patch_is_a_merge_patch_and_returns_the_new_object() -> None:
    transport = FakeTransport(json_answer(node("a", 6)))
    body = {"metadata": {"resourceVersion": "5", "labels": {"x": None}}}
    assert (await make_client(transport).patch(NODES, "a", body, subresource="status")).metadata.resource_version == "6"
    (request,) = transport.requests
    assert (request.method, request.path) == ("PATCH", "/api/v1/nodes/a/status")
    assert request.headers["Content-Type"] == "application/merge-patch+json"
    assert request.body == body


async def test_delete_names_the_uid_and_tells_what_is_left() -> None:
    transport = FakeTransport(json_answer(POD), json_answer(SUCCESS))
    client = make_client(transport)
    going = await client.delete(PODS, "p", "ns", uid="u", grace_period_seconds=0)
    assert going is not None
    assert going.uid == "u"
    assert await client.delete(PODS, "p", "ns", uid="u") is None
    first, second = (request.body for request in transport.requests)
    assert first == {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "u"}, "gracePeriodSeconds": 0}
    assert "gracePeriodSeconds" not in second


async def test_evict_carries_the_uid_and_waits_long_enough_for_the_server_to_retry() -> None:
    transport = FakeTransport(json_answer(SUCCESS, 201))
    await make_client(transport).evict("p", "ns", "u", grace_period_seconds=3)
    (request,) = transport.requests
    assert (request.method, request.path) == ("POST", "/api/v1/namespaces/ns/pods/p/eviction")
    assert request.timeout >= 15
    assert request.body["kind"] == "Eviction"
    assert request.body["apiVersion"] == "policy/v1"
    assert request.body["deleteOptions"]["preconditions"] == {"uid": "u"}
    assert request.body["deleteOptions"]["gracePeriodSeconds"] == 3


async def test_create_returns_the_object_or_the_subresource_status() -> None:
    transport = FakeTransport(json_answer(node("a", 1), 201), json_answer(SUCCESS, 201))
    client = make_client(transport)
    assert (await client.create(NODES, {"metadata": {"name": "a"}})).name == "a"
    assert isinstance(await client.create(PODS, {}, "ns", "p", subresource="binding"), Status)
    assert [request.path for request in transport.requests] == ["/api/v1/nodes", "/api/v1/namespaces/ns/pods/p/binding"]


async def test_refusals_raise_and_network_errors_pass() -> None:
    refused = errors.NetworkError("refused", maybe_applied=False)
    client = make_client(FakeTransport(status_answer(409, "Conflict"), refused, Answer(200, (b"<html>",))))
    with pytest.raises(errors.Conflict):
        await client.patch(NODES, "a", {})
    with pytest.raises(errors.NetworkError) as caught:
        await client.get(NODES, "a")
    assert caught.value is refused
    with pytest.raises(errors.NetworkError, match="unreadable answer about nodes") as unreadable:
        await client.patch(NODES, "a", {})
    assert unreadable.value.maybe_applied


async def test_list_follows_continue_tokens() -> None:
    transport = FakeTransport(node_list(10, node("a", 1), more="token"), node_list(10, node("b", 2)))
    result = await make_client(transport).list(
        NODES, label_selector="x=y", field_selector="f=g", resource_version="7", limit=1
    )
    assert ([n.name for n in result.items], result.resource_version) == (["a", "b"], "10")
    first, second = (request.params for request in transport.requests)
    chosen = {"labelSelector": "x=y", "fieldSelector": "f=g", "limit": "1", "timeout": "30s"}
    assert first == {**chosen, "resourceVersion": "7", "resourceVersionMatch": "NotOlderThan"}
    assert second == {**chosen, "continue": "token"}


async def test_an_expired_continue_token_starts_again_without_pages() -> None:
    transport = FakeTransport(
        node_list(10, node("a", 1), more="token"), status_answer(410, "Expired"), node_list(12, node("b", 2), node("c", 3))
    )
    result = await make_client(transport).list(NODES, limit=1)
    assert ([n.name for n in result.items], result.resource_version) == (["b", "c"], "12")
    assert "limit" not in transport.requests[2].params


async def test_a_first_page_that_is_gone_is_the_callers_business() -> None:
    transport = FakeTransport(status_answer(410, "Expired"))
    with pytest.raises(errors.Gone) as caught:
        await make_client(transport).list(NODES, resource_version="5")
    assert caught.value.__cause__ is None, "an error is not its own cause"
    assert len(transport.requests) == 1


async def test_one_malformed_object_does_not_spoil_the_list() -> None:
    transport = FakeTransport(node_list(10, node("a", 1), bad_node("b", 2), node("c", 3)))
    result = await make_client(transport).list(NODES)
    assert [n.name for n in result.items] == ["a", "c"]
    (bad,) = result.malformed
    assert (bad.key, bad.resource_version) == ("b", "2")
    assert "$.spec.taints" in bad.error


async def test_one_object_is_looked_up_by_a_list() -> None:
    transport = FakeTransport(node_list(10, node("a", 1)), node_list(11), node_list(12, bad_node("a", 2)))
    client = make_client(transport)
    found = await client.look_up(NODES, "a")
    assert found is not None
    assert found.name == "a"
    assert transport.requests[0].params["fieldSelector"] == "metadata.name=a"
    assert await client.look_up(NODES, "a") is None
    with pytest.raises(NetworkError, match=r"nodes a: .*spec\.taints"):
        await client.look_up(NODES, "a")


@pytest.mark.parametrize(
    "body", [b'{"metadata":{"resourceVersion":"3"},"items":null}', b'{"metadata":{"resourceVersion":"3"}}']
)
async def test_an_empty_list(body: bytes) -> None:
    result = await make_client(FakeTransport(Answer(200, (body,)))).list(NODES)
    assert (result.items, result.resource_version) == ((), "3")


async def test_a_list_that_is_no_list_is_a_network_error() -> None:
    with pytest.raises(errors.NetworkError, match="unreadable list of nodes"):
        await make_client(FakeTransport(Answer(200, (b'{"items":5}',)))).list(NODES)


async def test_server_time_is_learnt_from_answers() -> None:
    date = formatdate(1_800_000_000, usegmt=True)
    client = make_client(FakeTransport(json_answer(node("a", 1), Date=date)))
    assert client.now() == pytest.approx(1_700_000_000)
    await client.get(NODES, "a")
    assert abs(client.now() - 1_800_000_000.5) <= 0.5
    before = client.now()
    await asyncio.sleep(100)
    assert client.now() == pytest.approx(before + 100)


async def test_requests_wait_for_the_limiter_and_are_counted() -> None:
    class Pace:
        async def wait(self) -> None:
            await asyncio.sleep(3)

    class Count:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def request(self, verb: str, resource: str, code: str, seconds: float) -> None:
            self.seen.append((verb, resource, code, seconds))

        def throttled(self, verb: str, seconds: float) -> None:
            self.seen.append((verb, seconds))

    count = Count()
    slow = Answer(200, (2, json.dumps({"metadata": {}, "items": []}).encode()))
    transport = FakeTransport(slow, errors.NetworkError("x"), status_answer(429))
    client = make_client(transport, limiter=Pace(), metrics=count)
    await client.list(NODES)
    with pytest.raises(errors.NetworkError):
        await client.get(PODS, "p", "ns")
    with pytest.raises(errors.TooManyRequests):
        await client.evict("p", "ns", "u")
    assert count.seen == [
        ("LIST", 3.0),
        ("LIST", "nodes", "200", 2.0),
        ("GET", 3.0),
        ("GET", "pods", "<error>", 0.0),
        ("EVICT", 3.0),
        ("EVICT", "pods", "429", 0.0),
    ]


async def test_watch_opens_or_raises_and_always_closes() -> None:
    transport = FakeTransport(Answer(200, (event("ADDED", node("a", 1)),)), status_answer(403, "Forbidden", "no"))
    client: Client = make_client(transport)
    async with client.watch(NODES, params={"resourceVersion": "5"}, timeout=33) as stream:
        assert [chunk async for chunk in stream.chunks()]
        assert transport.open_streams == 1
    assert transport.open_streams == 0
    assert transport.requests[0].params == {"watch": "1", "resourceVersion": "5"}
    assert transport.requests[0].timeout == 33
    with pytest.raises(errors.Forbidden):
        async with client.watch(NODES, params={}, timeout=33):
            raise AssertionError("must not be entered")
    assert transport.open_streams == 0

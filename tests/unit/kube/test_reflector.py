"""The reflector gets back on after everything that throws it off, and asks for no more than it needs. Virtual time."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from controller.api.node import Node
from controller.kube import watch
from controller.kube.errors import NetworkError
from controller.kube.follow import SILENCE
from controller.kube.informer import Informer
from controller.kube.resources import NODES, Resource
from tests.unit.kube.fake import (
    HANG,
    Answer,
    FakeTransport,
    bad_node,
    bookmark,
    error_event,
    event,
    make_client,
    node,
    node_list,
    status_answer,
    watch_list,
)

pytestmark = pytest.mark.looptime


class Lists:
    def __init__(self) -> None:
        self.lists: list[int] = []
        self.watches: list[tuple[int, bool]] = []

    def listed(self, resource: str, items: int, seconds: float) -> None:
        assert resource == "nodes"
        self.lists.append(items)

    def watched(self, resource: str, events: int, seconds: float, *, short: bool) -> None:
        self.watches.append((events, short))


CUSTOM = Resource("example.com", "v1", "nodes", False, Node)


@asynccontextmanager
async def running(
    *script: Any, resource: Resource[Node] = NODES, **options: Any
) -> AsyncIterator[tuple[Informer[Node], FakeTransport]]:
    """An informer for nodes that runs against a script."""
    transport = FakeTransport(*script)
    informer = Informer(make_client(transport), resource, rng=random.Random(1), **options)
    task = asyncio.create_task(informer.run())
    try:
        yield informer, transport
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert transport.open_streams == 0


def versions(informer: Informer[Node]) -> dict[str, str]:
    return {n.name: n.metadata.resource_version for n in informer.store.list()}


async def test_a_watch_list_gathers_aside_and_goes_on_as_a_watch() -> None:
    more = (event("MODIFIED", node("a", 11)), event("ADDED", node("c", 12)), event("DELETED", node("b", 13)), HANG)
    initial = event("ADDED", node("a", 5)) + event("ADDED", node("b", 6))
    async with running(Answer(200, (initial, 7, bookmark(10, end=True), 7, *more))) as (informer, transport):
        await asyncio.sleep(6)
        assert (informer.synced, len(informer.store)) == (False, 0)
        await asyncio.sleep(2)
        assert (informer.synced, len(informer.store)) == (True, 2)
        assert versions(informer) == {"a": "5", "b": "6"}
        await asyncio.sleep(7)
        assert versions(informer) == {"a": "11", "c": "12"}
        (request,) = transport.requests
        assert request.path == "/api/v1/nodes"
        assert 300 <= int(request.params.pop("timeoutSeconds")) == request.timeout - 30 <= 600
        assert request.params == {
            "watch": "1",
            "sendInitialEvents": "true",
            "resourceVersionMatch": "NotOlderThan",
            "allowWatchBookmarks": "true",
        }


async def test_selectors_and_namespace_reach_the_server() -> None:
    options: dict[str, Any] = {"namespace": "ns", "label_selector": "a=b", "field_selector": "c=d"}
    async with running(Answer(200, (watch_list(3),)), **options) as (_, transport):
        await asyncio.sleep(1)
        assert len(transport.requests) == 2
        for request in transport.requests:
            assert (request.params["labelSelector"], request.params["fieldSelector"]) == ("a=b", "c=d")


async def test_a_watch_that_ends_is_resumed_at_once_from_the_last_event_or_bookmark() -> None:
    async with running(
        Answer(200, (watch_list(10, node("a", 5)), 300)),
        Answer(200, (event("MODIFIED", node("a", 20)), 300)),
        Answer(200, (bookmark(30), 300)),
    ) as (_, transport):
        await asyncio.sleep(901)
        assert transport.kinds == ["WATCHLIST", "WATCH", "WATCH", "WATCH"]
        assert [request.params.get("resourceVersion") for request in transport.requests] == [None, "10", "20", "30"]
        assert [request.at for request in transport.requests] == pytest.approx([0, 300, 600, 900])


@pytest.mark.parametrize("code", [400, 405, 422])
async def test_without_watch_list_it_lists_in_pages_and_remembers(code: int) -> None:
    async with running(
        status_answer(code, "Invalid", "sendInitialEvents is forbidden"),
        node_list(10, node("a", 5), more="next"),
        node_list(10, node("b", 6)),
        Answer(200, (error_event(410, "Expired"),)),
        node_list(40, node("b", 6)),
    ) as (informer, transport):
        await informer.wait_for_sync()
        assert versions(informer) == {"a": "5", "b": "6"}
        await asyncio.sleep(60)
        assert transport.kinds == ["WATCHLIST", "LIST", "LIST", "WATCH", "LIST", "WATCH"]
        assert "resourceVersion" not in transport.requests[1].params
        assert transport.requests[4].params["resourceVersion"] == "10"
        assert transport.requests[5].params["resourceVersion"] == "40"
        assert versions(informer) == {"b": "6"}


async def test_consistent_lists_the_newest_state_and_watches_from_it() -> None:
    async with running(
        node_list(10, node("a", 5)), Answer(200, (error_event(410, "Expired"),)), node_list(20), consistent=True
    ) as (_, transport):
        await asyncio.sleep(60)
        assert transport.kinds == ["LIST", "WATCH", "LIST", "WATCH"]
        assert [request.params.get("resourceVersion") for request in transport.requests] == [None, "10", None, "20"]


@pytest.mark.parametrize("how", ["event", "status"])
async def test_expired_takes_the_state_anew_and_tells_deletions_nobody_saw(how: str) -> None:
    expired = Answer(200, (error_event(410, "Expired"),)) if how == "event" else status_answer(410, "Gone")
    script = (
        Answer(200, (watch_list(10, node("a", 5), node("b", 6)), 400)),
        expired,
        Answer(200, (watch_list(30, node("a", 25)), HANG)),
    )
    async with running(*script) as (informer, transport):
        seen: list[tuple[Any, Any]] = []
        informer.add_handler(lambda old, new: seen.append((old and old.name, new and new.metadata.resource_version)))
        await asyncio.sleep(460)
        assert transport.kinds == ["WATCHLIST", "WATCH", "WATCHLIST"]
        assert transport.requests[2].params["resourceVersion"] == "10"
        assert transport.requests[2].at > transport.requests[1].at
        assert sorted(seen, key=str) == sorted([(None, "5"), (None, "6"), ("a", "25"), ("b", None)], key=str)
        assert informer.last_error == ""


async def test_a_state_not_older_than_seen_that_cannot_be_had_becomes_the_newest() -> None:
    async with running(
        Answer(200, (watch_list(10), 400)),
        status_answer(410, "Gone"),
        status_answer(504, "Timeout", "Too large resource version"),
    ) as (_, transport):
        await asyncio.sleep(500)
        assert transport.kinds == ["WATCHLIST", "WATCH", "WATCHLIST", "WATCHLIST"]
        assert [request.params.get("resourceVersion") for request in transport.requests] == [None, "10", "10", None]


@pytest.mark.parametrize(
    "trouble",
    [
        NetworkError("connection refused", maybe_applied=False),
        status_answer(429, "TooManyRequests"),
        Answer(429, (b"Too many requests, please try again later",)),
        status_answer(503),
        Answer(502, (b"<html>bad gateway</html>",)),
        Answer(200, (b"Too many requests\n",)),
        Answer(200, (event("MODIFIED", node("a", 11))[:-20],)),
        Answer(200, (NetworkError("cut off"),)),
        Answer(200, (error_event(500, "InternalError"),)),
    ],
    ids=["refused", "429", "429-text", "503", "502-html", "text-in-200", "truncated", "cut", "error-event"],
)
async def test_trouble_backs_off_and_resumes_without_a_list(trouble: Answer | Exception) -> None:
    after = Answer(200, (event("MODIFIED", node("a", 12)), HANG))
    async with running(Answer(200, (watch_list(10, node("a", 5)), 400)), *[trouble] * 4, after) as (informer, transport):
        await asyncio.sleep(500)
        assert transport.kinds == ["WATCHLIST"] + ["WATCH"] * 5
        assert {request.params.get("resourceVersion") for request in transport.requests[1:]} == {"10"}
        assert transport.requests[-1].at - transport.requests[1].at > 0.5
        assert versions(informer) == {"a": "12"}
        assert informer.last_error == ""


async def test_retry_after_is_respected() -> None:
    throttled = status_answer(429, "TooManyRequests", Retry_After="57")
    async with running(Answer(200, (watch_list(10), 400)), throttled) as (informer, transport):
        await asyncio.sleep(450)
        assert "429" in informer.last_error
        await asyncio.sleep(100)
        assert transport.requests[2].at >= transport.requests[1].at + 57


async def test_a_maintenance_page_does_not_blind_us_for_longer_than_it_stands() -> None:
    page = Answer(503, (b"<html>back in an hour</html>",), {"Retry-After": "3600"})
    async with running(page, Answer(200, (watch_list(10, node("a", 5)), HANG))) as (informer, _):
        await asyncio.sleep(61)
        assert versions(informer) == {"a": "5"}


async def test_empty_streams_and_streams_of_one_event_make_no_hot_loop() -> None:
    gone = [Answer(200, (event("MODIFIED", node("a", 11)), error_event(410, "Expired"))) for _ in range(500)]
    empty = [Answer() for _ in range(500)]
    metrics = Lists()
    async with running(Answer(200, (watch_list(10),)), *empty, metrics=metrics) as (_, transport):
        await asyncio.sleep(300)
        assert 10 < len(transport.requests) < 60
        assert metrics.lists == [0]
        assert metrics.watches[:3] == [(1, False), (0, True), (0, True)]
    early = [Answer(200, (event("ADDED", node("a", 5)),)) for _ in range(500)]
    for script in (gone, early):
        async with running(*script) as (_, transport):
            await asyncio.sleep(300)
            assert 10 < len(transport.requests) < 60


async def test_a_watch_list_that_ends_early_is_not_a_state() -> None:
    early = Answer(200, (event("ADDED", node("a", 5)), bookmark(6)))
    async with running(early, Answer(200, (watch_list(10, node("b", 7)), HANG))) as (informer, transport):
        await asyncio.sleep(30)
        assert transport.kinds == ["WATCHLIST", "WATCHLIST"]
        assert versions(informer) == {"b": "7"}


async def test_a_watch_that_falls_silent_is_given_up_after_three_minutes_and_resumed_at_once() -> None:
    """It was noticed when the watch was to have ended, up to ten minutes later, and the transport gave it up."""
    silent = Answer(200, (watch_list(10, node("a", 5)), 100, event("MODIFIED", node("a", 11)), HANG))
    async with running(silent, Answer(200, (event("MODIFIED", node("a", 12)), HANG))) as (informer, transport):
        await asyncio.sleep(281)
        assert [(r.kind, r.params.get("resourceVersion"), r.at) for r in transport.requests] == [
            ("WATCHLIST", None, 0),
            ("WATCH", "11", pytest.approx(100 + SILENCE)),
        ]
        assert versions(informer) == {"a": "12"}
        assert informer.last_error == ""


async def test_a_server_that_sends_no_bookmarks_is_asked_for_a_watch_each_three_minutes_and_never_for_a_list() -> None:
    metrics = Lists()
    silent = [Answer(200, (HANG,)) for _ in range(30)]
    async with running(Answer(200, (watch_list(10),)), *silent, metrics=metrics) as (informer, transport):
        for _ in range(60):
            await asyncio.sleep(60)
            assert informer.last_error == ""
        assert transport.kinds == ["WATCHLIST"] + ["WATCH"] * 20
        assert {request.params["resourceVersion"] for request in transport.requests[1:]} == {"10"}
        assert metrics.lists == [0]


@pytest.mark.parametrize(
    "stuck",
    [HANG, Answer(503, (b"<html>", HANG)), Answer(200, (event("ADDED", node("a", 5)), HANG))],
    ids=["no answer", "half a refusal", "half a state"],
)
async def test_a_server_that_is_stuck_before_it_has_told_the_state_is_given_up_as_well(stuck: Any) -> None:
    async with running(stuck, Answer(200, (watch_list(10, node("a", 6)), HANG))) as (informer, transport):
        await asyncio.sleep(SILENCE - 1 if isinstance(stuck, Answer) and stuck.status == 200 else 29)
        assert (len(transport.requests), informer.synced) == (1, False)
        await asyncio.sleep(5)
        assert transport.kinds == ["WATCHLIST", "WATCHLIST"]
        assert versions(informer) == {"a": "6"}


async def test_malformed_objects_are_reported_and_what_is_held_of_them_stays() -> None:
    reported: list[str] = []
    first = (watch_list(10, node("a", 5), bad_node("b", 6)), 400)
    second = (event("MODIFIED", bad_node("a", 11)), event("ADDED", node("c", 12)), HANG)
    async with running(Answer(200, first), Answer(200, second), on_malformed=lambda bad: reported.append(bad.key)) as (
        informer,
        transport,
    ):
        await asyncio.sleep(401)
        assert versions(informer) == {"a": "5", "c": "12"}
        assert reported == ["b", "a"]
        assert set(informer.reflector.malformed) == {"a", "b"}
        assert transport.requests[1].params["resourceVersion"] == "10"


async def test_a_malformed_object_survives_a_relist_and_its_recovery_and_deletion_are_seen() -> None:
    async with running(
        Answer(200, (watch_list(10, node("a", 5), node("b", 5)), 400)),
        status_answer(410, "Gone"),
        Answer(200, (watch_list(20, bad_node("a", 15), bad_node("b", 15)), 200)),
        Answer(200, (event("DELETED", bad_node("a", 21)), event("MODIFIED", node("b", 22)), HANG)),
    ) as (informer, _):
        await asyncio.sleep(500)
        assert versions(informer) == {"a": "5", "b": "5"}
        await asyncio.sleep(500)
        assert versions(informer) == {"b": "22"}
        assert informer.reflector.malformed == {}


async def test_an_event_too_long_for_a_line_is_read_by_a_list() -> None:
    huge = event("MODIFIED", node("a", 11, x="y" * watch.MAX_LINE))
    async with running(
        Answer(200, (watch_list(10, node("a", 5)), 400)), Answer(200, (huge, HANG)), node_list(12, node("a", 11))
    ) as (informer, transport):
        await asyncio.sleep(450)
        assert transport.kinds == ["WATCHLIST", "WATCH", "LIST", "WATCH"]
        assert versions(informer) == {"a": "11"}
        assert transport.requests[3].params["resourceVersion"] == "12"


async def test_an_absent_resource_is_confirmed_and_tried_again_each_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    absent = Answer(404, (b"404 page not found\n",))
    present = Answer(200, (watch_list(10, node("a", 5)), HANG))
    async with running(absent, absent, absent, present, resource=CUSTOM) as (informer, transport):
        await asyncio.sleep(0.5)
        assert not informer.synced, "a single 404 may be a proxy's mistake"
        await informer.wait_for_sync()
        assert informer.absent
        assert "install its CustomResourceDefinition" in informer.last_error
        await asyncio.sleep(59)
        assert len(transport.requests) == 2
        await asyncio.sleep(70)
        assert [request.at for request in transport.requests] == pytest.approx([0, 1, 61, 121])
        assert (informer.absent, informer.last_error) == (False, "")
        assert versions(informer) == {"a": "5"}
        assert caplog.messages == ["resource absent", "resource present"], "said once, however often it is looked for"


async def test_a_built_in_resource_is_never_absent() -> None:
    absent = Answer(404, (b"404 page not found\n",))
    state = Answer(200, (watch_list(10, node("a", 5)), HANG))
    async with running(absent, absent, absent, state) as (informer, transport):
        await asyncio.sleep(0.1)
        assert not informer.synced
        assert "404" in informer.last_error
        await informer.wait_for_sync()
        assert len(transport.requests) == 4
        assert (informer.absent, versions(informer)) == (False, {"a": "5"})


async def test_a_single_404_at_the_start_is_not_taken_for_an_absent_resource() -> None:
    absent = Answer(404, (b"404 page not found\n",))
    async with running(absent, Answer(200, (watch_list(10, node("a", 5)), HANG)), resource=CUSTOM) as (informer, _):
        await informer.wait_for_sync()
        assert (informer.absent, versions(informer)) == (False, {"a": "5"})


@pytest.mark.parametrize(
    ("between", "state"),
    [
        (status_answer(400, "BadRequest"), node_list(10, node("a", 5))),  # the second 404 is the answer to a list then
        (status_answer(500, "InternalError"), Answer(200, (watch_list(10, node("a", 5)), HANG))),
    ],
)
async def test_a_second_404_confirms_the_first_only_as_the_next_answer(between: Answer, state: Answer) -> None:
    absent = Answer(404, (b"404 page not found\n",))
    async with running(absent, between, absent, state, resource=CUSTOM) as (informer, _):
        await informer.wait_for_sync()
        assert (informer.absent, versions(informer)) == (False, {"a": "5"})


async def test_objects_are_not_given_up_for_a_single_404() -> None:
    absent = Answer(404, (b"404 page not found\n",))
    async with running(Answer(200, (watch_list(10, node("a", 5)), 400)), absent, absent, resource=CUSTOM) as (informer, _):
        await asyncio.sleep(430)
        assert informer.absent
        assert versions(informer) == {"a": "5"}
        await asyncio.sleep(60)
        assert versions(informer) == {}


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        (status_answer(403, "Forbidden", "nope"), "grant list,watch on nodes cluster-wide"),
        (status_answer(401, "Unauthorized"), "check the token or certificate"),
    ],
)
async def test_missing_permissions_are_named_with_the_remedy_until_they_are_there(answer: Answer, remedy: str) -> None:
    async with running(answer, answer, Answer(200, (watch_list(10), HANG))) as (informer, transport):
        await asyncio.sleep(0.001)
        assert remedy in informer.last_error
        assert not informer.synced
        await informer.wait_for_sync()
        assert informer.last_error == ""
        assert transport.kinds == ["WATCHLIST"] * 3


async def test_own_writes_are_visible_at_once_and_older_events_do_not_undo_them() -> None:
    stream = (watch_list(10, node("a", 5)), 400, event("MODIFIED", node("a", 12)), HANG)
    async with running(Answer(200, stream)) as (informer, _):
        await informer.wait_for_sync()
        informer.store.observe_write(NODES.decoder.decode(json.dumps(node("a", 15))))
        assert versions(informer) == {"a": "15"}
        await asyncio.sleep(401)
        assert versions(informer) == {"a": "15"}

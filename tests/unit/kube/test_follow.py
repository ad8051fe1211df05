"""One watch after another: what is asked for, and how long to wait before the next. Virtual time."""

import asyncio
import random
from typing import Any

import pytest

from controller.api.node import Node
from controller.kube.errors import NetworkError, TooManyRequests
from controller.kube.follow import SILENCE, Follower
from controller.kube.listoptions import ListOptions
from controller.kube.resources import NODES, PODS
from tests.unit.kube.fake import HANG, Answer, FakeTransport, event, make_client, node

pytestmark = pytest.mark.looptime


async def followed(*script: Any) -> tuple[Follower[Node], list[str]]:
    """Follow one watch to its end; returns also the versions that came."""
    follower = Follower(make_client(FakeTransport(*script)), NODES, ListOptions(), rng=random.Random(1))
    async with follower.watch({"resourceVersion": "1"}) as events:
        return follower, [found.resource_version async for found in events]


async def test_what_is_followed_is_asked_for_with_bookmarks_and_a_random_end() -> None:
    transport = FakeTransport(Answer(), Answer())
    options = ListOptions("ops", "a=b", "c=d")
    follower = Follower(make_client(transport), PODS, options, rng=random.Random(1))
    for _ in range(2):
        async with follower.watch({"resourceVersion": "7"}) as events:
            assert [found async for found in events] == []
    first, second = transport.requests
    assert first.path == "/api/v1/namespaces/ops/pods"
    lives = [int(request.params.pop("timeoutSeconds")) for request in (first, second)]
    assert len(set(lives)) == 2
    assert all(300 <= life <= 600 for life in lives)
    wanted = {"labelSelector": "a=b", "fieldSelector": "c=d", "resourceVersion": "7", "allowWatchBookmarks": "true"}
    assert first.params == {"watch": "1", **wanted}


@pytest.mark.parametrize(
    ("steps", "seen"),
    [((event("ADDED", node("a", 5)),), ["5"]), ((2,), []), ((HANG,), []), ((event("ADDED", node("a", 5)), HANG), ["5"])],
    ids=["an event", "an empty one", "silence", "silence after an event"],
)
async def test_after_a_watch_that_ended_the_next_one_follows_at_once(steps: tuple[Any, ...], seen: list[str]) -> None:
    follower, versions = await followed(Answer(200, steps))
    assert versions == seen
    assert asyncio.get_running_loop().time() in {0, 2, SILENCE}
    assert follower.pause() == 0


async def test_after_an_empty_one_that_ended_at_once_there_is_a_pause() -> None:
    follower, _ = await followed(Answer())
    assert follower.pause() > 0


async def test_after_an_error_there_is_a_pause_at_least_as_long_as_was_asked_for() -> None:
    follower, _ = await followed(Answer(200, (2,)))
    assert 0 < follower.pause(NetworkError("reset")) < 5
    assert follower.pause(TooManyRequests(429, retry_after=50)) == 50


async def test_errors_of_a_watch_are_told_and_its_connection_is_closed() -> None:
    transport = FakeTransport(Answer(200, (event("ADDED", node("a", 5)), NetworkError("cut off"))))
    follower = Follower(make_client(transport), NODES, ListOptions(), rng=random.Random(1))
    caught = None
    try:
        async with follower.watch({"resourceVersion": "1"}) as events:
            assert (await anext(events)).resource_version == "5"
            await anext(events)
    except NetworkError as error:
        caught = error
    assert str(caught) == "cut off"
    assert transport.open_streams == 0

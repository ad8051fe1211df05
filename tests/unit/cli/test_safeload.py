"""The wait of the init container, in virtual time: what it sends, what it says, what it survives."""

import asyncio
import random
from typing import Any

import pytest

from controller.cli.safeload import TELL_SECONDS, NodeGone, SafeLoad
from controller.kube.errors import NetworkError
from controller.kube.follow import SILENCE
from controller.upgrade.keys import keys_for
from tests.unit.kube.fake import HANG, Answer, FakeTransport, event, json_answer, make_client, status_answer

pytestmark = pytest.mark.looptime
KEYS = keys_for("gpu")


def node(version: int, *, marked: bool = True, uid: str = "u", state: str = "") -> dict[str, Any]:
    notes = {KEYS.safe_load: "true"} if marked else {}
    labels = {KEYS.state: state} if state else {}
    return {"metadata": {"name": "n1", "uid": uid, "resourceVersion": str(version), "annotations": notes, "labels": labels}}


def stream(*steps: Any) -> Answer:
    return Answer(200, steps)


async def wait(*script: Answer | Exception) -> tuple[FakeTransport, list[str]]:
    transport, said = FakeTransport(*script), list[str]()
    async with asyncio.timeout(3600):  # a script that is over answers nothing more
        await SafeLoad(make_client(transport), "n1", KEYS, said.append, random.Random(1)).wait()
    return transport, said


async def test_it_marks_looks_watches_and_ends():
    drained, gone = node(3, state="drain-required"), node(4, marked=False, state="drain-required")
    watched = stream(event("MODIFIED", drained), event("MODIFIED", gone), HANG)
    transport, said = await wait(json_answer(node(1)), json_answer(node(2)), watched)
    assert transport.kinds == ["PATCH", "GET", "WATCH"]
    assert transport.requests[0].body == {"metadata": {"annotations": {KEYS.safe_load: "true"}}}
    watch = transport.requests[2].params
    assert (watch["fieldSelector"], watch["resourceVersion"]) == ("metadata.name=n1", "2")
    assert [line.partition(" ")[0] for line in said] == ["annotation", "upgrade", "annotation"]
    assert transport.open_streams == 0


async def test_an_annotation_that_went_between_two_watches_is_seen_and_not_set_again(looptime):
    transport, _ = await wait(json_answer(node(1)), json_answer(node(2)), stream(300), json_answer(node(3, marked=False)))
    assert transport.kinds == ["PATCH", "GET", "WATCH", "GET"]
    assert looptime == 300


async def test_a_watch_that_falls_silent_is_given_up_and_the_node_looked_at(looptime):
    """The annotation went while a load balancer held a connection that nothing came through: the pod waited for minutes."""
    transport, said = await wait(
        json_answer(node(1)), json_answer(node(2)), stream(HANG), json_answer(node(3, marked=False))
    )
    assert transport.kinds == ["PATCH", "GET", "WATCH", "GET"]
    assert transport.requests[2].params["allowWatchBookmarks"] == "true", "else a server has nothing to say for long"
    assert looptime == SILENCE
    assert not any("trying again" in line for line in said), "it may be a false alarm"


async def test_watches_that_end_at_once_are_not_opened_in_a_hot_loop(looptime):
    ended = [answer for _ in range(5) for answer in (json_answer(node(1)), stream())]
    await wait(json_answer(node(1)), *ended, json_answer(node(3, marked=False)))
    assert looptime > 1


@pytest.mark.parametrize(
    "trouble",
    [NetworkError("refused"), status_answer(403, "Forbidden", "no"), status_answer(500), status_answer(410, "Expired")],
    ids=["network", "forbidden", "server", "gone"],
)
async def test_every_trouble_is_said_and_tried_again_with_patience(trouble: Answer | Exception, looptime):
    _, said = await wait(
        *(trouble, trouble, trouble, json_answer(node(1))),
        *(trouble, json_answer(node(1))),
        *(trouble, json_answer(node(2, marked=False))),
    )
    assert sum("trying again" in line for line in said) == 5
    assert looptime > 0, "there is a wait between tries"


async def test_what_is_missing_is_named():
    _, said = await wait(status_answer(403, "Forbidden", "no"), json_answer(node(1)), json_answer(node(1, marked=False)))
    assert said[0].endswith("grant patch, get and watch on nodes/n1")


@pytest.mark.parametrize(
    "script",
    [
        (status_answer(404, "NotFound"),),
        (json_answer(node(1)), status_answer(404, "NotFound")),
        (json_answer(node(1)), json_answer(node(9, uid="another"))),
        (json_answer(node(1)), json_answer(node(2)), stream(event("DELETED", node(3)))),
        (json_answer(node(1)), json_answer(node(2)), stream(event("MODIFIED", node(3, uid="another")))),
    ],
    ids=["never-there", "gone", "re-created", "deleted", "re-created-on-the-watch"],
)
async def test_a_node_that_is_gone_ends_it(script: tuple[Answer, ...]):
    with pytest.raises(NodeGone):
        await wait(*script)


async def test_it_tells_every_minute_that_it_waits():
    gone = event("MODIFIED", node(3, marked=False))
    _, said = await wait(json_answer(node(1)), json_answer(node(2)), stream(3 * TELL_SECONDS + 1, gone))
    told = [line for line in said if line.startswith("still waiting")]
    assert [line.split(",")[1] for line in told] == [" for 1 min now", " for 2 min now", " for 3 min now"]

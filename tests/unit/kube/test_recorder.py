"""Events: what repeats is counted, what is too much is lost and counted, and nobody waits. In virtual time."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from controller.api.event import ObjectReference
from controller.kube.errors import NetworkError
from controller.kube.eventwriter import TRIES
from controller.kube.recorder import FINISH_SECONDS, REFRESH_SECONDS, EventRecorder
from tests.unit.kube.fake import HANG, Answer, FakeTransport, json_answer, make_client, status_answer

pytestmark = pytest.mark.looptime

NODE = ObjectReference("Node", "n1", uid="u1")
POLICY = ObjectReference("DriverUpgradePolicy", "gpu", "ops", "u2", "nvidia.com/v1")
OK = json_answer({"metadata": {"name": "e"}})


class Counted:
    """Counts outcomes."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()

    def event(self, outcome: str) -> None:
        self.outcomes[outcome] += 1


@contextlib.asynccontextmanager
async def recording(transport: FakeTransport, **options) -> AsyncIterator[EventRecorder]:
    made = EventRecorder(make_client(transport), "example.com/us", "us-1", **options)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def tell(recorder: EventRecorder, note: str = "why", *, about=NODE, kind="Normal", reason="Moved", related=None) -> None:
    recorder.event(about, kind, reason, "Upgrade", note, related)


async def test_an_event_has_what_the_api_demands() -> None:
    transport = FakeTransport(OK, OK)
    async with recording(transport) as recorder:
        tell(recorder, "moved on\n\x1b[31m" + "x" * 5000, related=POLICY)
        tell(recorder, about=POLICY)
        await asyncio.sleep(1)
    first, second = transport.requests
    assert (first.method, first.path) == ("POST", "/apis/events.k8s.io/v1/namespaces/default/events")
    assert second.path == "/apis/events.k8s.io/v1/namespaces/ops/events"
    body = first.body
    assert body["metadata"]["namespace"] == "default"
    assert body["metadata"]["name"].startswith("n1.")
    assert body["metadata"]["name"] != second.body["metadata"]["name"]
    assert (body["type"], body["reason"], body["action"]) == ("Normal", "Moved", "Upgrade")
    assert (body["reportingController"], body["reportingInstance"]) == ("example.com/us", "us-1")
    assert body["regarding"] == {"kind": "Node", "name": "n1", "namespace": "", "uid": "u1", "apiVersion": "v1"}
    assert body["related"]["apiVersion"] == "nvidia.com/v1"
    assert body["eventTime"] == "2023-11-14T22:13:20.000000Z"
    assert len(body["note"].encode()) <= 1024
    assert body["note"].startswith("moved on\\n\\x1b[31m")
    assert "series" not in body


async def test_what_repeats_is_a_series_that_costs_a_write_at_its_begin_and_end() -> None:
    transport, counted = FakeTransport(*[OK] * 9), Counted()
    async with recording(transport, metrics=counted) as recorder:
        for _ in range(100):
            tell(recorder)
            await asyncio.sleep(1)
        assert [r.method for r in transport.requests] == ["POST", "PATCH"]
        assert transport.requests[1].body["series"]["count"] == 2
        await asyncio.sleep(FINISH_SECONDS + 2)
        assert [r.method for r in transport.requests] == ["POST", "PATCH", "PATCH"]
        series = transport.requests[2].body["series"]
        assert series == {"count": 100, "lastObservedTime": "2023-11-14T22:14:59.000000Z"}
        tell(recorder)
        await asyncio.sleep(1)
    assert transport.requests[-1].method == "POST", "after a pause it is told anew"
    assert counted.outcomes == {"written": 4, "counted": 99}


async def test_a_series_without_an_end_is_brought_up_to_date_now_and_then() -> None:
    transport = FakeTransport(*[OK] * 9)
    async with recording(transport) as recorder:
        for _ in range(int(REFRESH_SECONDS / 60) + 3):
            tell(recorder)
            await asyncio.sleep(60)
    assert [r.method for r in transport.requests] == ["POST", "PATCH", "PATCH"]
    assert transport.requests[2].at >= transport.requests[1].at + REFRESH_SECONDS


@pytest.mark.parametrize(
    "other", [{"note": "else"}, {"kind": "Warning"}, {"reason": "Stuck"}, {"about": POLICY}, {"related": POLICY}]
)
async def test_what_differs_is_an_event_of_its_own(other) -> None:
    transport = FakeTransport(*[OK] * 9)
    async with recording(transport) as recorder:
        tell(recorder)
        tell(recorder, **other)
        await asyncio.sleep(1)
    assert [r.method for r in transport.requests] == ["POST", "POST"]


async def test_other_words_end_the_series_and_its_count_is_kept() -> None:
    transport = FakeTransport(*[OK] * 9)
    async with recording(transport) as recorder:
        for _ in range(5):
            tell(recorder)
            await asyncio.sleep(1)
        tell(recorder, "else")
        await asyncio.sleep(1)
    assert [(r.method, (r.body.get("series") or {}).get("count")) for r in transport.requests] == [
        ("POST", None),
        ("PATCH", 2),
        ("PATCH", 5),
        ("POST", None),
    ]


async def test_a_series_whose_event_has_expired_is_written_as_a_whole() -> None:
    transport = FakeTransport(OK, status_answer(404, "NotFound"), OK)
    async with recording(transport) as recorder:
        tell(recorder)
        await asyncio.sleep(1)
        tell(recorder)
        await asyncio.sleep(1)
    assert [r.method for r in transport.requests] == ["POST", "PATCH", "POST"]
    assert transport.requests[2].body["series"]["count"] == 2
    assert transport.requests[2].body["note"] == "why"


async def test_one_object_cannot_flood_and_others_are_not_held_up_by_it() -> None:
    transport, counted = FakeTransport(*[OK] * 99), Counted()
    async with recording(transport, object_burst=10, object_qps=0.1, metrics=counted) as recorder:
        for n in range(1000):
            tell(recorder, str(n))
        tell(recorder, about=POLICY)
        await asyncio.sleep(9)
        assert len(transport.requests) == 11
        await asyncio.sleep(2)
        tell(recorder, "later")
        await asyncio.sleep(1)
    assert len(transport.requests) == 12
    assert counted.outcomes["rate_limited"] == 990


async def test_a_fleet_cannot_flood_and_warnings_go_first() -> None:
    transport, counted = FakeTransport(*[OK] * 9999), Counted()
    async with recording(transport, qps=10, burst=1, queue=100, metrics=counted) as recorder:
        for n in range(10_000):
            tell(recorder, about=ObjectReference("Node", f"n{n}"))
        tell(recorder, kind="Warning", reason="Failed")
        await asyncio.sleep(3)
        assert len(transport.requests) <= 32, "no more than ten a second"
        assert [r.body["reason"] for r in transport.requests].index("Failed") <= 1
        await asyncio.sleep(60)
    assert len(transport.requests) == 101
    assert counted.outcomes == {"written": 101, "queue_full": 9900}


async def test_telling_does_not_wait_for_a_server_that_hangs() -> None:
    transport = FakeTransport(Answer(200, (HANG,)))
    async with recording(transport, queue=5) as recorder:
        for n in range(100):
            tell(recorder, str(n))
        await asyncio.sleep(1)
        assert asyncio.get_running_loop().time() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    "trouble",
    [NetworkError("reset"), status_answer(503, "x"), status_answer(429, "TooManyRequests"), status_answer(401, "x")],
)
async def test_passing_trouble_is_sat_out(trouble, caplog) -> None:
    transport, counted = FakeTransport(trouble, trouble, OK), Counted()
    async with recording(transport, metrics=counted) as recorder:
        tell(recorder)
        await asyncio.sleep(60)
    assert counted.outcomes == {"written": 1}
    assert len({r.body["metadata"]["name"] for r in transport.requests}) == 1, "the same name, so that none is written twice"
    assert [r.message for r in caplog.records] == ["event not recorded"], "said once"


async def test_an_event_that_was_written_although_the_answer_was_lost_is_no_error() -> None:
    transport, counted = FakeTransport(NetworkError("reset"), status_answer(409, "AlreadyExists")), Counted()
    async with recording(transport, metrics=counted) as recorder:
        tell(recorder)
        await asyncio.sleep(60)
    assert counted.outcomes == {"written": 1}


async def test_lasting_trouble_ends_in_giving_up_and_the_next_is_tried() -> None:
    transport, counted = FakeTransport(*[NetworkError("reset")] * TRIES, OK), Counted()
    async with recording(transport, metrics=counted) as recorder:
        tell(recorder)
        tell(recorder, reason="Next")
        await asyncio.sleep(600)
    assert counted.outcomes == {"refused": 1, "written": 1}


@pytest.mark.parametrize("code", [403, 404, 422])
async def test_a_refusal_is_not_repeated_and_the_same_event_is_told_anew_when_it_happens_again(code) -> None:
    transport, counted = FakeTransport(status_answer(code, "No"), OK), Counted()
    async with recording(transport, metrics=counted) as recorder:
        tell(recorder)
        await asyncio.sleep(60)
        assert counted.outcomes == {"refused": 1}
        tell(recorder)
        await asyncio.sleep(60)
    assert [r.method for r in transport.requests] == ["POST", "POST"]


async def test_the_end_drops_what_waits_and_says_how_much(caplog) -> None:
    caplog.set_level("INFO")
    counted = Counted()
    async with recording(FakeTransport(Answer(200, (HANG,))), metrics=counted) as recorder:
        for n in range(5):
            tell(recorder, str(n))
        await asyncio.sleep(1)
    assert counted.outcomes == {"stopped": 4}
    assert caplog.records[-1].events == 4


async def test_at_rest_nothing_is_sent_and_nothing_kept() -> None:
    transport = FakeTransport(OK)
    async with recording(transport) as recorder:
        tell(recorder)
        await asyncio.sleep(100_000)
        assert not recorder._cache
    assert len(transport.requests) == 1

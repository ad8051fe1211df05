"""Electors against a small Lease server with faults, in virtual time. Never two leaders, fail-over in bounded time."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from controller.kube.client import Client
from controller.kube.clock import ServerClock
from controller.kube.errors import NetworkError
from controller.kube.leaderelection import LeaderElectionConfig, LeaderElector, LeadershipLost
from controller.kube.transport import Response, Stream

pytestmark = pytest.mark.looptime


class LeaseServer:
    """One Lease with optimistic locking. Faults are per client, by its name."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.faults: dict[str, str] = {}
        self.writes: list[tuple[str, float]] = []

    def client(self, name: str) -> Client:
        loop = asyncio.get_running_loop()
        return Client(_LeaseTransport(self, name), clock=ServerClock(loop.time, lambda: 1_700_000_000.0))

    @property
    def holder(self) -> str | None:
        return None if self.lease is None else self.lease["spec"].get("holderIdentity")

    def handle(self, method: str, body: Any) -> tuple[int, Any]:
        if method == "GET":
            return (200, self.lease) if self.lease else (404, {})
        if method == "POST":
            if self.lease:
                return 409, {}
        elif self.lease is None:
            return 404, {}
        elif body["metadata"].get("resourceVersion") != self.lease["metadata"]["resourceVersion"]:
            return 409, {}
        return 200, self.store(body)

    def store(self, body: Any) -> Any:
        self.version += 1
        self.lease = {**body, "metadata": {**body["metadata"], "uid": "u", "resourceVersion": str(self.version)}}
        return self.lease


class _LeaseTransport:
    def __init__(self, server: LeaseServer, name: str) -> None:
        self._server = server
        self._name = name

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float,  # noqa: ASYNC109
    ) -> Response:
        fault = self._server.faults.get(self._name, "")
        if fault == "hang":
            await asyncio.sleep(timeout)
        if fault in {"reset", "hang"}:
            raise NetworkError("reset")
        if fault == "text":
            return Response(500, {}, b"oops")
        await asyncio.sleep(0.01)
        status, answer = self._server.handle(method, None if body is None else json.loads(body))
        if method != "GET" and status == 200:
            self._server.writes.append((self._name, asyncio.get_running_loop().time()))
            if fault == "lost-answer":
                raise NetworkError("cut off after it was applied")
            if fault == "late-answer":
                await asyncio.sleep(1)
        return Response(status, {}, json.dumps(answer).encode())

    def stream(self, *args: Any, **kwargs: Any) -> AbstractAsyncContextManager[Stream]:
        raise AssertionError("an elector does not watch")


class Candidate:
    """An elector whose work notes from when to when it ran."""

    def __init__(self, server: LeaseServer, name: str, *, cleanup: float = 0.0) -> None:
        self.name = name
        self.spans: list[list[float]] = []
        self.cleanup = cleanup
        config = LeaderElectionConfig("ns", "lease", f"{name}_uid")
        self.seen: list[str] = []
        self.elector = LeaderElector(server.client(name), config, rng=random.Random(name), on_new_leader=self.seen.append)
        self.task = asyncio.create_task(self.elector.run(self.work))

    async def work(self) -> None:
        loop = asyncio.get_running_loop()
        self.spans.append([loop.time()])
        try:
            await loop.create_future()
        finally:
            await asyncio.sleep(self.cleanup)
            self.spans[-1].append(loop.time())


@asynccontextmanager
async def candidates(server: LeaseServer, *names: str, cleanup: float = 0.0) -> AsyncIterator[list[Candidate]]:
    found = []
    for name in names:
        found.append(Candidate(server, name, cleanup=cleanup))
        await asyncio.sleep(0.5)
    try:
        yield found
    finally:
        for candidate in found:
            candidate.task.cancel()
        await asyncio.gather(*(candidate.task for candidate in found), return_exceptions=True)


async def test_one_leads_and_renews_and_the_other_waits() -> None:
    server = LeaseServer()
    async with candidates(server, "a", "b") as (a, b):
        await asyncio.sleep(600)
        assert (len(a.spans), len(b.spans)) == (1, 0)
        assert (a.elector.is_leader, b.elector.is_leader) == (True, False)
        assert b.elector.leader == "a_uid"
        assert b.seen == ["a_uid"]
        times = [at for _, at in server.writes]
        assert max(later - earlier for earlier, later in pairwise(times)) < 2.1
        assert server.lease is not None
        spec = server.lease["spec"]
        assert (spec["leaseDurationSeconds"], spec["leaseTransitions"]) == (15, 0)
        assert spec["renewTime"].startswith("2023-11-14T22:2")
        assert spec["acquireTime"] < spec["renewTime"]


@pytest.mark.parametrize("fault", ["reset", "hang", "text"])
async def test_a_leader_that_cannot_renew_stops_before_the_other_starts(fault: str) -> None:
    server = LeaseServer()
    async with candidates(server, "a", "b", cleanup=1) as (a, b):
        await asyncio.sleep(60)
        server.faults["a"] = fault
        broken_at = asyncio.get_running_loop().time()
        with pytest.raises(LeadershipLost, match="lease lease was not renewed in time"):
            await a.task
        assert not a.elector.is_leader
        ((_, ended),) = a.spans
        assert ended - 1 <= broken_at + 10
        await asyncio.sleep(20)
        ((started,),) = b.spans
        assert ended < started <= broken_at + 20
        assert server.lease is not None
        assert server.lease["spec"]["leaseTransitions"] == 1


async def test_one_request_that_hangs_leaves_time_for_another() -> None:
    server = LeaseServer()
    async with candidates(server, "a") as (a,):
        await asyncio.sleep(60)
        server.faults["a"] = "hang"
        await asyncio.sleep(3)
        server.faults.clear()
        await asyncio.sleep(60)
        assert a.elector.is_leader
        assert len(a.spans) == 1


async def test_an_answer_that_is_lost_changes_nothing() -> None:
    server = LeaseServer()
    server.faults["a"] = "lost-answer"
    async with candidates(server, "a") as (a,):
        await asyncio.sleep(2)
        assert server.holder == "a_uid"
        assert not a.spans
        server.faults.clear()
        await asyncio.sleep(60)
        server.faults["a"] = "lost-answer"
        await asyncio.sleep(5)
        server.faults.clear()
        await asyncio.sleep(60)
        assert len(a.spans) == 1
        assert a.elector.is_leader


async def test_a_graceful_stop_renews_until_the_work_has_ended_and_then_hands_over() -> None:
    server = LeaseServer()
    async with candidates(server, "a", "b", cleanup=40) as (a, b):
        await asyncio.sleep(60)
        stopped = asyncio.get_running_loop().time()
        a.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await a.task
        ((_, ended),) = a.spans
        assert ended == pytest.approx(stopped + 40)
        assert max(at for name, at in server.writes if name == "a") == pytest.approx(ended, abs=0.1)
        assert not b.spans
        assert server.holder is None
        await asyncio.sleep(6)
        assert len(b.spans) == 1
        assert b.seen == ["a_uid", "", "b_uid"]


async def test_work_that_ends_releases_the_lease_and_its_error_is_told() -> None:
    server = LeaseServer()
    elector = LeaderElector(server.client("a"), LeaderElectionConfig("ns", "lease", "a_uid"))

    async def fail() -> None:
        assert elector.is_leader
        assert elector.settling
        await asyncio.sleep(6)
        assert not elector.settling
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await elector.run(fail)
    assert server.holder is None
    assert not elector.is_leader


async def test_a_lease_taken_by_force_is_lost_at_once() -> None:
    server = LeaseServer()
    async with candidates(server, "a") as (a,):
        await asyncio.sleep(10)
        assert server.lease is not None
        server.store({**server.lease, "spec": {**server.lease["spec"], "holderIdentity": "thief"}})
        with pytest.raises(LeadershipLost, match="taken by thief"):
            async with asyncio.timeout(3):
                await a.task
        assert server.holder == "thief"


@pytest.mark.parametrize("change", ["label", "delete"])
async def test_other_peoples_edits_and_deletions_do_not_end_leadership(change: str) -> None:
    server = LeaseServer()
    async with candidates(server, "a") as (a,):
        await asyncio.sleep(10)
        assert server.lease is not None
        if change == "label":
            server.store({**server.lease, "metadata": {**server.lease["metadata"], "labels": {"x": "y"}}})
        else:
            server.lease = None
        await asyncio.sleep(30)
        assert a.elector.is_leader
        assert server.holder == "a_uid"
        kept = (server.lease or {})["metadata"].get("labels")
        assert kept == ({"x": "y"} if change == "label" else None)


async def test_expiry_counts_from_when_the_change_was_seen_and_not_from_anyones_clock(looptime) -> None:
    server = LeaseServer()
    spec = {"holderIdentity": "dead", "leaseDurationSeconds": 15, "renewTime": "1970-01-01T00:00:00.000000Z"}
    server.store({"metadata": {"name": "lease", "namespace": "ns"}, "spec": spec})
    async with candidates(server, "a") as (a,):
        await asyncio.sleep(14)
        assert not a.spans
        await asyncio.sleep(6)
        ((started,),) = a.spans
        assert 15 <= started <= 20


async def test_a_process_that_was_frozen_knows_at_once_that_it_does_not_lead() -> None:
    server = LeaseServer()
    async with candidates(server, "a") as (a,):
        await asyncio.sleep(10)
        writes = len(server.writes)
        # SIGSTOP for 20 s: time passes, nothing runs. What runs first then must not believe that it leads.
        a.elector._renewed_at -= 20
        assert not a.elector.is_leader
        with pytest.raises(LeadershipLost, match="frozen"):
            await a.task
        assert len(server.writes) == writes


async def test_the_successor_of_a_container_in_the_same_pod_need_not_wait(looptime) -> None:
    server = LeaseServer()
    spec = {"holderIdentity": "a_uid", "leaseDurationSeconds": 15, "renewTime": "x"}
    server.store({"metadata": {"name": "lease", "namespace": "ns"}, "spec": spec})
    async with candidates(server, "a") as (a,):
        assert len(a.spans) == 1


@pytest.mark.parametrize("number", range(10))
async def test_a_candidate_takes_the_lease_as_soon_as_it_may(looptime, number: int) -> None:
    server = LeaseServer()
    async with candidates(server, "a", f"b{number}") as (a, b):
        await asyncio.sleep(30 + 0.2 * number)
        server.faults["a"] = "reset"  # as if it were killed: nothing of it arrives any more
        last = max(at for name, at in server.writes if name == "a")
        with pytest.raises(LeadershipLost):
            await a.task
        await asyncio.sleep(10)
        ((started,),) = b.spans
        assert last + 15 <= started <= last + 15 + 2 + 0.1


@pytest.mark.parametrize("number", range(10))
async def test_a_lease_that_was_given_back_is_taken_within_a_retry_period(looptime, number: int) -> None:
    server = LeaseServer()
    async with candidates(server, "a", f"b{number}") as (a, b):
        await asyncio.sleep(30 + 0.2 * number)
        a.task.cancel()
        stopped = asyncio.get_running_loop().time()
        await asyncio.sleep(2.1)
        ((started,),) = b.spans
        assert started <= stopped + 2.1


@pytest.mark.parametrize("change", ["deleted", "holder taken out", "duration shortened"])
async def test_a_lease_that_its_holder_did_not_give_back_is_not_free(change: str) -> None:
    """The leader is cut off, and a person touches the Lease: whoever led may still act, so its time is waited for."""
    server = LeaseServer()
    async with candidates(server, "a", "b", cleanup=0) as (a, b):
        await asyncio.sleep(30)
        server.faults["a"] = "reset"
        assert server.lease is not None
        spec = server.lease["spec"]
        match change:
            case "deleted":
                server.lease = None
            case "holder taken out":
                server.store({**server.lease, "spec": {k: v for k, v in spec.items() if k != "holderIdentity"}})
            case _:
                server.store({**server.lease, "spec": {**spec, "leaseDurationSeconds": 1}})
        with pytest.raises(LeadershipLost):
            await a.task
        await asyncio.sleep(15)
        ((_, ended),), ((started,),) = a.spans, b.spans
        assert ended < started


async def test_who_comes_back_to_a_lease_that_is_gone_waits_as_well() -> None:
    """A candidate that could not look for a while does not know how long ago the last renewal was."""
    server = LeaseServer()
    async with candidates(server, "a", "b", cleanup=0) as (a, b):
        await asyncio.sleep(30)
        server.faults["b"] = "reset"
        await asyncio.sleep(30)
        server.faults = {"a": "reset"}
        server.lease = None
        with pytest.raises(LeadershipLost):
            await a.task
        await asyncio.sleep(15)
        ((_, ended),), ((started,),) = a.spans, b.spans
        assert ended < started


async def test_a_lease_that_never_had_a_holder_is_free_at_once() -> None:
    server = LeaseServer()
    server.store({"metadata": {"name": "lease", "namespace": "ns"}, "spec": {"leaseDurationSeconds": 15}})
    async with candidates(server, "a") as (a,):
        assert len(a.spans) == 1


async def test_a_candidate_that_is_stopped_while_it_takes_the_lease_gives_it_back() -> None:
    server = LeaseServer()
    server.faults["a"] = "late-answer"
    async with candidates(server, "a") as (a,):
        assert server.holder == "a_uid"
        assert not a.spans
        a.task.cancel()
        server.faults.clear()
        with pytest.raises(asyncio.CancelledError):
            await a.task
        assert server.holder is None


async def test_a_renewal_that_was_cut_off_does_not_keep_the_lease_from_being_given_back() -> None:
    server = LeaseServer()
    async with candidates(server, "a") as (a,):
        await asyncio.sleep(5)
        server.faults["a"] = "late-answer"
        writes = len(server.writes)
        while len(server.writes) == writes:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.1)
        a.task.cancel()
        server.faults.clear()
        with pytest.raises(asyncio.CancelledError):
            await a.task
        assert server.holder is None


async def test_a_clock_that_went_on_while_the_machine_slept_ends_leadership() -> None:
    server, slept = LeaseServer(), [0.0]
    loop = asyncio.get_running_loop()
    config = LeaderElectionConfig("ns", "lease", "a_uid")
    elector = LeaderElector(server.client("a"), config, clock=lambda: loop.time() + slept[0])
    task = asyncio.create_task(elector.run(loop.create_future))
    await asyncio.sleep(5)
    awake, slept[0] = elector.is_leader, 3600.0
    assert (awake, elector.is_leader) == (True, False)
    with pytest.raises(LeadershipLost, match="frozen"):
        await task


async def test_no_write_is_under_way_when_the_lease_is_given_back() -> None:
    """The work ends at once and leaves a write behind, which is answered later: only then the Lease is given back."""
    server = LeaseServer()
    elector = LeaderElector(server.client("a"), LeaderElectionConfig("ns", "lease", "a_uid"))
    answered: list[float] = []

    async def write() -> Response:
        await asyncio.sleep(7)
        answered.append(asyncio.get_running_loop().time())
        return Response(200, {}, b"")

    async def work() -> None:
        elector.gate.started(asyncio.create_task(write()))
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(elector.run(work))
    await asyncio.sleep(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.holder is None
    assert answered
    assert server.writes[-1][1] >= answered[0]


async def test_the_deadline_also_ends_what_a_stop_left_behind() -> None:
    """Asked to stop, and cut off from the Lease while a write is under way: it is aborted before anyone may follow."""
    server = LeaseServer()
    elector = LeaderElector(server.client("a"), LeaderElectionConfig("ns", "lease", "a_uid"))
    hanging: list[asyncio.Task[Response]] = []

    async def work() -> None:
        hanging.append(asyncio.create_task(asyncio.sleep(1000, Response(200, {}, b""))))
        elector.gate.started(hanging[0])
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(elector.run(work))
    await asyncio.sleep(5)
    server.faults["a"] = "reset"
    last = server.writes[-1][1]
    task.cancel()
    await asyncio.wait(hanging)
    assert hanging[0].cancelled()
    assert asyncio.get_running_loop().time() <= last + 10.1
    await asyncio.wait({task})
    assert server.holder == "a_uid", "not given back: the write may still be carried out"


async def test_never_two_leaders_whatever_fails() -> None:
    """A candidate's clock starts anew with each process here, so renewals repeat time stamps, as after a step back."""
    for seed in range(20):
        rng = random.Random(seed)
        server = LeaseServer()
        spans: list[list[float]] = []
        async with candidates(server, "a", "b", "c", cleanup=0.5) as found:
            for _ in range(40):
                for name in "abc":
                    server.faults[name] = rng.choice(["", "", "", "reset", "hang", "text", "lost-answer"])
                await asyncio.sleep(rng.uniform(1, 12))
                assert sum(candidate.elector.is_leader for candidate in found) <= 1
                for index, candidate in enumerate(found):
                    if candidate.task.done():
                        assert isinstance(candidate.task.exception(), LeadershipLost)
                        spans += candidate.spans
                        found[index] = Candidate(server, candidate.name, cleanup=0.5)
            server.faults.clear()
            await asyncio.sleep(60)
            assert sum(candidate.elector.is_leader for candidate in found) == 1
            spans += [span for candidate in found for span in candidate.spans if len(span) == 2]
        spans.sort()
        assert len(spans) > 1
        assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"identity": ""}, "identity must not be empty"),
        ({"lease_duration": 10}, "lease duration 10 must be more than renew deadline 10.0"),
        ({"renew_deadline": 4}, "renew deadline 4 must be more than 2 x retry period 2.0"),
        ({"retry_period": 0}, "must be more than"),
    ],
)
def test_times_that_do_not_fit_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LeaderElectionConfig(**{"namespace": "ns", "name": "lease", "identity": "a", **values})

"""The gate before every write: open while we lead, patient while the fence settles, empty before the Lease is given back."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from controller.kube.client import Client
from controller.kube.errors import Forbidden
from controller.kube.resources import NODES
from controller.kube.transport import Response, Stream
from controller.kube.writegate import DRAIN_SECONDS, NotLeading, WriteGate

pytestmark = pytest.mark.looptime

NODE = json.dumps({"metadata": {"name": "n"}}).encode()
FENCE = {"causes": [{"message": "driver-upgrade fence: only the pod that holds the Lease may write"}]}


def refusal(details: Any) -> Response:
    status = {"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no", "details": details}
    return Response(403, {}, json.dumps(status).encode())


class Server:
    """Answers after a while; refuses as long as it is told to."""

    def __init__(self, seconds: float = 0.01) -> None:
        self.seconds = seconds
        self.until = 0.0
        self.details: Any = FENCE
        self.arrived: list[tuple[str, float]] = []
        self.answered = 0

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
        now = asyncio.get_running_loop().time()
        self.arrived.append((method, now))
        await asyncio.sleep(self.seconds)
        self.answered += 1
        return refusal(self.details) if now < self.until else Response(200, {}, NODE)

    def stream(self, *args: Any, **kwargs: Any) -> AbstractAsyncContextManager[Stream]:
        raise AssertionError("nobody watches here")


class Leadership:
    def __init__(self) -> None:
        self.is_leader = True
        self.settling = False


def patch(client: Client) -> "asyncio.Task[Any]":
    return asyncio.create_task(client.patch(NODES, "n", {"metadata": {"labels": {"a": "b"}}}))


def behind(gate: WriteGate, server: Server) -> Client:
    return Client(server).through(gate.before)


async def test_reads_pass_always_and_writes_only_while_we_lead():
    server, leadership = Server(), Leadership()
    gate = WriteGate(leadership)
    client = behind(gate, server)
    await patch(client)
    leadership.is_leader = False
    with pytest.raises(NotLeading, match="another replica leads") as caught:
        await patch(client)
    assert not caught.value.maybe_applied
    await client.get(NODES, "n")
    leadership.is_leader = True
    gate.close()
    with pytest.raises(NotLeading, match="the controller is ending"):
        await patch(client)
    await client.get(NODES, "n")
    assert [method for method, _ in server.arrived] == ["PATCH", "GET", "GET"]


async def test_a_write_under_way_is_answered_though_nobody_waits_for_it_any_more():
    server = Server(seconds=5)
    gate = WriteGate()
    task = patch(behind(gate, server))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gate.under_way == 1
    assert await gate.drained()
    assert server.answered == 1
    assert asyncio.get_running_loop().time() == pytest.approx(5, abs=0.1)


async def test_what_stays_unanswered_is_aborted_in_the_end_and_said():
    server = Server(seconds=1000)
    gate = WriteGate()
    task = patch(behind(gate, server))
    await asyncio.sleep(1)
    gate.close()
    await asyncio.sleep(2)
    assert not await gate.drained()
    assert asyncio.get_running_loop().time() == pytest.approx(1 + DRAIN_SECONDS, abs=0.1)
    with pytest.raises(NotLeading, match="aborted"):
        await task
    assert server.answered == 0


async def test_losing_leadership_cuts_off_what_is_under_way():
    server = Server(seconds=5)
    gate = WriteGate(Leadership())
    task = patch(behind(gate, server))
    await asyncio.sleep(1)
    gate.abort()
    with pytest.raises(NotLeading, match="aborted") as caught:
        await task
    assert caught.value.maybe_applied
    assert gate.under_way == 0


async def test_a_task_that_is_cancelled_while_its_write_is_aborted_ends_as_cancelled():
    gate = WriteGate(Leadership())
    task = patch(behind(gate, Server(seconds=5)))
    await asyncio.sleep(1)
    gate.abort()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_while_the_fence_settles_its_refusal_means_not_yet():
    server, leadership = Server(), Leadership()
    leadership.settling = True
    server.until = 2.5
    await patch(behind(WriteGate(leadership), server))
    times = [at for _, at in server.arrived]
    assert times[-1] >= 2.5
    assert times[-1] < 4
    assert len(times) <= 8


@pytest.mark.parametrize("why", ["settled", "terminating", "lost"])
async def test_other_refusals_are_told_at_once(why):
    server, leadership = Server(), Leadership()
    leadership.settling = why != "settled"
    server.until = 1000
    if why == "terminating":
        server.details = {"causes": [{"reason": "NamespaceTerminating", "message": "x"}]}
    task = patch(behind(WriteGate(leadership), server))
    await asyncio.sleep(0.05)
    if why == "lost":
        leadership.is_leader = False
    with pytest.raises(NotLeading if why == "lost" else Forbidden):
        await task
    assert len(server.arrived) == 1


async def test_a_fence_that_never_learns_is_told_when_it_must_have_settled():
    server, leadership = Server(), Leadership()
    leadership.settling = True
    server.until = 1000
    asyncio.get_running_loop().call_later(5, setattr, leadership, "settling", False)
    with pytest.raises(Forbidden):
        await patch(behind(WriteGate(leadership), server))
    assert 5 <= asyncio.get_running_loop().time() <= 6.5

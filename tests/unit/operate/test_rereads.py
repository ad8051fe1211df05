"""After a conflict the pod is read again: by a list, which the role has for its informers, never by `get`."""

import asyncio
from typing import Any

import pytest

from controller.upgrade.guards import NEVER
from controller.upgrade.reasons import Reason
from tests.unit.kube.fake import json_answer, status_answer
from tests.unit.operate.test_evictor import Bench

pytestmark = pytest.mark.looptime
CONFLICT = status_answer(409, "Conflict")


def pods(*uids: str) -> Any:
    items = [{"metadata": {"name": "a", "namespace": "ops", "uid": uid}} for uid in uids]
    return json_answer({"metadata": {"resourceVersion": "7"}, "items": items})


@pytest.mark.parametrize(
    ("answer", "gone"),
    [(pods(), True), (pods("another"), True), (pods("a"), False), (status_answer(503, "ServiceUnavailable"), False)],
    ids=["gone", "another of that name", "the same", "not readable"],
)
async def test_a_conflict_over_a_pod_that_is_gone_is_no_refusal(answer: Any, gone: bool):
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tasks, CONFLICT, answer)
        await bench.evict("a")
        eviction, read = bench.transport.requests
        assert eviction.method == "POST"
        assert (read.method, read.path, read.params["fieldSelector"]) == (
            "GET",
            "/api/v1/namespaces/ops/pods",
            "metadata.name=a",
        )
        attempt = bench.evictor.attempts["a"]
        assert (attempt.reason, attempt.again == NEVER) == ((None, True) if gone else (Reason.EVICTING, False))

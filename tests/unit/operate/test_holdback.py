"""Grants that were refused: how long a node stands aside, what it tells meanwhile, and what nothing is kept of."""

import asyncio
from itertools import pairwise

import pytest

from controller.kube.errors import Conflict, Forbidden, NetworkError, TooManyRequests
from controller.operate.holdback import CAP_SECONDS, HoldBack
from controller.upgrade.reasons import Reason

pytestmark = pytest.mark.looptime
KEY = ("gpu", "n1")
DENIED = Forbidden(403, message="denied the request")


class Line:
    """Who came back in line, and when."""

    def __init__(self) -> None:
        self.back: list[tuple[str, float]] = []
        self.rested = asyncio.Event()
        self._came = asyncio.Event()
        self.held = HoldBack(self._again, self.rested.set)

    def _again(self, node: str) -> None:
        self.back.append((node, asyncio.get_running_loop().time()))
        self._came.set()

    async def refused(self, error: Exception) -> None:
        """Refuses a grant, and waits until it may be tried again."""
        self._came.clear()
        self.held.refused(KEY, error)
        assert self.held.nodes() == {"n1"}
        await self._came.wait()


async def test_each_refusal_doubles_the_wait_up_to_a_minute():
    line = Line()
    for _ in range(14):
        await line.refused(DENIED)
    waits = [round(b - a, 3) for (_, a), (_, b) in pairwise(line.back)]
    assert waits[:3] == [0.2, 0.4, 0.8]
    assert waits[-1] == CAP_SECONDS
    assert not line.held.nodes()


async def test_the_reason_stays_while_the_grant_is_tried_again_and_goes_when_it_is_written():
    line = Line()
    await line.refused(DENIED)
    told = line.held.why(KEY)
    assert told is not None
    assert told[0] is Reason.FORBIDDEN
    assert "denied the request" in told[1]
    line.held.forget(KEY)
    assert line.held.why(KEY) is None
    await line.refused(Conflict(409))
    assert line.held.why(KEY) is None, "who writes the node meanwhile is nobody's business"


async def test_what_may_pass_before_anybody_looks_is_told_the_second_time():
    line = Line()
    await line.refused(NetworkError("reset"))
    assert line.held.why(KEY) is None
    await line.refused(NetworkError("reset"))
    assert (line.held.why(KEY) or ("",))[0] is Reason.API_UNAVAILABLE


async def test_a_throttling_server_gets_the_rest_it_asks_for():
    line = Line()
    line.held.refused(KEY, TooManyRequests(429, retry_after=7))
    assert line.held.resting
    await line.rested.wait()
    assert asyncio.get_running_loop().time() >= 7
    assert not line.held.resting


async def test_a_node_that_is_forgotten_never_comes_back():
    line = Line()
    line.held.refused(KEY, DENIED)
    line.held.forget(KEY)
    line.held.refused(("gpu", "n2"), DENIED)
    line.held.close()
    await asyncio.sleep(2 * CAP_SECONDS)
    assert not line.back

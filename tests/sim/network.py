"""Between client and server: latency, lost requests, lost answers, wrong answers, dead clients.

A request travels on its own once it is sent: whether its sender waits, gives up or is killed, it arrives. What may go
wrong with it is decided by a :class:`Judge` when it is sent.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from controller.kube.errors import NetworkError
from controller.kube.transport import Response
from tests.sim.apiserver import Answer, ApiServer, Call, RefusedError, known, status_body
from tests.sim.behind import Behind
from tests.sim.routes import route
from tests.sim.watches import Watch, Watches

_NOTHING: Mapping[str, str] = {}
LINGER = 1.0
"""Seconds after its process died in which a request may still arrive. What comes later only an admission fence keeps out."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to a request: whether it arrives, what is answered instead of the truth, and how late it is."""

    lost: bool = False
    """Never arrives; the client sees a reset."""
    unanswered: bool = False
    """Carried out, but the client sees a reset."""
    answer: Answer | None = None
    """Answered in the server's place; with ``applied`` after the server has carried it out."""
    applied: bool = False
    delay: float = 0.0
    garble: str = ""
    """``truncated``, ``html`` or ``empty``: what became of the body on the way; with the status of the truth."""
    crash: str = ""
    """``before``, ``committed`` or ``after``: the client's process dies at this moment of this request."""


FINE = Verdict()
Judge = Callable[[Call], Verdict]


class Network:
    """Seeded latency, and the lag of watches by resource."""

    def __init__(self, rng: random.Random, *, low: float = 0.001, high: float = 0.02) -> None:
        self._rng = rng
        self._low = low
        self._high = high
        # Events have dice of their own: what is told of a story does not change it.
        self._telling = random.Random(rng.getstate()[1][0])
        self.lags: dict[str, float] = {}
        """Seconds by which the watches of a resource are behind."""
        self.slow = 0.0
        """Seconds that every request takes longer at most."""
        self.views = Behind()

    def latency(self, *, telling: bool = False) -> float:
        return self._low + (self._high - self._low + self.slow) * (self._telling if telling else self._rng).random()

    def lag_of(self, kind: str) -> Callable[[], float]:
        """The lag of a resource's events at the moment that they are sent."""
        lags, latency = self.lags, self.latency
        return lambda: latency() + lags.get(kind, 0.0)


class _Stream:
    """A refused watch, or an accepted one."""

    def __init__(self, watch: Watch | None, refused: Answer | None) -> None:
        self._watch = watch
        self._refused = refused
        self.status = refused.code if refused else 200
        self.headers: Mapping[str, str] = refused.headers if refused else {}

    def chunks(self) -> AsyncIterator[bytes]:
        return self._watch.chunks() if self._watch is not None else self._body()

    async def _body(self) -> AsyncIterator[bytes]:
        yield await self.body()

    async def body(self) -> bytes:
        return self._refused.body if self._refused else b""


class SimTransport:
    """A :class:`controller.kube.transport.Transport` of one process.

    Args:
        server: Where requests go.
        watches: Its watches.
        network: Latency.
        actor: Who asks, for the audit log.
        judge: Decides what happens to each request.
        crashed: Called when a verdict kills the process.
    """

    def __init__(
        self,
        server: ApiServer,
        watches: Watches,
        network: Network,
        actor: str,
        judge: Judge,
        crashed: Callable[[], None],
    ) -> None:
        self._server = server
        self._watches = watches
        self._network = network
        self.actor = actor
        self._judge = judge
        self._crashed = crashed
        self._loop = server.loop
        self._streams: dict[Watch, None] = {}
        self.dead = False
        self._died = 0.0

    def kill(self) -> None:
        """The process is gone: no more requests, nobody reads answers. What was sent before still arrives."""
        self.dead = True
        self._died = self._loop.time()
        for watch in tuple(self._streams):
            watch.cut()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] = _NOTHING,
        headers: Mapping[str, str] = _NOTHING,
        body: bytes | None = None,
        timeout: float,  # noqa: ASYNC109
    ) -> Response:
        call = Call(self.actor, method, route(path), params, body, self._loop.time())
        answer = await self._send(call, timeout)
        return Response(answer.code, answer.headers, answer.body)

    async def _send(self, call: Call, timeout: float) -> Answer:  # noqa: ASYNC109
        if self.dead:
            raise NetworkError("the process is dead")
        if call.method != "GET":
            self._network.views.sent(call.actor, call.sent)
        verdict = self._judge(call)
        if verdict.crash == "before":
            self._die()
        future: asyncio.Future[Answer] = self._loop.create_future()
        if not verdict.lost and verdict.crash != "before":
            self._loop.call_later(self._latency(call) + verdict.delay, self._arrive, call, verdict, future)
        elif verdict.lost:
            self._loop.call_later(self._latency(call), _fail, future, "connection reset by peer")
        timer = self._loop.call_later(timeout, _fail, future, "timed out")
        try:
            return await future
        finally:
            timer.cancel()

    def _arrive(self, call: Call, verdict: Verdict, future: "asyncio.Future[Answer]") -> None:
        if self.dead and self._loop.time() > self._died + LINGER:
            return
        answer = verdict.answer
        if answer is None or verdict.applied:
            truth = self._server.handle(call)
            answer = answer or truth
        if verdict.crash == "committed":
            self._die()
        elif verdict.garble:
            self._loop.call_later(self._network.latency(), self._deliver, garbled(answer, verdict.garble), verdict, future)
        elif verdict.unanswered:
            self._loop.call_later(self._latency(call), _fail, future, "connection reset by peer")
        else:
            if call.verb == "LIST" and answer.code == 200 and "spec.nodeName" in call.params.get("fieldSelector", ""):
                self._network.views.listed(call.actor, _selection(call), known(call).kind, self._loop.time())
            self._loop.call_later(self._latency(call), self._deliver, answer, verdict, future)

    def _latency(self, call: Call) -> float:
        return self._network.latency(telling=call.route is not None and call.route.kind == "events")

    def _deliver(self, answer: Answer, verdict: Verdict, future: "asyncio.Future[Answer]") -> None:
        if not future.done() and not self.dead:
            future.set_result(answer)
        if verdict.crash == "after":
            self._die()

    def _die(self) -> None:
        if not self.dead:
            self.kill()
            self._crashed()

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] = _NOTHING,
        headers: Mapping[str, str] = _NOTHING,
        timeout: float,  # noqa: ASYNC109
    ) -> AsyncIterator[_Stream]:
        if self.dead:
            raise NetworkError("the process is dead")
        call = Call(self.actor, method, route(path), params, None, self._loop.time())
        verdict = self._judge(call)
        await asyncio.sleep(self._network.latency() + verdict.delay)
        if verdict.lost or verdict.unanswered or self.dead:
            raise NetworkError(f"{path}: connection reset by peer")
        if verdict.answer is not None or verdict.garble:
            yield _Stream(
                None, verdict.answer or garbled(Answer(200, _NOTHING, b'{"type":"ADDED","object":{'), verdict.garble)
            )
            return
        async with self._watching(call) as stream:
            yield stream

    @asynccontextmanager
    async def _watching(self, call: Call) -> AsyncIterator[_Stream]:
        verb = "WATCHLIST" if "sendInitialEvents" in call.params else "WATCH"
        counted = f"{verb} {call.route.kind if call.route else '?'}"
        self._server.requests[counted] = self._server.requests.get(counted, 0) + 1
        try:
            watch = self._watches.start(call, self._network.lag_of(known(call).kind))
        except RefusedError as refused:
            yield _Stream(None, refused.answer(self._server))
            return
        selection = _selection(call)
        self._network.views.opened(call.actor, selection, watch)
        self._streams[watch] = None
        try:
            yield _Stream(watch, None)
        finally:
            self._watches.stop(watch)
            self._network.views.closed(call.actor, selection, watch, self._loop.time())
            self._streams.pop(watch, None)


def _selection(call: Call) -> str:
    return f"{call.route} {call.params.get('labelSelector', '')} {call.params.get('fieldSelector', '')}"


def _fail(future: "asyncio.Future[Answer]", why: str) -> None:
    if not future.done():
        future.set_exception(NetworkError(why))


def garbled(answer: Answer, how: str) -> Answer:
    """An answer with a body that something on the way has spoilt."""
    body = {"html": b"<html><body>Welcome to the load balancer</body></html>", "empty": b""}.get(how)
    return Answer(answer.code, answer.headers, answer.body[: len(answer.body) // 2] if body is None else body)


def error_answer(code: int, reason: str, message: str, retry_after: int = 0) -> Answer:
    """An answer that a server or something in front of it may give."""
    headers = {"Retry-After": str(retry_after)} if retry_after else {}
    if code in {502, 503} and not reason:
        return Answer(code, headers, b"<html><body><h1>Bad Gateway</h1></body></html>")
    return Answer(code, headers, status_body(code, reason, message, {"retryAfterSeconds": retry_after}))

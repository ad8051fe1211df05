"""A process of its own inside the simulation: an event loop with its own clock, which can be frozen and killed.

The world's loop runs the others, one turn at a time. A process' clock starts anywhere and may drift; while the process is
frozen (SIGSTOP) its clock goes on and nothing of it runs, and what arrives for it waits, as in a socket's buffer. Nothing
is shared between a process and the world but :class:`Bridge`, which carries requests over and answers back.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from controller.kube.errors import NetworkError
from controller.kube.transport import Response
from tests.sim.loop import VirtualLoop
from tests.sim.network import SimTransport

_NOTHING: Mapping[str, str] = {}


class _Never:
    """Stands in for the selector: a turn of the loop never waits."""

    def select(self, timeout: float | None) -> list[Any]:
        return []


class ProcessLoop(asyncio.BaseEventLoop):
    """The loop of one process.

    Args:
        world: Runs it.
        offset: What its monotonic clock shows at the world's 0.
        rate: Its seconds for each of the world's.
    """

    def __init__(self, world: VirtualLoop, offset: float, rate: float = 1.0) -> None:
        super().__init__()
        self._world = world
        self._offset = offset
        self._rate = rate
        self._selector = _Never()
        self._clock_resolution = 1e-6
        self._next: asyncio.Handle | None = None
        self._turning = False
        self.frozen = False

    def time(self) -> float:
        return self._offset + self._world.time() * self._rate

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        handle: asyncio.Handle = super().call_soon(callback, *args, context=context)
        self._arrange()
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle: asyncio.TimerHandle = super().call_at(when, callback, *args, context=context)
        self._arrange()
        return handle

    def freeze(self, *, on: bool) -> None:
        """SIGSTOP, or SIGCONT."""
        self.frozen = on
        self._arrange()

    def end(self) -> None:
        """The process is gone: its tasks come to nothing."""
        self.frozen = False
        for _ in range(1000):
            tasks = asyncio.all_tasks(self)
            for task in tasks:
                task.cancel()
            if not tasks:
                break
            self._turn()
        if self._next is not None:
            self._next.cancel()
        self.close()

    def post(self, callback: Any, *args: Any) -> None:
        """Something arrives from outside; for a process that is gone it is dropped."""
        if not self.is_closed():
            self.call_soon(callback, *args)

    def _arrange(self) -> None:
        """See to it that the world gives us a turn when there is something to do."""
        if self._turning:
            return
        if self._next is not None:
            self._next.cancel()
            self._next = None
        ready: Any = self._ready  # type: ignore[attr-defined]
        scheduled: Any = self._scheduled  # type: ignore[attr-defined]
        if self.frozen or not (ready or scheduled):
            return
        if ready:
            self._next = self._world.call_soon(self._turn)
        else:
            self._next = self._world.call_at((scheduled[0]._when - self._offset) / self._rate, self._turn)

    def _turn(self) -> None:
        self._next = None
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        self._turning = True
        try:
            self._run_once()  # type: ignore[attr-defined]
        finally:
            self._turning = False
            asyncio._set_running_loop(before)
        self._arrange()

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """No other thread wakes this loop."""


class Bridge:
    """A :class:`controller.kube.transport.Transport` of a process: what is sent travels on its own, in the world."""

    def __init__(self, process: ProcessLoop, world: VirtualLoop, transport: SimTransport) -> None:
        self._process = process
        self._world = world
        self._transport = transport
        self.holds: Callable[[Callable[[], None]], bool] = lambda _: False
        """Whether the process stands still right before it sends a write, past all that it asks; it is given what sends."""

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
        answer: asyncio.Future[Response] = self._process.create_future()

        def send() -> None:
            sent = self._transport.request(method, path, params=params, headers=headers, body=body, timeout=timeout)
            task = self._world.create_task(sent)
            task.add_done_callback(lambda done: self._process.post(_deliver, answer, _outcome(done)))

        if method == "GET" or not self.holds(send):
            send()
        return await answer

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] = _NOTHING,
        headers: Mapping[str, str] = _NOTHING,
        timeout: float,  # noqa: ASYNC109
    ) -> AsyncIterator["_BridgedStream"]:
        arrived: asyncio.Queue[Any] = asyncio.Queue()
        pump = self._world.create_task(self._pump(arrived, method, path, params, timeout))
        try:
            head = await arrived.get()
            if isinstance(head, NetworkError):
                raise head
            yield _BridgedStream(head[0], head[1], arrived)
        finally:
            self._world.call_soon(pump.cancel)

    async def _pump(
        self,
        arrived: "asyncio.Queue[Any]",
        method: str,
        path: str,
        params: Mapping[str, str],
        timeout: float,  # noqa: ASYNC109
    ) -> None:
        def put(item: object) -> None:
            self._process.post(arrived.put_nowait, item)

        try:
            async with self._transport.stream(method, path, params=params, timeout=timeout) as stream:
                put((stream.status, stream.headers))
                if stream.status != 200:
                    put(await stream.body())
                    return
                async for chunk in stream.chunks():
                    put(chunk)
            put(None)
        except NetworkError as error:
            put(error)


class _BridgedStream:
    """An answer that comes over piece by piece."""

    def __init__(self, status: int, headers: Mapping[str, str], arrived: "asyncio.Queue[Any]") -> None:
        self.status = status
        self.headers = headers
        self._arrived = arrived

    async def chunks(self) -> AsyncIterator[bytes]:
        while (item := await self._arrived.get()) is not None:
            if isinstance(item, NetworkError):
                raise item
            yield item

    async def body(self) -> bytes:
        return bytes(await self._arrived.get())


def _outcome(done: "asyncio.Task[Response]") -> Response | BaseException:
    if done.cancelled():
        return NetworkError("connection reset by peer")
    return done.exception() or done.result()


def _deliver(answer: "asyncio.Future[Response]", outcome: Response | BaseException) -> None:
    if answer.done():
        return
    if isinstance(outcome, BaseException):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)

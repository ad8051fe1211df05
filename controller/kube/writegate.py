"""What every write of an acting controller passes: open only while we lead, and empty before the Lease is given back.

A :class:`WriteGate` sits between a client and its transport, behind the rate limiter, and looks at the clock once more when
the transport has a connection, so that nothing can happen between that look and the request but the sending itself. Three
things depend on it:

* *A demoted leader has no effect.* Leadership is asked for at the last moment before each write. Once it is lost no
  write starts any more, and those under way are aborted: their connections are closed, and the API server drops what it
  has not carried out.
* *A stop loses nothing.* Closing the gate ends effects without cutting one in two: no new write starts, and those under
  way get their answer, also where the task that waited for it has been cancelled. So when the Lease is given back, no
  request of ours is on its way, and the release is the last write.
* *A new leader is not taken for the old one.* The admission policy that fences writes learns of a new holder through a
  watch. For a few seconds after the Lease was taken its refusal therefore means "not yet", and the same request, which
  has done nothing, is sent again.

Reads pass at any time.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import msgspec

from controller.kube.errors import NetworkError, Status
from controller.kube.transport import LAST_LOOK, Response, Stream, Transport

DRAIN_SECONDS: Final = 20.0
"""How long writes under way may take to be answered, from the closing of the gate. The API server retries an eviction
that conflicts with others for up to 10 s."""
FIRST_RETRY: Final = 0.1
"""Seconds until a write that the fence refused too early is sent again; doubled each time, up to:"""
LAST_RETRY: Final = 1.0
_FORBIDDEN: Final = 403
_STATUS = msgspec.json.Decoder(Status)
_NOTHING: Final[Mapping[str, str]] = {}

logger = logging.getLogger(__name__)


class NotLeading(NetworkError):  # noqa: N818 - a state
    """The write was not sent: another one leads now, or we are about to end. A write that was aborted may be applied."""


class Leadership(Protocol):
    """Whether we may write; :class:`~controller.kube.leaderelection.LeaderElector` is one."""

    @property
    def is_leader(self) -> bool:
        """Whether we lead at this very moment."""

    @property
    def settling(self) -> bool:
        """Whether an admission policy may not know yet that we do."""


class WriteGate:
    """Lets writes through. Create it inside the running loop.

    Args:
        leadership: Who says whether we lead; None for a single replica, which always does.
    """

    def __init__(self, leadership: Leadership | None = None) -> None:
        self._leadership = leadership
        self._loop = asyncio.get_running_loop()
        self._under_way: set[asyncio.Task[Response]] = set()
        self._closed_at: float | None = None

    @property
    def under_way(self) -> int:
        """Writes that have been sent and not been answered."""
        return len(self._under_way)

    def before(self, transport: Transport) -> Transport:
        """Return the transport with this gate before it."""
        return _Gated(self, transport)

    def close(self) -> None:
        """Let no write start from now on. Those under way go on."""
        if self._closed_at is None:
            self._closed_at = self._loop.time()

    def abort(self) -> None:
        """Close, and cut off what is under way."""
        self.close()
        for task in self._under_way:
            task.cancel()

    async def drained(self) -> bool:
        """Wait until everything under way is answered, at most :data:`DRAIN_SECONDS` from the closing; then abort the rest.

        Returns:
            Whether every write was answered, so that nothing of ours can still be carried out.
        """
        self.close()
        assert self._closed_at is not None
        left = self._closed_at + DRAIN_SECONDS - self._loop.time()
        if self._under_way and left > 0:
            await asyncio.wait(self._under_way, timeout=left)
        if not self._under_way:
            return True
        logger.warning("writes without an answer are aborted", extra={"writes": self.under_way})
        self.abort()
        await asyncio.wait(self._under_way)
        return False

    def check(self, what: str) -> None:
        """Raise unless a write may be sent now.

        Raises:
            NotLeading: It may not.
        """
        if self._closed_at is not None:
            raise NotLeading(f"{what}: not sent, the controller is ending", maybe_applied=False)
        if self._leadership is not None and not self._leadership.is_leader:
            raise NotLeading(f"{what}: not sent, another replica leads or may do so soon", maybe_applied=False)

    def may_be_early(self, response: Response) -> bool:
        """Whether a refusal may come from a fence that has not seen yet that we lead."""
        if response.status != _FORBIDDEN or self._leadership is None or not self._leadership.settling:
            return False
        with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
            status = _STATUS.decode(response.body)
            causes = (status.details and status.details.causes) or ()
            return status.reason == "Forbidden" and not any(cause.reason for cause in causes)
        return False

    def started(self, task: "asyncio.Task[Response]") -> None:
        """Take note of a write under way."""
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[Response]") -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever waits for it; where nobody does any more it is of no interest


class _Gated:
    """A :class:`~controller.kube.transport.Transport` with a gate before it."""

    def __init__(self, gate: WriteGate, transport: Transport) -> None:
        self._gate = gate
        self._transport = transport

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] = _NOTHING,
        headers: Mapping[str, str] = _NOTHING,
        body: bytes | None = None,
        timeout: float,  # noqa: ASYNC109 - see Transport
    ) -> Response:
        """See :meth:`Transport.request`; a write goes on when its caller is cancelled."""
        if method == "GET":
            return await self._transport.request(method, path, params=params, headers=headers, body=body, timeout=timeout)
        what = f"{method} {path}"
        self._gate.check(what)
        task = asyncio.create_task(self._write(method, path, params, headers, body, timeout), name=what)
        self._gate.started(task)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and caller is not None and not caller.cancelling():
                raise NotLeading(f"{what}: aborted, leadership was lost") from None
            raise  # the caller itself is to end

    async def _write(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes | None,
        timeout: float,  # noqa: ASYNC109
    ) -> Response:
        wait = FIRST_RETRY
        LAST_LOOK.set(lambda: self._gate.check(f"{method} {path}"))  # of this write's own task
        while True:
            self._gate.check(f"{method} {path}")
            answer = await self._transport.request(method, path, params=params, headers=headers, body=body, timeout=timeout)
            if not self._gate.may_be_early(answer):
                return answer
            await asyncio.sleep(wait)
            wait = min(2 * wait, LAST_RETRY)

    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] = _NOTHING,
        headers: Mapping[str, str] = _NOTHING,
        timeout: float,
    ) -> AbstractAsyncContextManager[Stream]:
        """See :meth:`Transport.stream`."""
        return self._transport.stream(method, path, params=params, headers=headers, timeout=timeout)

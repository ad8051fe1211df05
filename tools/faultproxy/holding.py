"""A request that a test holds on its way, and decides what becomes of it, however its sender has fared meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from tools.faultproxy.calls import Call


class Held:
    """One request; inside the running loop."""

    def __init__(self, call: Call, send: Callable[[], Awaitable[web.Response]]) -> None:
        self.call = call
        self.left = False
        """Whether its sender has closed the connection."""
        self._send = send
        self._truth: web.Response | None = None
        self._answer: asyncio.Future[web.Response | None] = asyncio.get_running_loop().create_future()

    async def carry_out(self) -> int:
        """The server gets it now, if it has not yet; nobody hears of it. Returns the status."""
        if self._truth is None:
            self._truth = await self._send()
        return self._truth.status

    async def send_on(self) -> int:
        """The same, and its sender hears the answer, if it is still there."""
        status = await self.carry_out()
        self._decide(self._truth)
        return status

    def drop(self) -> None:
        """Its connection is reset, and if the server has not got it yet, it never will."""
        self._decide(None)

    async def answer(self) -> web.Response | None:
        """What its sender hears in the end; None for a reset. A sender that leaves meanwhile takes nothing away."""
        try:
            return await asyncio.shield(self._answer)
        except asyncio.CancelledError:
            self.left = True
            raise

    def _decide(self, answer: web.Response | None) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)

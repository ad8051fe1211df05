"""The proxy: TLS on both sides, HTTP/1.1 with keep-alive and endless watches, and a log of what it did.

    async with FaultProxy.start(control_plane.access, directory) as proxy:
        kubeconfig = proxy.access(token).write(path)
        proxy.plan = Plan(7, [Rule((Fault(Kind.LOST),), verbs={"patch"}, chance=0.2)])

Whoever connects through it shows its own credentials, which are passed on. It has a certificate authority of its own, so
that a client which trusts another server alone does not get through. Requests that no rule meets are passed on unchanged.
Everything runs in the test's own event loop: a test changes the plan while requests are on their way.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict

from tools.controlplane.binaries import resolve
from tools.controlplane.kubeconfig import Access
from tools.controlplane.process import ComponentError
from tools.controlplane.terminal import Reporter
from tools.faultproxy import past
from tools.faultproxy.calls import Call, parse
from tools.faultproxy.holding import Held
from tools.faultproxy.plan import REASONS, Fault, Kind, Plan
from tools.faultproxy.watching import coalesced, is_bookmark, lines

_NOT_PASSED_ON = frozenset({"host", "accept-encoding", "content-length", "transfer-encoding", "connection"})
_PAGE = "<html><head><title>{0}</title></head><body><h1>{0} Bad Gateway</h1><hr>balancer</body></html>"
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5)
_PIECE = 64
_PIECES = 40
FROZEN = "frozen"
REWOUND = "rewound"


@dataclass(frozen=True)
class Entry:
    """One line of the log: what the proxy did to a request."""

    at: float
    """Monotonic seconds."""
    call: Call
    fault: str
    """Empty where nothing was done to it."""
    passed_on: bool
    """Whether the server may have seen it."""


class FaultProxy:
    """See :func:`FaultProxy.start`."""

    def __init__(self, target: Access, directory: Path) -> None:
        self.plan = Plan()
        self.log: list[Entry] = []
        self._target = target
        self._directory = directory
        self._port = 0
        self._news = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._frozen: dict[str, tuple[str, asyncio.Event]] = {}
        self._rewound: set[str] = set()
        self._watches: dict[asyncio.Task[None], Call] = {}
        self._held: asyncio.Queue[Held] = asyncio.Queue()

    @classmethod
    @asynccontextmanager
    async def start(cls, target: Access, directory: Path) -> AsyncIterator["FaultProxy"]:
        """Serve on a free port of 127.0.0.1 until the context is left; certificates are written into the directory."""
        proxy = cls(target, directory)
        await _make_certificates(directory)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(directory / "server.crt", directory / "server.key")
        runner = web.ServerRunner(
            web.Server(proxy._handle, handler_cancellation=True, access_log=None), shutdown_timeout=0.1
        )
        connector = aiohttp.TCPConnector(ssl=target.ssl_context(), limit=0)
        async with aiohttp.ClientSession(target.server, connector=connector, auto_decompress=False) as session:
            proxy._session = session
            await runner.setup()
            try:
                site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
                await site.start()
                proxy._port = int(runner.addresses[0][1])
                yield proxy
            finally:
                proxy.thaw()
                await runner.cleanup()

    def access(self, token: str = "") -> Access:
        """How to reach the API server through here; with the target's own token where none is given."""
        ca = (self._directory / "ca.crt").read_bytes()
        return Access(f"https://127.0.0.1:{self._port}", ca, token or self._target.token)

    def did(self, fault: str = "", verb: str = "", resource: str = "") -> list[Entry]:
        """What was done to requests, as far as it is asked for."""
        found = (e for e in self.log if e.fault)
        return [
            e
            for e in found
            if (not fault or e.fault.startswith(fault)) and verb in {"", e.call.verb} and resource in {"", e.call.resource}
        ]

    async def happens(self, fault: str, *, verb: str = "", resource: str = "", timeout: float = 120.0) -> Entry:  # noqa: ASYNC109
        """Wait until something was done to a request."""
        async with asyncio.timeout(timeout):
            while not (found := self.did(fault, verb, resource)):
                self._news.clear()
                await self._news.wait()
        return found[0]

    async def holds(self, timeout: float = 120.0) -> Held:  # noqa: ASYNC109
        """Wait for the next request that is held, each once."""
        async with asyncio.timeout(timeout):
            return await self._held.get()

    def held(self) -> list[Held]:
        """What is held by now, each once."""
        return [self._held.get_nowait() for _ in range(self._held.qsize())]

    async def spent(self, timeout: float = 120.0) -> None:  # noqa: ASYNC109
        """Wait until everything of the plan has happened that was to happen a number of times."""
        async with asyncio.timeout(timeout):
            while not self.plan.spent:
                self._news.clear()
                await self._news.wait()

    # Views that stand still.

    def freeze(self, resource: str, version: str) -> None:
        """From now on watches of a resource tell nothing, and lists that any version will do for are of this one."""
        self._frozen[resource] = (version, asyncio.Event())

    def rewind(self, resource: str, version: str) -> None:
        """The same, and watches that begin with the state are told that of this version: who starts now sees the past."""
        self.freeze(resource, version)
        self._rewound.add(resource)

    def thaw(self, *resources: str) -> None:
        """Views go on, with everything that they have missed; all where none is named."""
        for resource in resources or tuple(self._frozen):
            self._rewound.discard(resource)
            _, over = self._frozen.pop(resource)
            over.set()

    def cut_watches(self, resource: str = "") -> int:
        """Reset the open watches (of one resource); returns how many."""
        chosen = [task for task, call in self._watches.items() if resource in {"", call.resource}]
        for task in chosen:
            task.cancel()
        return len(chosen)

    # Requests.

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = parse(request.method, request.path, request.query)
        body = await request.read()
        fault = self.plan.judge(call, body)
        try:
            if call.verb == "watch":
                return await self._watch(request, call, fault)
            return await self._answer(request, call, body, fault)
        except (aiohttp.ClientError, OSError):
            return _reset(request)  # the server is away, and so are we

    async def _answer(self, request: web.BaseRequest, call: Call, body: bytes, fault: Fault | None) -> web.StreamResponse:
        if fault is not None and fault.kind is Kind.HELD:
            return await self._hold(request, call, body)
        kind = fault.kind if fault else None
        passed_on = fault is None or fault.applied or kind not in {Kind.LOST, Kind.REFUSED, Kind.HTML, Kind.HANGS}
        self._note(call, str(fault or ""), passed_on=passed_on)
        if fault is not None and kind is Kind.SLOW:
            await asyncio.sleep(fault.seconds)
        truth = await self._forward(request, call, body) if passed_on else web.Response()
        if fault is None:
            return truth
        match kind:
            case Kind.LOST | Kind.UNANSWERED:
                return _reset(request)
            case Kind.REFUSED:
                return _refusal(fault)
            case Kind.HTML:
                return web.Response(status=fault.code, text=_PAGE.format(fault.code), content_type="text/html")
            case Kind.HANGS:
                await asyncio.sleep(fault.seconds)
                return _reset(request)
            case Kind.TRUNCATED:
                return await _part_of(request, truth)
            case Kind.TRICKLE:
                return await _in_pieces(request, truth, fault.seconds)
            case Kind.LATE:
                await asyncio.sleep(fault.seconds)
        return truth

    async def _hold(self, request: web.BaseRequest, call: Call, body: bytes) -> web.StreamResponse:
        """Kept until the test says what becomes of it, whether or not its sender is still there."""
        held = Held(call, lambda: self._forward(request, call, body))
        self._note(call, Kind.HELD.value, passed_on=False)
        self._held.put_nowait(held)
        answer = await held.answer()
        return _reset(request) if answer is None else answer

    async def _forward(self, request: web.BaseRequest, call: Call, body: bytes) -> web.Response:
        async with self._send(request, self._query(request, call), body) as answer:
            return web.Response(status=answer.status, headers=_back(answer), body=await answer.read())

    def _query(self, request: web.BaseRequest, call: Call) -> dict[str, str]:
        query = dict(request.query)
        frozen = self._frozen.get(call.resource)
        if frozen and call.verb == "list" and query.get("resourceVersion") and "continue" not in query:
            query |= {"resourceVersion": frozen[0], "resourceVersionMatch": "Exact"}
            self._note(call, FROZEN, passed_on=True)
        return query

    def _send(
        self, request: web.BaseRequest, query: dict[str, str], body: bytes
    ) -> "contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]":
        assert self._session is not None
        headers = CIMultiDict((k, v) for k, v in request.headers.items() if k.lower() not in _NOT_PASSED_ON)
        headers["Accept-Encoding"] = "identity"
        return self._session.request(
            request.method, request.rel_url.with_query(query), headers=headers, data=body or None, timeout=_NO_TIMEOUT
        )

    def _note(self, call: Call, fault: str, *, passed_on: bool) -> None:
        self.log.append(Entry(time.monotonic(), call, fault, passed_on))
        self._news.set()

    # Watches.

    async def _watch(self, request: web.BaseRequest, call: Call, fault: Fault | None) -> web.StreamResponse:
        if fault is not None and fault.kind not in {*_SHAPED, Kind.TRUNCATED, Kind.TRICKLE, Kind.SLOW, Kind.LATE}:
            plain = replace(fault, kind=Kind.LOST) if fault.kind is Kind.UNANSWERED else fault
            return await self._answer(request, call, b"", plain)
        self._note(call, str(fault or ""), passed_on=True)
        if fault is not None and fault.kind in {Kind.SLOW, Kind.LATE}:
            await asyncio.sleep(fault.seconds)
        query, response = dict(request.query), None
        if call.resource in self._rewound and past.asked(query):
            query, response = await self._replayed(request, call)
        async with self._send(request, query, b"") as answer:
            if response is None:
                response = web.StreamResponse(status=answer.status, headers=_back(answer))
                await response.prepare(request)
            task = asyncio.create_task(self._relay(answer, response, call, fault), name=f"proxy: {call}")
            self._watches[task] = call
            try:
                await task
            except asyncio.CancelledError:
                if not task.cancelled() or (me := asyncio.current_task()) is None or me.cancelling():
                    raise
                return _reset(request)
            except _CutError:
                return _reset(request)
            finally:
                task.cancel()
                self._watches.pop(task, None)
            with suppress(OSError, aiohttp.ClientError):
                await response.write_eof()
            return response

    async def _replayed(self, request: web.BaseRequest, call: Call) -> tuple[dict[str, str], web.StreamResponse]:
        """Tell a watch the state of the past; returns how to go on when the view does, and the answer so far."""
        version, over = self._frozen[call.resource]
        self._note(call, REWOUND, passed_on=True)
        async with self._send(request, past.listing(dict(request.query), version), b"") as answer:
            state = past.told(await answer.read(), version)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(state)
        await over.wait()
        return past.following(dict(request.query), version), response

    async def _relay(
        self, answer: aiohttp.ClientResponse, response: web.StreamResponse, call: Call, fault: Fault | None
    ) -> None:
        """Pass a watch's lines on, each as its fault has it."""
        say = _Sayer(
            response, fault, lambda: self._frozen.get(call.resource), lambda: self._note(call, FROZEN, passed_on=True)
        )
        await say.begin()
        holding = asyncio.create_task(say.flush_for_ever()) if fault and fault.kind is Kind.COALESCED else None
        try:
            with suppress(_OverError):
                async for line in lines(answer.content):
                    await say.line(line)
            await say.flush()
        finally:
            if holding is not None:
                holding.cancel()


_SHAPED = frozenset({Kind.CUT, Kind.SILENT, Kind.HALF_OPEN, Kind.COALESCED, Kind.NO_BOOKMARKS, Kind.GONE})


class _CutError(Exception):
    """The watch is to be reset."""


class _OverError(Exception):
    """The watch is to end in good form."""


class _Sayer:
    """Writes one watch's lines to its client."""

    def __init__(
        self,
        response: web.StreamResponse,
        fault: Fault | None,
        frozen: Callable[[], tuple[str, asyncio.Event] | None],
        noted: Callable[[], None],
    ) -> None:
        self._response = response
        self._fault = fault
        self._kind = fault.kind if fault else None
        self._frozen = frozen
        self._noted = noted
        self._held: list[bytes] = []

    async def begin(self) -> None:
        """What happens before the first line."""
        fault = self._fault
        if fault is None:
            return
        if self._kind is Kind.GONE:
            gone = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired"}
            event = {"type": "ERROR", "object": {**gone, "message": "too old resource version: 1 (2)"}}
            await self._response.write(orjson.dumps(event) + b"\n")
            raise _CutError
        if self._kind in {Kind.SILENT, Kind.HALF_OPEN}:
            await asyncio.sleep(fault.seconds)
            if self._kind is Kind.HALF_OPEN:
                raise _CutError

    async def line(self, line: bytes) -> None:
        """One line from the server."""
        while (frozen := self._frozen()) is not None:
            self._noted()
            await frozen[1].wait()
        match self._kind:
            case Kind.NO_BOOKMARKS if is_bookmark(line):
                return
            case Kind.TRUNCATED:
                raise _OverError
            case Kind.COALESCED:
                self._held.append(line)
            case Kind.CUT:
                await self._response.write(line[: len(line) // 2])
                raise _CutError
            case Kind.TRICKLE:
                for start in range(0, len(line), _PIECE):
                    await self._response.write(line[start : start + _PIECE])
                    await asyncio.sleep(0)
            case _:
                await self._response.write(line)

    async def flush_for_ever(self) -> None:
        """Tell what has gathered, again and again."""
        assert self._fault is not None
        while True:
            await asyncio.sleep(self._fault.seconds)
            await self.flush()

    async def flush(self) -> None:
        """Tell what has gathered."""
        held, self._held = self._held, []
        for line in coalesced(held):
            await self._response.write(line)


def _reset(request: web.BaseRequest) -> web.Response:
    """Ends the connection with a TCP reset; what is returned reaches nobody."""
    if request.transport is not None:
        if (sock := request.transport.get_extra_info("socket")) is not None:  # else it is closing already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()


def _refusal(fault: Fault) -> web.Response:
    reason = REASONS[fault.code]
    details = {"retryAfterSeconds": fault.retry_after} if fault.retry_after else {}
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": fault.code, "reason": reason}
    body = orjson.dumps({**status, "message": "injected by the fault proxy", "details": details})
    headers = {"Content-Type": "application/json"}
    if fault.retry_after:
        headers["Retry-After"] = str(fault.retry_after)
    return web.Response(status=fault.code, headers=headers, body=body)


async def _part_of(request: web.BaseRequest, truth: web.Response) -> web.Response:
    body = truth.body
    assert isinstance(body, bytes)
    response = web.StreamResponse(status=truth.status, headers=truth.headers)
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    return _reset(request)


async def _in_pieces(request: web.BaseRequest, truth: web.Response, seconds: float) -> web.StreamResponse:
    body = truth.body
    assert isinstance(body, bytes)
    response = web.StreamResponse(status=truth.status, headers=truth.headers)
    response.content_length = len(body)
    await response.prepare(request)
    size = max(1, -(-len(body) // _PIECES))
    for start in range(0, len(body), size):
        await response.write(body[start : start + size])
        await asyncio.sleep(seconds / _PIECES)
    await response.write_eof()
    return response


def _back(answer: aiohttp.ClientResponse) -> CIMultiDict[str]:
    gone = {"transfer-encoding", "content-length", "connection"}
    return CIMultiDict((k, v) for k, v in answer.headers.items() if k.lower() not in gone)


async def _make_certificates(directory: Path) -> None:
    binaries = await asyncio.to_thread(resolve, Reporter())
    maker = await asyncio.create_subprocess_exec(*binaries.certificates, str(directory), "127.0.0.1", "localhost")
    if status := await maker.wait():
        raise ComponentError(f"certificates of the fault proxy ended with status {status}")

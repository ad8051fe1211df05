"""The seam to the network: :class:`Transport`, and its implementation over aiohttp.

Everything above speaks to a Transport only, so that the simulator and the tests put an in-memory API server in its place
and run in virtual time. A Transport knows HTTP and nothing of Kubernetes objects; it raises
:class:`~controller.kube.errors.NetworkError` where no complete answer came and returns every answer, of any status.

aiohttp leaves TCP keepalive off and has no timeouts on streams, so a peer that vanished without a word would go
unnoticed for ever. Here the kernel finds out within 30 seconds (``SO_KEEPALIVE`` 15/10/3 for idle connections,
``TCP_USER_TIMEOUT`` for those with unacknowledged data), and every request and stream has a total timeout besides.

Between the asking for a request and its sending may lie credentials that are renewed, a free connection that is waited
for, a handshake. Whoever must not send too late is asked once more when all that is done: see :data:`LAST_LOOK`. What fails
before that has certainly not been sent, and its error says so (``maybe_applied``).
"""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final, Protocol, Self

import aiohttp
from aiohttp.hdrs import AUTHORIZATION

from controller.kube.config import Connection
from controller.kube.errors import NetworkError

CONNECT_TIMEOUT: Final = 10.0
READ_BUFFER: Final = 2**18
"""Bytes that may wait unread per stream: about 40 watch events; lines longer than that still pass, in pieces."""
CONNECTIONS: Final = 256
"""Every watch holds a connection: informers, one per node in progress, and the requests beside them."""
_UNAUTHORIZED: Final = 401
_SSL = re.compile(r" ssl:(<.*?>|\w+)")
"""What aiohttp adds to its messages for itself."""
LAST_LOOK: Final[ContextVar[Callable[[], None] | None]] = ContextVar("LAST_LOOK", default=None)
"""Called when the connection for a request of this task stands and only the sending is left; raises to prevent it."""
_Params = Mapping[str, str]
_NOTHING: Final[_Params] = {}


@dataclass(frozen=True, slots=True)
class Response:
    """A complete answer. Header names are looked up in their canonical case (``Retry-After``)."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Stream(Protocol):
    """An answer whose body is read as it comes."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces of any size; raises NetworkError where it is cut off."""

    async def body(self) -> bytes:
        """The whole body, for the answers that are errors."""


class Transport(Protocol):
    """Carries requests to one API server."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] = _NOTHING,
        headers: Mapping[str, str] = _NOTHING,
        body: bytes | None = None,
        timeout: float,  # noqa: ASYNC109 - part of the request: connect, send and receive within it
    ) -> Response:
        """Send one request and return its answer within timeout seconds.

        Raises:
            NetworkError: No complete answer.
        """

    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] = _NOTHING,
        headers: Mapping[str, str] = _NOTHING,
        timeout: float,
    ) -> AbstractAsyncContextManager[Stream]:
        """Send one request and hand out its answer while it arrives; timeout bounds the whole of it."""


class AiohttpTransport:
    """A Transport over one aiohttp session. Create it inside the running loop and close it, or use ``async with``.

    A 401 renews the credentials and repeats the request once: a request that was not authenticated was not acted on.
    """

    def __init__(self, connection: Connection, *, user_agent: str, connections: int = CONNECTIONS) -> None:
        self._connection = connection
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, socket_factory=_keepalive_socket),
            headers={"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "gzip"},
            read_bufsize=READ_BUFFER,
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[_noticing_connections()],
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

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
        """See :meth:`Transport.request`."""
        async with self._exchange(method, path, params=params, headers=headers, body=body, timeout=timeout) as stream:
            return Response(stream.status, stream.headers, await stream.body())

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
        return self._exchange(method, path, params=params, headers=headers, body=None, timeout=timeout)

    @asynccontextmanager
    async def _exchange(
        self,
        method: str,
        path: str,
        *,
        params: _Params,
        headers: _Params,
        body: bytes | None,
        timeout: float,  # noqa: ASYNC109
    ) -> AsyncIterator["_AiohttpStream"]:
        response = await self._send(method, path, params=params, headers=headers, body=body, timeout=timeout)
        try:
            refused = response.request_info.headers.get(AUTHORIZATION)
            if response.status == _UNAUTHORIZED and await self._connection.refresh(refused):
                response.release()
                response = await self._send(method, path, params=params, headers=headers, body=body, timeout=timeout)
            yield _AiohttpStream(response)
        finally:
            # A body that was read to its end gives the connection back to the pool; any other is worthless.
            response.close()

    async def _send(
        self,
        method: str,
        path: str,
        *,
        params: _Params,
        headers: _Params,
        body: bytes | None,
        timeout: float,  # noqa: ASYNC109
    ) -> aiohttp.ClientResponse:
        connection = self._connection
        authorization = await connection.authorization()
        sent = dict(headers) if authorization is None else {**headers, AUTHORIZATION: authorization}
        sending = _Sending()
        try:
            return await self._session.request(
                method,
                connection.server + path,
                params=params,
                headers=sent,
                data=body,
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, CONNECT_TIMEOUT)),
                ssl=True if connection.tls is None else connection.tls,
                server_hostname=connection.server_name,
                proxy=connection.proxy,
                allow_redirects=False,
                trace_request_ctx=sending,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _network_error(error, f"{method} {connection.server}{path}", maybe_applied=sending.connected) from error


@dataclass(slots=True)
class _Sending:
    """One request on its way out."""

    connected: bool = False
    """Whether it has ever had a connection: until then it cannot have been sent, from then on it may have been."""


def _noticing_connections() -> aiohttp.TraceConfig:
    async def connected(_session: object, context: SimpleNamespace, _params: object) -> None:
        if (last_look := LAST_LOOK.get()) is not None:
            last_look()
        context.trace_request_ctx.connected = True

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_end.append(connected)
    tracing.on_connection_reuseconn.append(connected)
    return tracing


class _AiohttpStream:
    """The body of an aiohttp answer, with this package's errors."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """Pieces as they arrive."""
        content = self._response.content
        while True:
            try:
                chunk = await content.readany()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise _network_error(error, str(self._response.url.path)) from error
            if not chunk:
                return
            yield chunk

    async def body(self) -> bytes:
        """Everything."""
        try:
            return await self._response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _network_error(error, str(self._response.url.path)) from error


def _network_error(error: Exception, what: str, *, maybe_applied: bool = True) -> NetworkError:
    detail = "timed out" if isinstance(error, asyncio.TimeoutError) else _SSL.sub("", str(error)) or type(error).__name__
    return NetworkError(f"{what}: {detail}", maybe_applied=maybe_applied)


def _keepalive_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A TCP socket whose kernel notices a dead peer within 15 + 10 * 3 seconds (Linux; elsewhere what there is)."""
    family, kind, proto, _, _ = address
    sock = socket.socket(family, kind, proto)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    sock.setblocking(False)
    return sock

"""The aiohttp transport against a real server on the loopback: bytes, errors, time limits, credentials, sockets."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from controller.kube.config import Connection
from controller.kube.errors import NetworkError
from controller.kube.transport import CONNECTIONS, AiohttpTransport, _keepalive_socket
from controller.kube.writegate import NotLeading, WriteGate

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Tokens:
    """Credentials that change each time they are renewed."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.loads = 0

    async def load(self, *, force: bool) -> str | None:
        self.loads += 1
        if force and len(self.tokens) > 1:
            self.tokens.pop(0)
        return self.tokens[0]


@asynccontextmanager
async def serving(handler: Handler, *, connections: int = CONNECTIONS, **connection: Any) -> AsyncIterator[AiohttpTransport]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        server = Connection(f"http://127.0.0.1:{port}", **connection)
        async with AiohttpTransport(server, user_agent="test/1", connections=connections) as transport:
            yield transport
    finally:
        await runner.cleanup()


async def test_a_request_carries_everything_and_gzip_is_undone() -> None:
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.method, request.path_qs, await request.read(), dict(request.headers)))
        return web.Response(
            status=201, body=gzip.compress(b"answer"), headers={"Content-Encoding": "gzip", "Retry-After": "3"}
        )

    async with serving(handler) as transport:
        answer = await transport.request(
            "PATCH", "/api/v1/x", params={"a": "b c"}, headers={"Content-Type": "application/y"}, body=b"body", timeout=5
        )
    assert (answer.status, answer.body, answer.headers["Retry-After"]) == (201, b"answer", "3")
    ((method, path, body, headers),) = seen
    assert (method, path, body) == ("PATCH", "/api/v1/x?a=b+c", b"body")
    assert headers["User-Agent"] == "test/1"
    assert headers["Accept-Encoding"] == "gzip"
    assert headers["Content-Type"] == "application/y"
    assert "Authorization" not in headers


async def test_a_stream_arrives_in_pieces_and_connections_are_used_again() -> None:
    release = asyncio.Event()
    peers: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first\n")
        await release.wait()
        await response.write(b"second\n")
        return response

    async with serving(handler) as transport:
        async with transport.stream("GET", "/watch", timeout=5) as stream:
            chunks = stream.chunks()
            assert await anext(chunks) == b"first\n"
            release.set()
            assert b"".join([chunk async for chunk in chunks]) == b"second\n"
        await transport.request("GET", "/again", timeout=5)
    assert peers[0] == peers[1]


async def test_nobody_listens_means_not_applied() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        connection = Connection(f"http://127.0.0.1:{reserved.getsockname()[1]}")
        async with AiohttpTransport(connection, user_agent="test") as transport:
            with pytest.raises(NetworkError, match=r"GET http://127.0.0.1:.*/x: ") as caught:
                await transport.request("GET", "/x", timeout=5)
    assert not caught.value.maybe_applied


async def test_what_never_got_a_connection_of_the_pool_was_not_applied() -> None:
    """It was taken to be, perhaps, and the slot that was granted with it stayed taken."""
    arrived: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        arrived.append(request.path)
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async with serving(handler, connections=1) as transport, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(_failure(transport, "/first", 0.4))
        await asyncio.sleep(0.1)
        second = tasks.create_task(_failure(transport, "/second", 0.1))
    assert ["timed out" in str(error.result()) for error in (first, second)] == [True, True]
    assert [error.result().maybe_applied for error in (first, second)] == [True, False]
    assert arrived == ["/first"]


async def _failure(transport: AiohttpTransport, path: str, timeout: float) -> NetworkError:  # noqa: ASYNC109
    with pytest.raises(NetworkError) as caught:
        await transport.request("PATCH", path, body=b"{}", timeout=timeout)
    return caught.value


async def test_a_silent_server_is_given_up_and_may_have_applied() -> None:
    async def handler(_: web.Request) -> web.Response:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async with serving(handler) as transport:
        with pytest.raises(NetworkError, match="timed out") as caught:
            await transport.request("POST", "/x", body=b"", timeout=0.05)
        assert caught.value.maybe_applied
        with pytest.raises(NetworkError, match="timed out"):
            async with transport.stream("GET", "/x", timeout=0.05):
                pass


async def test_a_stream_that_falls_silent_or_is_cut_is_a_network_error() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first\n")
        if request.path == "/silent":
            await asyncio.get_running_loop().create_future()
        assert request.transport is not None
        request.transport.abort()
        return response

    async with serving(handler) as transport:
        for path, timeout in (("/silent", 0.1), ("/cut", 5)):
            async with transport.stream("GET", path, timeout=timeout) as stream:
                chunks = stream.chunks()
                assert await anext(chunks) == b"first\n"
                with pytest.raises(NetworkError) as caught:
                    await anext(chunks)
            assert caught.value.maybe_applied
        with pytest.raises(NetworkError):
            await transport.request("GET", "/cut", timeout=5)


async def test_redirects_are_answers_and_not_followed() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    async with serving(handler) as transport:
        assert (await transport.request("GET", "/x", timeout=5)).status == 302


async def test_a_refused_token_is_renewed_once_and_by_one_of_many() -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.Response(status=200 if seen[-1] == "Bearer new" else 401)

    tokens = Tokens("Bearer old", "Bearer new", "Bearer newest")
    async with serving(handler, credentials=tokens) as transport:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(transport.request("GET", "/x", timeout=5)) for _ in range(5)]
        assert [task.result().status for task in tasks] == [200] * 5
        async with transport.stream("GET", "/x", timeout=5) as stream:
            assert stream.status == 200
    assert tokens.loads == 2
    assert seen.count("Bearer old") == 5
    assert seen.count("Bearer new") == 6


async def test_a_token_that_stays_refused_is_not_tried_again_and_again() -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.Response(status=401)

    tokens = Tokens("Bearer one")
    async with serving(handler, credentials=tokens) as transport:
        for _ in range(3):
            assert (await transport.request("GET", "/x", timeout=5)).status == 401
    assert seen == ["Bearer one"] * 3
    assert tokens.loads == 2


def test_the_kernel_is_told_to_notice_dead_peers() -> None:
    sock = _keepalive_socket((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 1)))
    with sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not sock.getblocking()
        tcp = socket.IPPROTO_TCP
        assert sock.getsockopt(tcp, socket.TCP_KEEPIDLE) == 15
        assert sock.getsockopt(tcp, socket.TCP_KEEPINTVL) == 10
        assert sock.getsockopt(tcp, socket.TCP_KEEPCNT) == 3
        assert sock.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 30_000


async def test_requests_through_it_use_such_a_socket() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    async with serving(handler) as transport, transport.stream("GET", "/x", timeout=5) as stream:
        connection = stream._response.connection or stream._response._protocol  # type: ignore[attr-defined]
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


class Fleeting:
    """Leadership that is there for so many looks."""

    settling = False

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def is_leader(self) -> bool:
        self.looks -= 1
        return self.looks >= 0


@pytest.mark.parametrize("again", [False, True], ids=["new connection", "reused connection"])
async def test_who_ceases_to_lead_while_the_connection_is_made_sends_nothing(again: bool) -> None:
    """A process that was frozen in a handshake sent the write when it woke, in another one's term."""
    arrived: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        arrived.append(request.method)
        return web.Response()

    async with serving(handler) as transport:
        if again:
            await transport.request("GET", "/x", timeout=5)
        for looks, sent in ((2, False), (3, True)):
            del arrived[:]
            write = WriteGate(Fleeting(looks)).before(transport).request("PATCH", "/x", body=b"{}", timeout=5)
            if sent:
                assert (await write).status == 200
            else:
                with pytest.raises(NotLeading) as caught:
                    await write
                assert not caught.value.maybe_applied
            assert arrived == ["PATCH"] * sent

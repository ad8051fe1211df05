"""The tools' client waits through what passes: a server that is away, or whose storage is being set up again."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import orjson
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from tools.controlplane.api import Api, ApiError
from tools.controlplane.kubeconfig import Access
from tools.controlplane.resources import NODES

NODE = {"metadata": {"name": "a", "resourceVersion": "2"}}
ADDED = orjson.dumps({"type": "ADDED", "object": NODE}) + b"\n"


class Server:
    """Refuses so many lists and watches with a code, then answers."""

    def __init__(self) -> None:
        self.refuses: list[int] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.refuses:
            code = self.refuses.pop(0)
            return web.json_response({"message": "storage is (re)initializing", "code": code}, status=code)
        if "watch" not in request.query:
            return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})
        return web.Response(body=ADDED)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest_asyncio.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    app = web.Application()
    app.router.add_get("/api/v1/nodes", server.answer)
    async with TestServer(app) as running, Api(Access(str(running.make_url("/")).rstrip("/"), b"")) as client:
        yield client


async def test_a_watch_outlives_a_storage_that_is_being_set_up(api: Api, server: Server) -> None:
    server.refuses = [429, 429]
    async with aclosing(api.watch(NODES, version="1")) as events:
        assert await anext(events) == ("ADDED", NODE)


async def test_so_does_waiting(api: Api, server: Server) -> None:
    server.refuses = [429, 500, 429]
    assert await api.wait_for(NODES, list) == [NODE]


@pytest.mark.parametrize("code", [403, 410])
async def test_what_does_not_pass_is_raised(api: Api, server: Server, code: int) -> None:
    server.refuses = [code]
    with pytest.raises(ApiError) as raised:
        async with aclosing(api.watch(NODES, version="1")) as events:
            await anext(events)
    assert raised.value.code == code

"""A Transport whose answers are scripted, one per request, in order. After them requests hang, and watches are quiet."""

import asyncio
import json
import math
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from controller.kube.client import Client
from controller.kube.clock import ServerClock
from controller.kube.transport import Response, Stream

HANG = object()
MINUTE = 60.0


@dataclass
class Answer:
    """Status, headers and the body in steps: bytes to send, seconds to be quiet, an error to raise, or HANG.

    Who is quiet still gives a sign of life each minute, as bookmarks are; who hangs gives none.
    """

    status: int = 200
    steps: tuple[Any, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    async def chunks(self) -> AsyncIterator[bytes]:
        for step in self.steps:
            if isinstance(step, bytes):
                yield step
            elif step is HANG:
                await asyncio.get_running_loop().create_future()
            elif isinstance(step, Exception):
                raise step
            else:
                async for sign in _quiet(step):
                    yield sign

    async def body(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])


async def _quiet(seconds: float) -> AsyncIterator[bytes]:
    while seconds > MINUTE:
        await asyncio.sleep(MINUTE)
        yield b"\n"
        seconds -= MINUTE
    await asyncio.sleep(seconds)


@dataclass
class Request:
    """What was sent, and when on the loop's clock."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: Any
    timeout: float
    at: float

    @property
    def kind(self) -> str:
        """WATCHLIST, WATCH, LIST, or the method."""
        if "watch" in self.params:
            return "WATCHLIST" if "sendInitialEvents" in self.params else "WATCH"
        return "LIST" if self.method == "GET" and "timeout" in self.params and "limit" in self.params else self.method


class FakeTransport:
    """Answers requests from a script. An exception in it is raised in place of an answer, HANG is never answered."""

    def __init__(self, *script: Any) -> None:
        self.script = deque(script)
        self.requests: list[Request] = []
        self.open_streams = 0

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float,  # noqa: ASYNC109
    ) -> Response:
        answer = await self._next(method, path, params, headers, body, timeout)
        return Response(answer.status, answer.headers, await answer.body())

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float,  # noqa: ASYNC109
    ) -> AsyncIterator[Stream]:
        self.script = self.script or deque([Answer(200, (math.inf,))])
        answer = await self._next(method, path, params, headers, None, timeout)
        self.open_streams += 1
        try:
            yield answer
        finally:
            self.open_streams -= 1

    async def _next(self, method, path, params, headers, body, timeout) -> Answer:  # noqa: ASYNC109
        decoded = None if body is None else json.loads(body)
        now = asyncio.get_running_loop().time()
        self.requests.append(Request(method, path, dict(params or {}), dict(headers or {}), decoded, timeout, now))
        if not self.script:
            await asyncio.get_running_loop().create_future()
        answer = self.script.popleft()
        if answer is HANG:
            await asyncio.get_running_loop().create_future()
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Answer)
        return answer

    @property
    def kinds(self) -> list[str]:
        return [request.kind for request in self.requests]


def make_client(transport: FakeTransport, **kwargs: Any) -> Client:
    """A client in the loop's (virtual) time."""
    loop = asyncio.get_running_loop()
    return Client(transport, clock=ServerClock(loop.time, lambda: 1_700_000_000.0), **kwargs)


def json_answer(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, (json.dumps(value).encode(),), {name.replace("_", "-"): text for name, text in headers.items()})


def status_answer(code: int, reason: str = "", message: str = "", causes: Any = None, **headers: str) -> Answer:
    details = {"causes": causes} if causes else None
    value = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message, "details": details}
    return json_answer(value, code, **headers)


def node(name: str, version: int | str, uid: str = "", **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version), "labels": labels}}


def bad_node(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}, "spec": {"taints": "none"}}


def node_list(version: int | str, *items: Any, more: str = "") -> Answer:
    return json_answer({"metadata": {"resourceVersion": str(version), "continue": more}, "items": list(items)})


def event(kind: str, obj: Any) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def bookmark(version: int, *, end: bool = False) -> bytes:
    annotations = {"k8s.io/initial-events-end": "true"} if end else {}
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version), "annotations": annotations}})


def error_event(code: int, reason: str) -> bytes:
    return event("ERROR", {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "no"})


def watch_list(version: int, *items: Any) -> bytes:
    """The initial part of a WatchList."""
    return b"".join(event("ADDED", item) for item in items) + bookmark(version, end=True)

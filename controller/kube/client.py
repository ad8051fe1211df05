"""The API client: verbs on typed resources, each bounded in time and paced, raising :mod:`controller.kube.errors`.

A request waits for its turn in the rate limiter, is sent with its timeout also as the server's ``?timeout=``, and comes
back as a trimmed struct or an error that says what to do. Nothing is retried here (but 401, by the transport): whether
to try again, wait or decide anew is the caller's business. Every answer's Date header teaches the server's clock
(:meth:`Client.now`).

Lists come in pages, and what cannot be decoded in them is told beside what can (:mod:`controller.kube.decoding`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Literal, TypeVar, overload

import msgspec

from controller.api.meta import KubeObject
from controller.kube import errors
from controller.kube.clock import ServerClock
from controller.kube.decoding import decode, decode_or_status
from controller.kube.errors import NetworkError, Status
from controller.kube.listoptions import ListOptions
from controller.kube.metrics import ClientMetrics, NoMetrics
from controller.kube.pager import PAGE, ListResult, all_pages
from controller.kube.ratelimiters import RateLimiter, Unlimited
from controller.kube.resources import PODS, Resource
from controller.kube.transport import Response, Stream, Transport

T = TypeVar("T", bound=KubeObject)
TIMEOUT: Final = 30.0
EVICTION_TIMEOUT: Final = 30.0
"""The server itself retries conflicts on a budget for up to 10 s; less than 15 s would cut it short."""
_MERGE_PATCH: Final = {"Content-Type": "application/merge-patch+json"}
_JSON: Final = {"Content-Type": "application/json"}
_OK: Final = range(200, 300)


class Client:
    """Talks to one API server.

    Args:
        transport: Carries the requests.
        limiter: Paces them; watches are not counted. Without one nothing is paced.
        clock: Server time; its ``monotonic`` also times requests.
        metrics: Told about every request.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        limiter: RateLimiter | None = None,
        clock: ServerClock | None = None,
        metrics: ClientMetrics | None = None,
    ) -> None:
        self._transport = transport
        self._limiter = limiter or Unlimited()
        self._metrics = metrics or NoMetrics()
        self.clock = clock or ServerClock(time.monotonic)

    def now(self) -> float:
        """Server time in seconds since the epoch."""
        return self.clock.now()

    def through(self, gate: Callable[[Transport], Transport]) -> "Client":
        """Return a client of the same server, in the same lane, whose requests pass a gate before they are sent."""
        return Client(gate(self._transport), limiter=self._limiter, clock=self.clock, metrics=self._metrics)

    def paced_by(self, limiter: RateLimiter) -> "Client":
        """Return a client of the same server whose requests wait for another limiter: a lane of its own."""
        return Client(self._transport, limiter=limiter, clock=self.clock, metrics=self._metrics)

    async def in_turn(self, verb: str) -> "Client":
        """Wait for the turn of one request of this verb; the client returned sends it without waiting.

        For a request whose reason may pass while it waits: it is looked at once more when its turn has come.
        """
        await self._take_turn(verb)
        return self.paced_by(Unlimited())

    async def get(self, resource: Resource[T], name: str, namespace: str = "", *, resource_version: str | None = None) -> T:
        """Read one object; a resource_version of ``"0"`` allows the server's cache, None reads what is newest.

        Raises:
            ApiError: NotFound and the others.
            NetworkError: No answer.
        """
        params = {} if resource_version is None else {"resourceVersion": resource_version}
        return decode(resource, await self._send("GET", resource, resource.path(namespace, name), params=params))

    async def look_up(self, resource: Resource[T], name: str, namespace: str = "") -> T | None:
        """Read what is newest of one object, None where there is none, with no more than leave to list.

        For what is read again rarely, of resources whose informers list them anyway: no role has to grant ``get``.

        Raises:
            ApiError: Any refusal.
            NetworkError: No answer, or an object that cannot be decoded.
        """
        return (await self.look_up_at(resource, name, namespace))[0]

    async def look_up_at(self, resource: Resource[T], name: str, namespace: str = "") -> tuple[T | None, str]:
        """Do as :meth:`look_up`, and say at which version of the resource it was so."""
        found = await self.list(resource, namespace, field_selector=f"metadata.name={name}")
        if found.malformed:
            raise NetworkError(f"unreadable answer about {resource} {name}: {found.malformed[0].error}")
        return next(iter(found.items), None), found.resource_version

    async def list(
        self,
        resource: Resource[T],
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str | None = None,
        limit: int = PAGE,
    ) -> ListResult[T]:
        """Read all objects, page by page.

        Args:
            resource: What to list.
            namespace: Empty for all namespaces.
            label_selector: As in kubectl; empty for all.
            field_selector: As in kubectl; empty for all.
            resource_version: None for what is newest; else the result is at least as new as this.
            limit: Objects per page.

        Raises:
            Gone: The given resource_version cannot be served.
            ApiError: Any other refusal.
            NetworkError: No answer.
        """
        params = ListOptions(label_selector=label_selector, field_selector=field_selector).selectors()
        if resource_version is not None:
            params |= {"resourceVersion": resource_version, "resourceVersionMatch": "NotOlderThan"}

        def get(page: Mapping[str, str]) -> Awaitable[Response]:
            return self._send("GET", resource, resource.path(namespace), verb="LIST", params=page)

        return await all_pages(get, resource, params, limit)

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource[Any],
        namespace: str = "",
        *,
        params: Mapping[str, str],
        timeout: float,  # noqa: ASYNC109 - the life of the stream, told to the server as well
    ) -> AsyncIterator[Stream]:
        """Open a watch and hand out its stream once the server has accepted it.

        Raises:
            ApiError: The server refused.
            NetworkError: No answer within :data:`TIMEOUT`; also from the stream.
        """
        sent = self.clock.monotonic()
        code, refusal = "<error>", None
        async with AsyncExitStack() as stack:
            opened = self._transport.stream(
                "GET", resource.path(namespace), params={"watch": "1", **params}, timeout=timeout
            )
            try:
                async with asyncio.timeout(TIMEOUT):
                    stream = await stack.enter_async_context(opened)
                    code = str(stream.status)
                    if stream.status not in _OK:
                        refusal = errors.from_response(stream.status, stream.headers, await stream.body())
            except TimeoutError:
                raise NetworkError(f"watch of {resource}: no answer for {TIMEOUT:g} s") from None
            finally:
                self._count("WATCH", resource, code, sent)
            if refusal is not None:
                raise refusal
            yield stream

    async def patch(
        self, resource: Resource[T], name: str, body: Mapping[str, Any], *, namespace: str = "", subresource: str = ""
    ) -> T:
        """Merge-patch one object. A ``metadata.resourceVersion`` in the body is a precondition (else Conflict)."""
        path = resource.path(namespace, name, subresource)
        return decode(resource, await self._send("PATCH", resource, path, body=body, headers=_MERGE_PATCH))

    async def update(self, resource: Resource[T], name: str, body: Any, *, namespace: str = "", subresource: str = "") -> T:
        """Replace one object; the body carries the resourceVersion that it was made from (else Conflict)."""
        path = resource.path(namespace, name, subresource)
        return decode(resource, await self._send("PUT", resource, path, body=body))

    @overload
    async def create(
        self, resource: Resource[T], body: Any, namespace: str = "", name: str = "", subresource: Literal[""] = ""
    ) -> T: ...
    @overload
    async def create(
        self, resource: Resource[T], body: Any, namespace: str = "", name: str = "", subresource: str = ""
    ) -> T | Status: ...
    async def create(
        self, resource: Resource[T], body: Any, namespace: str = "", name: str = "", subresource: str = ""
    ) -> T | Status:
        """Create an object, or with name and subresource one of its subresources (whose answer is often a Status)."""
        path = resource.path(namespace, name, subresource)
        return decode_or_status(resource, await self._send("POST", resource, path, body=body))

    async def delete(
        self, resource: Resource[T], name: str, namespace: str = "", *, uid: str, grace_period_seconds: int | None = None
    ) -> T | None:
        """Delete the object of that name only if it is still the one of that uid.

        Returns:
            The object, where it takes a while to go (finalizers, grace); None where it is gone.

        Raises:
            Conflict: Another object has the name now: the one meant is gone.
            NotFound: It is gone.
        """
        body = _delete_options(uid, grace_period_seconds)
        response = await self._send("DELETE", resource, resource.path(namespace, name), body=body)
        answer = decode_or_status(resource, response)
        return None if isinstance(answer, Status) else answer

    async def evict(
        self,
        name: str,
        namespace: str,
        uid: str,
        grace_period_seconds: int | None = None,
        timeout: float = EVICTION_TIMEOUT,  # noqa: ASYNC109 - of the request
    ) -> None:
        """Ask the Eviction API to evict exactly this pod. Success means accepted, not gone.

        Raises:
            TooManyRequests: With cause DisruptionBudget: a budget does not allow it now. Without: throttled.
            Conflict: The pod, or its budget, changed meanwhile.
            ApiError: Any other refusal, webhooks' included.
        """
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": _delete_options(uid, grace_period_seconds),
        }
        path = PODS.path(namespace, name, "eviction")
        await self._send("POST", PODS, path, verb="EVICT", body=eviction, timeout=timeout)

    async def _send(
        self,
        method: str,
        resource: Resource[Any],
        path: str,
        *,
        verb: str = "",
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] = _JSON,
        body: Any = None,
        timeout: float = TIMEOUT,  # noqa: ASYNC109 - of the request
    ) -> Response:
        await self._take_turn(verb or method)
        sent = self.clock.monotonic()
        code = "<error>"
        try:
            response = await self._transport.request(
                method,
                path,
                params={**(params or {}), "timeout": f"{timeout:g}s"},
                headers={} if body is None else headers,
                body=None if body is None else msgspec.json.encode(body),
                timeout=timeout,
            )
            code = str(response.status)
        finally:
            self._count(verb or method, resource, code, sent)
        self.clock.observe(response.headers.get("Date", ""), sent, self.clock.monotonic())
        if response.status not in _OK:
            raise errors.from_response(response.status, response.headers, response.body)
        return response

    async def _take_turn(self, verb: str) -> None:
        asked = self.clock.monotonic()
        await self._limiter.wait()
        self._metrics.throttled(verb, self.clock.monotonic() - asked)

    def _count(self, verb: str, resource: Resource[Any], code: str, started: float) -> None:
        self._metrics.request(verb, resource.plural, code, self.clock.monotonic() - started)


def _delete_options(uid: str, grace_period_seconds: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
    if grace_period_seconds is not None:
        options["gracePeriodSeconds"] = grace_period_seconds
    return options

"""A small admin client of the Kubernetes API for tests, demo and benchmarks: raw JSON in, raw JSON out.

It shares nothing with the controller, so that a test judges the controller from outside. Waiting is done on watches:
`wait_for` holds the current objects, looks at them after every event, and gives up at a deadline; nothing is polled.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal, Self, TypeVar

import aiohttp
import orjson
import yaml

from tools.controlplane.kubeconfig import Access
from tools.controlplane.resources import PODS, SERVICE_ACCOUNTS, Object, Objects, Resource, key

T = TypeVar("T")
PatchType = Literal["merge", "json", "strategic", "apply"]
USER_AGENT = "driver-upgrade-tools"
FIELD_MANAGER = "driver-upgrade-tools"
_CONTENT_TYPES: Mapping[PatchType, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=30)
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30)
PATIENCE = 120.0
"""Seconds until a wait is given up. It is there to end what hangs: how slow a machine is must not decide anything."""
_RETRY_DELAY = 0.2
_GONE = 410
_NOT_FOUND = 404
_NOT_YET = 429  # "storage is (re)initializing", as of a CRD after a restart: it passes


class ApiError(Exception):
    """The API server refused: its status code, reason and message."""

    def __init__(self, code: int, status: Mapping[str, Any], request: str) -> None:
        self.code = code
        self.reason = str(status.get("reason", ""))
        self.message = str(status.get("message", ""))
        self.status = status
        super().__init__(f"{request}: {code} {self.reason}: {self.message}")


class Api:
    """The client; use it as an async context manager. Objects are dictionaries as the API server sends them."""

    def __init__(self, access: Access, *, user_agent: str = USER_AGENT) -> None:
        self._access = access
        self._ssl: ssl.SSLContext = access.ssl_context()
        self._user_agent = user_agent
        self._opened: aiohttp.ClientSession | None = None
        self._known: dict[tuple[str, str], Resource] = {}

    async def __aenter__(self) -> Self:
        headers = {"User-Agent": self._user_agent, "Accept": "application/json"}
        if self._access.token:
            headers["Authorization"] = f"Bearer {self._access.token}"
        connector = aiohttp.TCPConnector(ssl=self._ssl, limit=0)
        self._opened = aiohttp.ClientSession(self._access.server, connector=connector, headers=headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._opened is not None
        await self._opened.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The HTTP session, for requests that this class does not know."""
        assert self._opened is not None, "use `async with Api(...)`"
        return self._opened

    async def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", **query: str
    ) -> Object:
        """Sends one request and returns the decoded answer (`{}` for an empty one).

        Raises:
            ApiError: any answer of 400 and above.
        """
        data = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": content_type} if data is not None else None
        async with self.session.request(
            method, path, data=data, headers=headers, params=query, timeout=_REQUEST_TIMEOUT
        ) as response:
            return _decoded(response.status, await response.read(), f"{method} {path}")

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        """Reads one object."""
        return await self.request("GET", resource.path(namespace, name))

    async def list(self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "") -> Objects:
        """Lists objects; the selectors have kubectl's syntax."""
        listing = await self._list(resource, namespace, labels, fields)
        items: Objects = listing["items"]
        return items

    async def _list(self, resource: Resource, namespace: str, labels: str, fields: str) -> Object:
        return await self.request("GET", resource.path(namespace), **_selectors(labels, fields))

    async def create(self, obj: Object, *, strict: bool = True) -> Object:
        """Creates an object; `strict` refuses unknown fields as kubectl does."""
        resource = await self.resource(obj["apiVersion"], obj["kind"])
        path = resource.path(_namespace(resource, obj))
        return await self.request("POST", path, obj, fieldValidation="Strict" if strict else "Ignore")

    async def create_many(self, objects: Iterable[Object], parallel: int = 40) -> Objects:
        """Creates objects with `parallel` requests at a time; the results are in the order of the objects."""
        semaphore = asyncio.Semaphore(parallel)

        async def one(obj: Object) -> Object:
            async with semaphore:
                return await self.create(obj)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(obj)) for obj in objects]
        return [task.result() for task in tasks]

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Any,
        namespace: str = "",
        *,
        kind: PatchType = "merge",
        subresource: str = "",
    ) -> Object:
        """Patches an object or one of its subresources; `kind` says how `body` is meant."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"} if kind == "apply" else {}
        return await self.request("PATCH", resource.path(namespace, name, subresource), body, _CONTENT_TYPES[kind], **query)

    async def delete(
        self, resource: Resource, name: str, namespace: str = "", *, grace: int | None = None, uid: str = ""
    ) -> Object:
        """Deletes an object: `grace` in seconds (0 is at once, None the object's own), `uid` as a precondition."""
        options: Object = {} if grace is None else {"gracePeriodSeconds": grace}
        if uid:
            options["preconditions"] = {"uid": uid}
        return await self.request("DELETE", resource.path(namespace, name), options)

    async def evict(self, name: str, namespace: str, *, uid: str = "") -> Object:
        """Evicts a pod; a budget that does not allow it raises ApiError with code 429."""
        options = {"deleteOptions": {"preconditions": {"uid": uid}}} if uid else {}
        metadata = {"name": name, "namespace": namespace}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata, **options}
        return await self.request("POST", PODS.path(namespace, name, "eviction"), body)

    async def apply(self, manifests: str | Iterable[Object]) -> Objects:
        """Applies objects, or a text with any number of YAML documents, server-side and in order.

        Unknown fields are refused. A CRD among them is waited for, so that its objects may follow in the same text.
        """
        documents = yaml.safe_load_all(manifests) if isinstance(manifests, str) else manifests
        return [await self._apply(document) for document in documents if document]

    async def _apply(self, obj: Object) -> Object:
        resource = await self.resource(obj["apiVersion"], obj["kind"])
        path = resource.path(_namespace(resource, obj), obj["metadata"]["name"])
        query = {"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Strict"}
        applied = await self.request("PATCH", path, obj, _CONTENT_TYPES["apply"], **query)
        if resource.kind == "CustomResourceDefinition":
            applied = await self.wait_for_object(resource, obj["metadata"]["name"], _established)
            await self._discovered(obj)
        return applied

    async def _discovered(self, crd: Object) -> None:
        """Waits until an established CRD's kind is known to discovery and listed; nothing announces that."""
        spec = crd["spec"]
        version = next(one["name"] for one in spec["versions"] if one["served"])
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    found = await self.resource(f"{spec['group']}/{version}", spec["names"]["kind"])
                    await self.request("GET", found.path(), limit="1")
                    return
                except ApiError as error:
                    if error.code not in {_NOT_FOUND, _NOT_YET}:
                        raise
                    await asyncio.sleep(_RETRY_DELAY)

    async def resource(self, api_version: str, kind: str) -> Resource:
        """How the API server serves a kind, from its discovery.

        Raises:
            ApiError: 404, there is no such kind.
        """
        if (api_version, kind) not in self._known:
            root = "/api/v1" if api_version == "v1" else f"/apis/{api_version}"
            for entry in (await self.request("GET", root))["resources"]:
                if "/" not in entry["name"]:
                    found = Resource(api_version, entry["name"], entry["kind"], entry["namespaced"])
                    self._known[api_version, entry["kind"]] = found
        if (api_version, kind) not in self._known:
            raise ApiError(
                404, {"reason": "NotFound", "message": f"{api_version} has no {kind}; apply its CRD first"}, "discovery"
            )
        return self._known[api_version, kind]

    async def service_account_token(self, name: str, namespace: str) -> str:
        """A token of a ServiceAccount, valid for an hour."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        answer = await self.request("POST", SERVICE_ACCOUNTS.path(namespace, name, "token"), body)
        return str(answer["status"]["token"])

    async def watch(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "", version: str
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Yields (ADDED | MODIFIED | DELETED, object) after a resourceVersion, for ever; resumes when the stream ends.

        Raises:
            ApiError: 410, the version is too old: list again. Anything else that the server refuses for good.
        """
        while True:
            query = {
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": version,
                **_selectors(labels, fields),
            }
            try:
                async with self.session.get(resource.path(namespace), params=query, timeout=_WATCH_TIMEOUT) as response:
                    if response.status >= 400:  # noqa: PLR2004
                        _decoded(response.status, await response.read(), f"WATCH {resource.plural}")
                    async for line in _lines(response.content):
                        kind, obj = _event(line, resource)
                        version = obj["metadata"]["resourceVersion"]
                        if kind != "BOOKMARK":
                            yield kind, obj
            except ApiError as error:
                if error.code != _NOT_YET:
                    raise
                await asyncio.sleep(_RETRY_DELAY)
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(_RETRY_DELAY)  # the server is away; the caller's deadline bounds the waiting

    async def follow(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[dict[str, Object], None]:
        """Yields all objects by key (`namespace/name`) now and after every change, for ever. The dictionary is reused."""
        objects: dict[str, Object] = {}
        while True:
            try:
                listing = await self._list(resource, namespace, labels, fields)
                objects.clear()
                objects |= {key(obj): obj for obj in listing["items"]}
                yield objects
                version = listing["metadata"]["resourceVersion"]
                async with aclosing(
                    self.watch(resource, namespace, labels=labels, fields=fields, version=version)
                ) as events:
                    async for kind, obj in events:
                        if kind == "DELETED":
                            objects.pop(key(obj), None)
                        else:
                            objects[key(obj)] = obj
                        yield objects
            except ApiError as error:
                if error.code not in {_GONE, _NOT_YET} and error.code < 500:  # noqa: PLR2004
                    raise
                await asyncio.sleep(_RETRY_DELAY)
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(_RETRY_DELAY)

    async def wait_for(
        self,
        resource: Resource,
        predicate: Callable[[Sequence[Object]], T],
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        timeout: float = PATIENCE,  # noqa: ASYNC109
        what: str = "",
    ) -> T:
        """Waits until `predicate`, given all selected objects, returns something true, and returns that.

        Raises:
            TimeoutError: not within `timeout` seconds; the message has `what` and the objects as they were last.
        """
        objects: dict[str, Object] = {}
        try:
            async with (
                asyncio.timeout(timeout),
                aclosing(self.follow(resource, namespace, labels=labels, fields=fields)) as states,
            ):
                async for objects in states:
                    if result := predicate(list(objects.values())):
                        return result
        except TimeoutError:
            raise TimeoutError(f"{what or resource.plural}: not within {timeout:g} s; now:\n{_summary(objects)}") from None
        raise AssertionError("follow never ends")

    async def wait_for_object(
        self,
        resource: Resource,
        name: str,
        predicate: Callable[[Object], object],
        namespace: str = "",
        *,
        timeout: float = PATIENCE,  # noqa: ASYNC109
        what: str = "",
    ) -> Object:
        """Waits until one object exists and satisfies `predicate`; returns it.

        Raises:
            TimeoutError: not within `timeout` seconds.
        """
        return await self.wait_for(
            resource,
            lambda objects: next((obj for obj in objects if predicate(obj)), {}),
            namespace,
            fields=f"metadata.name={name}",
            timeout=timeout,
            what=what or f"{resource.kind} {name}",
        )

    async def wait_gone(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        timeout: float = PATIENCE,  # noqa: ASYNC109
    ) -> None:
        """Waits until an object (of this uid, where given) is there no more.

        Raises:
            TimeoutError: not within `timeout` seconds.
        """
        await self.wait_for(
            resource,
            lambda objects: all(uid and obj["metadata"]["uid"] != uid for obj in objects),
            namespace,
            fields=f"metadata.name={name}",
            timeout=timeout,
            what=f"{resource.kind} {name} gone",
        )


def _decoded(status: int, content: bytes, request: str) -> Object:
    if status < 400:  # noqa: PLR2004
        return dict(orjson.loads(content)) if content else {}
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        answer = {"message": content[:500].decode(errors="replace")}
    raise ApiError(status, answer, request)


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length; the stream's own iterator refuses those above its buffer."""
    rest = b""
    async for chunk in stream.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


def _event(line: bytes, resource: Resource) -> tuple[str, Object]:
    event = orjson.loads(line)
    obj: Object = event["object"]
    if event["type"] == "ERROR":
        raise ApiError(int(obj.get("code", 500)), obj, f"WATCH {resource.plural}")
    return str(event["type"]), obj


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {name: value for name, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}


def _namespace(resource: Resource, obj: Object) -> str:
    return str(obj["metadata"].get("namespace", "default")) if resource.namespaced else ""


def _established(crd: Object) -> bool:
    conditions = crd.get("status", {}).get("conditions") or ()  # null for a moment after the creation
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def _summary(objects: Mapping[str, Object]) -> str:
    shown = [f"{name}: {orjson.dumps(obj.get('status', {})).decode()[:300]}" for name, obj in list(objects.items())[:8]]
    return "\n".join(shown + [f"… {len(objects)} in all"] * (len(objects) > len(shown))) or "(nothing)"

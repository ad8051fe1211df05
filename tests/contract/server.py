"""One API server to be judged, through the controller's own seam: a Transport and a Client over it.

A case is a coroutine that takes a :class:`Server`; :func:`contract` makes a test of it, which pytest runs once against the
simulator's API server in virtual time and once against the real one. A case says nothing about which it talks to. The
cluster's controllers run beside it: what they are not to meddle with is bound to a node without a kubelet, and what they
are to do is asked of a :class:`Cluster`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol

import orjson

from controller.kube.client import Client
from controller.kube.transport import Transport
from controller.kube.watch import LineSplitter

Obj = dict[str, Any]
Case = Callable[["Server"], Awaitable[None]]
TIMEOUT = 60.0
PATCH_TYPE = {"Content-Type": "application/merge-patch+json"}
JSON_TYPE = {"Content-Type": "application/json"}
_PATHS = {
    "pods": "/api/v1/namespaces/{}/pods",
    "budgets": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "leases": "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
    "revisions": "/apis/apps/v1/namespaces/{}/controllerrevisions",
    "policies": "/apis/nvidia.com/v1/namespaces/{}/driverupgradepolicies",
    "events": "/apis/events.k8s.io/v1/namespaces/{}/events",
    "daemonsets": "/apis/apps/v1/namespaces/{}/daemonsets",
}
OWN = "contract.driver-upgrade.test/namespace"
"""Label of the nodes that a case lets join: its namespace, where pods that are for them say so in their nodeSelector."""


class Answer(NamedTuple):
    """A decoded answer."""

    code: int
    headers: Mapping[str, str]
    obj: Obj


class Cluster(Protocol):
    """What is asked of a cluster by other ways than its API, or in other words."""

    async def expire(self) -> None:
        """Make the server forget all history until now."""

    async def join(self) -> str:
        """Let a node with a kubelet join; returns its name once it is Ready."""

    async def deploy(self, name: str, replicas: int) -> None:
        """Let so many pods with the label ``app=<name>`` run on nodes that joined, of a controller that replaces them."""


class Server:
    """An API server, a namespace of the case's own in it, and a node that no kubelet answers for.

    Args:
        transport: The way there.
        namespace: Exists already; removed by whoever made it.
        node: Exists already.
        cluster: What stands around the server.
    """

    def __init__(self, transport: Transport, namespace: str, node: str, cluster: Cluster) -> None:
        self.transport = transport
        self.client = Client(transport)
        self.namespace = namespace
        self.node = node
        self.cluster = cluster
        self.expire = cluster.expire

    def path(self, what: str, name: str = "", sub: str = "") -> str:
        """Of a collection in the case's namespace, one of its objects, or its subresource."""
        return "/".join(part for part in (_PATHS[what].format(self.namespace), name, sub) if part)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, str] = {},
    ) -> Answer:
        """Send a request and decode its answer, whatever its status."""
        kind = PATCH_TYPE if method == "PATCH" else JSON_TYPE
        data = None if body is None else orjson.dumps(body)
        got = await self.transport.request(method, path, params=params, headers=kind, body=data, timeout=TIMEOUT)
        return Answer(got.status, got.headers, orjson.loads(got.body))

    async def get(self, path: str, **params: str) -> Answer:
        """GET one object or a list."""
        return await self.ask("GET", path, params=params)

    async def create(self, what: str, obj: Obj) -> Obj:
        """Create an object that must be accepted."""
        answer = await self.ask("POST", self.path(what), obj)
        assert answer.code == 201, answer
        return answer.obj

    async def patch(self, what: str, name: str, body: Obj, sub: str = "") -> Obj:
        """Merge-patch an object, which must be accepted."""
        answer = await self.ask("PATCH", self.path(what, name, sub), body)
        assert answer.code == 200, answer
        return answer.obj

    async def evict(self, name: str, options: Obj | None = None, **extra: Any) -> Answer:
        """POST an Eviction."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": self.namespace}}
        return await self.ask("POST", self.path("pods", name, "eviction"), {**body, "deleteOptions": options or {}, **extra})

    async def version(self, what: str = "leases") -> str:
        """The resourceVersion of a collection now."""
        return str((await self.get(self.path(what))).obj["metadata"]["resourceVersion"])

    async def watch(self, path: str, version: str = "", **params: str) -> AsyncIterator[Obj]:
        """Yield the events of a watch; the case's time-out bounds it."""
        query = {"watch": "1", **({"resourceVersion": version} if version else {}), **params}
        splitter = LineSplitter()
        async with self.transport.stream("GET", path, params=query, timeout=TIMEOUT) as stream:
            if stream.status != 200:
                yield {"type": "REFUSED", "code": stream.status, "object": orjson.loads(await stream.body())}
                return
            async for chunk in stream.chunks():
                for line in splitter.feed(chunk):
                    yield orjson.loads(line)

    async def events(self, count: int, path: str, version: str = "", **params: str) -> list[Obj]:
        """The first events of a watch; bookmarks count only where they were asked for."""
        found: list[Obj] = []
        async with aclosing(self.watch(path, version, **params)) as stream:  # type: ignore[type-var]
            async for event in stream:
                found.append(event)
                if len(found) == count:
                    return found
        return found

    async def events_until(self, last: str, path: str, version: str) -> list[Obj]:
        """The events of a watch up to one of a type. A cache that is still being filled asks to be tried again (429)."""
        while True:
            found: list[Obj] = []
            async with aclosing(self.watch(path, version)) as stream:  # type: ignore[type-var]
                async for event in stream:
                    found.append(event)
                    if event["type"] == last:
                        return found
            assert found[-1].get("code") == 429, found
            await asyncio.sleep(1.0)

    async def until(self, what: str, name: str, holds: Callable[[Obj], object]) -> Obj:
        """Wait on a watch until an object satisfies a predicate."""
        async with aclosing(self.watch(self.path(what), fieldSelector=f"metadata.name={name}")) as stream:  # type: ignore[type-var]
            async for event in stream:
                if event["type"] in {"ADDED", "MODIFIED"} and holds(event["object"]):
                    return dict(event["object"])
        raise AssertionError(f"{what}/{name}: not within {TIMEOUT:g} s")

    async def until_all(self, what: str, holds: Callable[[list[Obj]], object], labels: str = "") -> list[Obj]:
        """Wait on a list and a watch until all objects together, of these labels, satisfy a predicate."""
        there = (await self.get(self.path(what), labelSelector=labels)).obj
        found = {obj["metadata"]["name"]: obj for obj in there["items"]}
        version = there["metadata"]["resourceVersion"]
        if holds([*found.values()]):
            return [*found.values()]
        async with aclosing(self.watch(self.path(what), version, labelSelector=labels)) as stream:  # type: ignore[type-var]
            async for event in stream:
                assert event["type"] in {"ADDED", "MODIFIED", "DELETED"}, event
                name = event["object"]["metadata"]["name"]
                found.pop(name, None)
                if event["type"] != "DELETED":
                    found[name] = event["object"]
                if holds([*found.values()]):
                    return [*found.values()]
        raise AssertionError(f"{what}: not within {TIMEOUT:g} s: {found}")


class Runner(Protocol):
    """Runs cases against one server."""

    def run(self, case: Case) -> None:
        """Run a case in an event loop and a namespace of its own."""


def contract(case: Case) -> Callable[[Runner], None]:
    """A test that runs a case against whichever server the fixture ``runner`` stands for."""

    def test(runner: Runner) -> None:
        runner.run(case)

    test.__doc__, test.__name__, test.__qualname__, test.__module__ = (
        case.__doc__,
        case.__name__,
        case.__name__,
        case.__module__,
    )
    return test


def lease(name: str, holder: str = "a", **labels: str) -> Obj:
    """A Lease: small, and no controller of the cluster touches it."""
    meta = {"name": name, "labels": labels}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": meta,
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15},
    }


def pod(name: str, node: str = "", *, grace: int = 30, finalizers: tuple[str, ...] = (), **labels: str) -> Obj:
    """A pod on a node without a kubelet, or on none for ever."""
    spec: Obj = {
        "containers": [{"name": "main", "image": "local/work:1"}],
        "terminationGracePeriodSeconds": grace,
        "schedulerName": "nobody",
    }
    if node:
        spec["nodeName"] = node
    meta = {"name": name, "labels": labels, "finalizers": list(finalizers)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def running() -> Obj:
    """The status that a kubelet would report of a ready pod."""
    started = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    state = {"name": "main", "ready": True, "restartCount": 0, "image": "x", "imageID": "x", "state": started}
    ready = {"type": "Ready", "status": "True"}
    return {"status": {"phase": "Running", "conditions": [ready], "containerStatuses": [state]}}


def budget(name: str, available: int, **labels: str) -> Obj:
    """A PodDisruptionBudget."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "minAvailable": available},
    }


def policy(name: str, **upgrade: Any) -> Obj:
    """Our own kind, with no more than it needs."""
    driver = {"podSelector": {"matchLabels": {"app": "driver"}}, "upgradePolicy": upgrade}
    return {
        "apiVersion": "nvidia.com/v1",
        "kind": "DriverUpgradePolicy",
        "metadata": {"name": name},
        "spec": {"driver": driver},
    }

"""Records, from watches, every version of the nodes and pods of a test: what was true at any moment can be asked later.

resourceVersions of one API server on one etcd count all writes of all resources in one order; only a test may rely on it.
"""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from controller.upgrade.states import EDGES, IN_PROGRESS, PEER_STATES, State
from tests.cluster.evidence import raise_from
from tools.controlplane import scene
from tools.controlplane.api import PATIENCE, Api
from tools.controlplane.resources import NODES, PODS, Object, Resource

_MARK = "driver-upgrade.test/mark"


@dataclass(frozen=True)
class Sight:
    """A node as it was from one version on."""

    version: int
    node: str
    state: str
    unschedulable: bool
    annotations: dict[str, str]


@dataclass(frozen=True)
class Departure:
    """The begin of a pod's end."""

    version: int
    name: str
    node: str
    namespace: str
    owner: str
    """Kind of its controller; empty for a bare pod."""


class Recorder:
    """Watches the nodes of one pool and the pods of some namespaces from its start; an async context manager."""

    def __init__(self, api: Api, pool: str, state_label: str, namespaces: tuple[str, ...]) -> None:
        self._api = api
        self._labels = f"pool={pool}"
        self._state_label = state_label
        self._namespaces = namespaces
        self._tasks: list[asyncio.Task[None]] = []
        self._marks = 0
        self._news = asyncio.Event()
        self.sights: list[Sight] = []
        self._away: list[tuple[int, str]] = []
        """From which version on a node is there no more, until its next sight."""
        self.departures: dict[str, Departure] = {}
        """By uid, in the order of the versions of each namespace."""
        self._seen: set[str] = set()

    async def __aenter__(self) -> Self:
        self._tasks.append(await self._begin(NODES, "", self._labels))
        for namespace in self._namespaces:
            self._tasks.append(await self._begin(PODS, namespace, ""))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def caught_up(self) -> None:
        """Waits until everything that has happened is recorded: each watch shows a mark that is made now."""
        self._marks += 1
        for node in (await self._api.list(NODES, labels=self._labels))[:1]:
            mark = {"metadata": {"annotations": {_MARK: str(self._marks)}}}
            changed = await self._api.patch(NODES, node["metadata"]["name"], mark)
            await self._shown(f"{changed['metadata']['uid']}@{changed['metadata']['resourceVersion']}")
        for namespace in self._namespaces:
            pod = scene.pod(f"mark-{self._marks}", namespace, spec=scene.pod_spec() | {"schedulerName": "nobody"})
            metadata = (await self._api.create(pod))["metadata"]
            await self._shown(f"{metadata['uid']}@{metadata['resourceVersion']}")

    async def forget(self) -> None:
        """Forgets how the nodes came to be as they are: it was not the controller's doing."""
        await self.caught_up()
        latest = {sight.node: sight for sight in self.sights}
        self.sights[:] = latest.values()

    def states(self, node: str) -> list[str]:
        """The states that a node went through, each once a stay."""
        seen = [sight.state for sight in self.sights if sight.node == node]
        return [state for n, state in enumerate(seen) if n == 0 or state != seen[n - 1]]

    def most_in_progress(self) -> int:
        """How many nodes were in progress at the same time, at the worst."""
        now: dict[str, bool] = {}
        most = 0
        for sight in self.sights:
            now[sight.node] = sight.state in IN_PROGRESS
            most = max(most, sum(now.values()))
        return most

    def first(self, node: str, **fields: object) -> Sight:
        """The first sight of a node with these fields."""
        wanted = fields.items()
        return next(s for s in self.sights if s.node == node and all(getattr(s, k) == v for k, v in wanted))

    def at(self, node: str, version: int) -> Sight:
        """A node as it was at a version."""
        return [s for s in self.sights if s.node == node and s.version <= version][-1]

    def left(self, namespace: str) -> dict[str, Departure]:
        """Pods of a namespace that have begun to end, by uid; the recorder's own apart."""
        return {uid: d for uid, d in self.departures.items() if d.namespace == namespace and not d.name.startswith("mark-")}

    def check_edges(self) -> None:
        """Every node went only along the edges of the state diagram.

        Putting a node back takes its label off, and a label that somebody else took off is restored. What others wrote
        is to be forgotten first.
        """
        for node in {sight.node for sight in self.sights}:
            before = ""
            for old, new in pairwise(self.states(node)):
                of, to = State(PEER_STATES.get(old, old)), State(PEER_STATES.get(new, new))
                is_edge = not to or to is of or to in EDGES[of] or (not of and new == before)
                assert is_edge, f"{node} went from {old or 'unknown'} to {new}"
                before = old

    def check_departures(self, namespace: str) -> None:
        """No pod of a controller began to leave a node of ours that was open for new ones.

        Of a node that is there no more, the pod garbage collector deletes the pods, a minute later.
        """
        for departure in self.left(namespace).values():
            if departure.node and departure.owner and self._is_there(departure.node, departure.version):
                assert self.at(departure.node, departure.version).unschedulable, f"{departure} while schedulable"

    def _is_there(self, node: str, version: int) -> bool:
        """Whether a node existed at a version."""
        deleted = max((at for at, name in self._away if name == node and at <= version), default=0)
        return self.at(node, version).version > deleted

    async def _begin(self, resource: Resource, namespace: str, labels: str) -> asyncio.Task[None]:
        query = {"labelSelector": labels} if labels else {}
        listing = await self._api.request("GET", resource.path(namespace), **query)
        version = listing["metadata"]["resourceVersion"]
        for obj in listing["items"]:
            self._take(resource, "ADDED", obj)
        follow = self._follow(resource, namespace, labels, version)
        task = asyncio.create_task(follow, name=f"recorder of {resource.plural}")
        task.add_done_callback(lambda _: self._news.set())
        return task

    async def _follow(self, resource: Resource, namespace: str, labels: str, version: str) -> None:
        async with aclosing(self._api.watch(resource, namespace, labels=labels, version=version)) as events:
            async for kind, obj in events:
                self._take(resource, kind, obj)
                self._seen.add(f"{obj['metadata']['uid']}@{obj['metadata']['resourceVersion']}")
                self._news.set()

    async def _shown(self, what: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while what not in self._seen:
                raise_from(self._tasks)
                self._news.clear()
                await self._news.wait()

    def _take(self, resource: Resource, kind: str, obj: Object) -> None:
        if resource is PODS:
            self._pod(kind, obj)
        elif kind == "DELETED":
            self._away.append((int(obj["metadata"]["resourceVersion"]), obj["metadata"]["name"]))
        else:
            meta = obj["metadata"]
            state = meta["labels"].get(self._state_label, "")
            unschedulable = bool(obj["spec"].get("unschedulable"))
            version = int(meta["resourceVersion"])
            self.sights.append(Sight(version, meta["name"], state, unschedulable, meta.get("annotations", {})))

    def _pod(self, kind: str, obj: Object) -> None:
        meta = obj["metadata"]
        if meta["uid"] not in self.departures and (kind == "DELETED" or meta.get("deletionTimestamp")):
            owner = next((o["kind"] for o in meta.get("ownerReferences", ()) if o.get("controller")), "")
            node = obj["spec"].get("nodeName", "")
            found = Departure(int(meta["resourceVersion"]), meta["name"], node, meta["namespace"], owner)
            self.departures[meta["uid"]] = found

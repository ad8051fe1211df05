"""The admission fence around a controller of the test's own, and what a thief of its token would be up against."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, NamedTuple, Self

from tests.controlplane import namespace_ready
from tools import manifests
from tools.account import Account, Replica
from tools.controlplane import scene
from tools.controlplane.api import PATIENCE, Api, ApiError
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import LEASES, NAMESPACES, NODES, PODS, SERVICE_ACCOUNTS, Object, Objects
from tools.manifests import FENCE, NAME, Place

STAYS = "lease-stays"
"""In the names of what lets nobody delete the Lease: taken away last, it tells when all is gone."""
LEADER = "only the pod that holds the Lease may write"
STATE, RECORD = "nvidia.com/gpu-driver-upgrade-state", "nvidia.com/gpu-driver-upgrade.record"
_PATCH = {"merge": "application/merge-patch+json", "json": "application/json-patch+json"}


class Call(NamedTuple):
    """One request to the API server. Sent with dryRun, it goes through all of admission and changes nothing."""

    method: str
    path: str
    body: Any = None
    content_type: str = "application/json"

    async def by(self, user: Api, *, dry: bool = True) -> Object:
        """Sends it; raises ApiError where it is refused."""
        body, query = self.body, {"dryRun": "All"} if dry and self.method != "GET" else {}
        if dry and self.method == "DELETE":
            body = {**(body or {}), "dryRun": ["All"]}  # of a deletion, the query counts only where there is no body
        return await user.request(self.method, self.path, body, self.content_type, **query)


def patched(path: str, body: Any, kind: str = "merge") -> Call:
    """A PATCH."""
    return Call("PATCH", path, body, _PATCH[kind])


def deleted(path: str, uid: str = "") -> Call:
    """A DELETE, of this uid alone where it is given."""
    return Call("DELETE", path, {"preconditions": {"uid": uid}} if uid else {})


def evicted(pod: Object, *, uid: bool = True) -> Call:
    """An eviction, with or without the pod's uid."""
    meta = pod["metadata"]
    options = {"deleteOptions": {"preconditions": {"uid": meta["uid"]}}} if uid else {}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": meta["name"]}, **options}
    return Call("POST", PODS.path(meta["namespace"], meta["name"], "eviction"), body)


def path_of(pod: Object) -> str:
    """Where a pod is."""
    return PODS.path(pod["metadata"]["namespace"], pod["metadata"]["name"])


async def anchor(api: Api) -> None:
    """A policy that concerns nobody and stays: it keeps the API server watching Leases.

    When the last policy goes that takes Leases as parameters, the API server (1.36.3) ends its watch of them, and never
    begins it again: policies that come later are judged by Leases as they were then. docs/security.md warns of it.
    """
    name = "driver-upgrade-test-anchor"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    nowhere = {"matchLabels": {"driver-upgrade.test/nowhere": "yes"}}
    group = "admissionregistration.k8s.io/v1"
    policy = {
        "paramKind": {"apiVersion": LEASES.api_version, "kind": "Lease"},
        "matchConstraints": {"resourceRules": [rule], "namespaceSelector": nowhere},
        "validations": [{"expression": "true"}],
    }
    binding = {
        "policyName": name,
        "paramRef": {"name": name, "namespace": "default", "parameterNotFoundAction": "Allow"},
        "validationActions": ["Deny"],
    }
    kind, metadata = "ValidatingAdmissionPolicy", {"name": name}
    await api.apply(
        [
            {"apiVersion": group, "kind": kind, "metadata": metadata, "spec": policy},
            {"apiVersion": group, "kind": f"{kind}Binding", "metadata": metadata, "spec": binding},
        ]
    )


def fence_of(place: Place) -> Objects:
    """The objects of a place's fence."""
    return manifests.moved(manifests.of_kinds(manifests.built(), FENCE | {"Lease"}), place)


@asynccontextmanager
async def fence(api: Api, place: Place) -> AsyncIterator[None]:
    """Applies the fence for a controller in this place, and takes it away again.

    That is over when the API server knows: the marks of one fence refuse the controllers of later tests.
    """
    await anchor(api)
    objects = fence_of(place)
    await api.apply(objects)
    try:
        yield
    finally:
        for obj in sorted(manifests.of_kinds(objects, FENCE), key=lambda obj: STAYS in obj["metadata"]["name"]):
            resource = await api.resource(obj["apiVersion"], obj["kind"])
            await api.delete(resource, obj["metadata"]["name"])
        lease = deleted(LEASES.path(place.namespace, NAME))
        await accepted(lambda: lease.by(api), "the Lease of the election stays")


async def refused(call: Callable[[], Awaitable[object]], text: str) -> None:
    """Waits until a probe is refused for the right reason: nothing tells when a policy, or a new Lease, is in force."""
    said = "it passed"
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await call()
                    said = "it passed"
                except ApiError as error:
                    if text in error.message:
                        return
                    said = str(error)
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not refused with {text!r} within {PATIENCE:g} s: {said}") from None


async def accepted(call: Callable[[], Awaitable[object]], text: str) -> None:
    """Waits until what is refused with this text is let through; another refusal is raised."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await call()
                return
            except ApiError as error:
                if text not in error.message:
                    raise
            await asyncio.sleep(0.05)


class Fenced:
    """A node, a driver, workloads, and two replicas of the controller behind the fence; `leader` holds the Lease."""

    leader: Api
    standby: Api
    unbound: Api
    """Holds a token of the account that was issued for no pod."""
    other: Api
    """May patch nodes, and nothing more: a kubelet that was broken into, say."""

    def __init__(self, api: Api, control_plane: ControlPlane, pool: str) -> None:
        self.api = api
        self.control_plane = control_plane
        self.node = f"{pool}-node"
        self.work = f"{pool}-work"
        self.place = Place(pool, f"{pool}-drivers", pool, label="part=driver")
        self.account = Account(api, control_plane.access, self.place, control_plane.directory)
        self._stack = AsyncExitStack()
        self.replicas: list[Replica] = []
        self.lease: Object = {}
        """The Lease as `hold` left it."""

    async def __aenter__(self) -> Self:
        namespaces = (self.place.namespace, self.place.drivers, self.work)
        await self.api.apply([scene.namespace(name) for name in namespaces])
        await namespace_ready(self.api, *namespaces)
        for name in namespaces:
            self._stack.push_async_callback(self.api.delete, NAMESPACES, name)
        self._stack.push_async_callback(self.account.remove)
        await self.account.create()
        self.replicas = [await self.account.replica() for _ in range(2)]
        self.leader, self.standby = [await self._as(replica.access.token) for replica in self.replicas]
        self.unbound = await self._as(await self.account.token(None))
        await self._objects()
        self.other = await self._other()
        await self._stack.enter_async_context(fence(self.api, self.place))
        await self.settled()
        return self

    async def settled(self) -> None:
        """Makes the first replica the leader, and waits until all of the fence is in force."""
        await self.hold(self.replicas[0])
        await self._in_force()

    async def __aexit__(self, *_: object) -> None:
        for namespace in (self.place.drivers, self.work):
            await self.api.request("DELETE", PODS.path(namespace), {"gracePeriodSeconds": 0})
        await self.api.delete(NODES, self.node)
        await self._stack.aclose()

    async def hold(self, replica: Replica | None) -> None:
        """Writes a holder into the Lease, as its pod would; None for nobody."""
        identity = f"{replica.name}_{replica.uid}" if replica else None
        body = {"spec": {"holderIdentity": identity}}
        self.lease = await self.api.patch(LEASES, NAME, body, self.place.namespace)

    def held_by(self, identity: str | None) -> Call:
        """The Lease written anew with another holder, as an elector does."""
        path = LEASES.path(self.place.namespace, NAME)
        return Call("PUT", path, {**self.lease, "spec": {"holderIdentity": identity}})

    def on_node(self, body: Any) -> Call:
        """A merge patch of the node."""
        return patched(NODES.path(name=self.node), body)

    def label(self, key: str, value: str | None) -> Call:
        """A label of the node set, or removed."""
        return self.on_node({"metadata": {"labels": {key: value}}})

    def annotation(self, key: str, value: str | None) -> Call:
        """An annotation of the node set, or removed."""
        return self.on_node({"metadata": {"annotations": {key: value}}})

    async def _as(self, token: str) -> Api:
        access = replace(self.control_plane.access, token=token, certificate=None, key=None)
        return await self._stack.enter_async_context(Api(access))

    async def _objects(self) -> None:
        labels = {"pool": self.place.suffix, STATE: "upgrade-done", "example.com/kept": "yes"}
        marks = {
            "example.com/kept": "yes",
            RECORD: "{}",
            "nvidia.com/gpu-driver-upgrade-requested": "true",
            "nvidia.com/gpu-driver-upgrade-requestor-mode": "true",
        }
        made = scene.node(self.node, labels=labels, annotations=marks)
        made["spec"] = {"taints": [{"key": "example.com/kept", "effect": "PreferNoSchedule"}]}
        await self.api.create(made)
        bound, drivers = scene.pod_spec(on_node=self.node), self.place.drivers
        selector = {"pool": self.place.suffix}
        await self.api.create(scene.driver_daemon_set(name="driver", namespace=drivers, node_selector=selector))
        await self.api.create(scene.driver_daemon_set(name="agent", namespace=self.work, node_selector=selector))
        await self.api.create(scene.deployment("web", self.work, spec=scene.pod_spec() | {"nodeSelector": selector}))
        await self.api.create(scene.deployment("operator", drivers, spec=scene.pod_spec() | {"nodeSelector": selector}))
        await self.api.create(scene.pod("orphan", drivers, labels={"part": "driver"}, spec=bound))
        await self.api.create(scene.pod("stranger", drivers, labels={"app": "other"}, spec=bound))
        self.web = await self._pod("web", self.work)
        self.agent = await self._pod("agent", self.work)
        self.operator = await self._pod("operator", drivers)
        self.orphan = await self.api.get(PODS, "orphan", drivers)
        self.stranger = await self.api.get(PODS, "stranger", drivers)
        self.driver = await self.api.wait_for(
            PODS,
            lambda pods: next((p for p in pods if "ownerReferences" in p["metadata"]), {}),
            drivers,
            labels="app=driver",
        )

    async def _pod(self, app: str, namespace: str) -> Object:
        return await self.api.wait_for(PODS, lambda pods: next(iter(pods), {}), namespace, labels=f"app={app}")

    async def _other(self) -> Api:
        name, rbac = self.place.name("other"), "rbac.authorization.k8s.io"
        await self.api.apply(
            [
                {
                    "apiVersion": f"{rbac}/v1",
                    "kind": "ClusterRole",
                    "metadata": {"name": name},
                    "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]}],
                },
                {
                    "apiVersion": f"{rbac}/v1",
                    "kind": "ClusterRoleBinding",
                    "metadata": {"name": name},
                    "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
                    "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": self.work}],
                },
            ]
        )
        for kind in ("ClusterRole", "ClusterRoleBinding"):
            self._stack.push_async_callback(self.api.delete, await self.api.resource(f"{rbac}/v1", kind), name)
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        answer = await self.api.request("POST", SERVICE_ACCOUNTS.path(self.work, "default", "token"), body)
        return await self._as(answer["status"]["token"])

    async def _in_force(self) -> None:
        """Every policy, and the Lease as it is now: each is asked, by a write that it must refuse, until it does."""
        lease = LEASES.path(self.place.namespace, NAME)
        taint = self.on_node({"spec": {"taints": []}})
        await refused(lambda: self.label(STATE, "upgrade-required").by(self.standby), LEADER)
        await refused(lambda: taint.by(self.leader), "only unschedulable may be changed")
        await refused(lambda: evicted(self.web, uid=False).by(self.leader), "must say the pod's uid")
        await refused(lambda: deleted(lease).by(self.api), "the Lease of the election stays")
        await refused(lambda: self.label(STATE, "upgrade-required").by(self.other), "the controller's")
        await refused(lambda: self.held_by("somebody_else").by(self.leader), "may name only itself")
        await self.passes(self.label(STATE, "upgrade-required"))

    async def passes(self, call: Call) -> None:
        """Waits until the leader's write is let through: the policies may not know the Lease yet."""
        await accepted(lambda: call.by(self.leader), LEADER)

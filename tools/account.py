"""The controller's own account, as the manifests make it: a ServiceAccount with their permissions, and a token for each pod.

Each replica has a Pod object, which is never scheduled (nothing could run it here), and a token that is bound to it, as a
kubelet would mount one: so the API server knows the pod's name and uid of whoever uses it, and the admission fence can tell
the replicas apart.
"""

import asyncio
import itertools
from dataclasses import dataclass, replace
from pathlib import Path

from tools import manifests
from tools.controlplane import scene
from tools.controlplane.api import PATIENCE, Api, ApiError
from tools.controlplane.kubeconfig import Access
from tools.controlplane.resources import SERVICE_ACCOUNTS, Object, Objects
from tools.manifests import NAME, RBAC, Place

_NOT_FOUND = 404
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Replica:
    """One pod of the controller, and what it has been given."""

    name: str
    uid: str
    access: Access
    kubeconfig: Path

    @property
    def flags(self) -> tuple[str, str]:
        """What the Deployment tells it about itself."""
        return f"--pod-name={self.name}", f"--pod-uid={self.uid}"


class Account:
    """The account in one place; `create` and `remove` it.

    Args:
        api: the administrator.
        access: how the administrator reaches the API server.
        place: where the controller lives.
        directory: for kubeconfigs.
        folder: the kustomization whose permissions it has, those and no others.
    """

    def __init__(self, api: Api, access: Access, place: Place, directory: Path, folder: str = "base") -> None:
        self.place = place
        self._api = api
        self._access = access
        self._directory = directory
        self._folder = folder

    def objects(self) -> Objects:
        """Account and permissions, from the manifests."""
        built = manifests.built(self._folder)
        account = manifests.one(built, "ServiceAccount", NAME)
        return manifests.moved([account, *manifests.of_kinds(built, RBAC)], self.place)

    async def create(self) -> None:
        """Makes it; the namespaces must be there already."""
        await asyncio.to_thread(manifests.built, self._folder)
        async with asyncio.TaskGroup() as group:
            for obj in self.objects():
                group.create_task(self._api.apply([obj]))

    async def remove(self) -> None:
        """Takes away what would outlive the namespace."""
        for obj in self.objects():
            if "namespace" not in obj["metadata"]:
                await self._delete(obj)

    async def _delete(self, obj: Object) -> None:
        resource = await self._api.resource(obj["apiVersion"], obj["kind"])
        try:
            await self._api.delete(resource, obj["metadata"]["name"])
        except ApiError as error:
            if error.code != _NOT_FOUND:
                raise

    async def replica(self) -> Replica:
        """Another pod of the controller, with a token and a kubeconfig."""
        namespace = self.place.namespace
        pod = await self._api.create(_pod(f"{NAME}-{next(_numbers)}", namespace))
        token = await self.token(pod)
        access = replace(self._access, token=token, certificate=None, key=None)
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        path = access.write(self._directory / f"{namespace}-{name}.kubeconfig", name, namespace)
        replica = Replica(name, uid, access, path)
        await self._permitted()
        return replica

    async def token(self, pod: Object | None) -> str:
        """A token as the kubelet asks for, bound to the pod; or one for no pod."""
        spec: Object = {"expirationSeconds": 3600}
        if pod is not None:
            meta = pod["metadata"]
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = SERVICE_ACCOUNTS.path(self.place.namespace, NAME, "token")
        return str((await self._api.request("POST", path, body))["status"]["token"])

    async def _permitted(self) -> None:
        """The authorizer learns of roles and bindings a moment after they were made, each on a watch: ask until it knows."""
        namespace = self.place.namespace
        sources = manifests.one(manifests.built(self._folder), "ClusterRole", f"{NAME}-sources")["rules"]
        lists = ((rule["apiGroups"], rule["resources"]) for rule in sources if "list" in rule["verbs"])
        wanted: tuple[Object, ...] = (
            {"verb": "patch", "resource": "nodes"},
            *({"verb": "list", "group": group, "resource": name} for (group,), names in lists for name in names),
            {"verb": "delete", "resource": "pods", "namespace": self.place.drivers},
            {"verb": "create", "group": "coordination.k8s.io", "resource": "leases", "namespace": namespace},
        )
        for attributes in wanted:
            await permitted(self._api, {"user": self.place.user, "resourceAttributes": attributes})


async def permitted(api: Api, review: Object) -> None:
    """Waits until the authorizer allows what a SubjectAccessReview's spec asks; nothing announces that it does."""
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": review}
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = await api.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
            if answer["status"]["allowed"]:
                return
            await asyncio.sleep(0.02)


async def installed(api: Api, access: Access, drivers: str, directory: Path) -> Replica:
    """Makes the account where the manifests have it, for one namespace of drivers; returns its first pod."""
    await api.apply([scene.namespace(NAME)])
    account = Account(api, access, Place(NAME, drivers, "local"), directory)
    await account.create()
    return await account.replica()


def _pod(name: str, namespace: str) -> Object:
    """As the Deployment's pods are, but held back from the scheduler; nothing is mounted, the token is asked for."""
    template = manifests.one(manifests.built(), "Deployment", NAME)["spec"]["template"]
    container = {"name": "controller", "image": manifests.containers(manifests.built())[0]["image"]}
    spec = {
        "serviceAccountName": NAME,
        "automountServiceAccountToken": False,
        "schedulingGates": [{"name": "driver-upgrade.test/runs-elsewhere"}],
        "containers": [container],
    }
    metadata = {"name": name, "namespace": namespace, "labels": template["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

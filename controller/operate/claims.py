"""Which drivers' devices pods hold through ResourceClaims: read one by one, only when a decision asks.

A claim's allocation does not change while a pod that uses it runs, so what was read once stays true for the node's
upgrade, and is forgotten with it: another claim may have the name later. Claims are not watched: few nodes at a time are
emptied, and a cluster may have very many claims.
"""

import logging
from collections.abc import Iterable

from controller.api.claims import ResourceClaim
from controller.kube.client import Client
from controller.kube.errors import NotFound
from controller.kube.resources import Resource

RESOURCE_CLAIMS = Resource("resource.k8s.io", "v1", "resourceclaims", True, ResourceClaim)
MOST = 10_000
"""Claims remembered; beyond that all are forgotten and read again as needed."""

logger = logging.getLogger(__name__)


class Claims:
    """Drivers by claim, for the claims that were asked for."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.drivers: dict[str, tuple[str, ...]] = {}
        """``namespace/name`` to driver names; the core reads it."""
        # The claims that each node asked for.
        self._by_node: dict[str, set[str]] = {}
        # Whether it was said that the API server does not know the resource.
        self._told = False

    async def read(self, node: str, claims: Iterable[str]) -> None:
        """Read claims on behalf of a node. One that is gone holds nothing.

        Where the API server does not know the resource, they stay unread: what is held through them cannot be told.

        Raises:
            KubeError: A claim could not be read; the decision is made again later.
        """
        if len(self.drivers) > MOST:
            self.drivers.clear()
            self._by_node.clear()
        for key in sorted(claims):
            namespace, _, name = key.partition("/")
            try:
                drivers = (await self._client.get(RESOURCE_CLAIMS, name, namespace)).drivers
            except NotFound as error:
                if error.name != name:  # no word about this claim, but that nobody serves it
                    self._tell(key, error)
                    return
                drivers = ()
            self.drivers[key] = drivers
            self._by_node.setdefault(node, set()).add(key)

    def _tell(self, key: str, error: NotFound) -> None:
        if not self._told:
            needs = "Kubernetes 1.34 or newer, with the API resource.k8s.io/v1 served"
            logger.warning("resource claims unknown", extra={"claim": key, "error": str(error), "needs": needs})
        self._told = True

    def forget_node(self, node: str) -> None:
        """The node's pods are not looked at any more. Other nodes that still need one of its claims read it again."""
        for key in self._by_node.pop(node, ()):
            self.drivers.pop(key, None)

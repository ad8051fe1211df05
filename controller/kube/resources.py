"""Resources: where an object type lives in the API, and the built-in ones that the controller uses.

A :class:`Resource` is a plain value that names group, version and plural and the struct to decode into. Users of the
package define further ones, such as those of custom resources, in the same way.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Generic, TypeVar
from urllib.parse import quote

import msgspec

from controller.api.lease import Lease
from controller.api.meta import KubeObject
from controller.api.node import Node
from controller.api.pod import Pod
from controller.api.reviews import SubjectAccessReview, TokenReview
from controller.api.workloads import ControllerRevision, DaemonSet, PodDisruptionBudget

T = TypeVar("T", bound=KubeObject)
DECODE_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Everything that msgspec raises on bytes that are not what they should be."""


class ListMeta(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Metadata of a list page."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class RawPage(msgspec.Struct, frozen=True, gc=False):
    """A list page whose items are still undecoded."""

    metadata: ListMeta = ListMeta()
    items: tuple[msgspec.Raw, ...] | None = None


class Page(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """A list page."""

    metadata: ListMeta = ListMeta()
    items: tuple[T, ...] | None = None


@dataclass(frozen=True)
class Resource(Generic[T]):
    """One resource of the API and the trimmed type that its objects are decoded into."""

    group: str
    version: str
    plural: str
    namespaced: bool
    type: type[T]

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """URL path of the collection or, with a name, of one object. An empty namespace means all of them."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced and namespace else ""
        parts = (root + scope, self.plural, quote(name, safe=""), subresource)
        return "/".join(part for part in parts if part)

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def built_in(self) -> bool:
        """Whether every API server has it, so that a 404 for all of it can only be a mistake on the way."""
        return "." not in self.group or self.group.endswith(".k8s.io")

    @cached_property
    def decoder(self) -> msgspec.json.Decoder[T]:
        """Decodes one object."""
        return msgspec.json.Decoder(self.type)

    @cached_property
    def page_decoder(self) -> msgspec.json.Decoder[Page[T]]:
        """Decodes one page of a list."""
        return msgspec.json.Decoder(Page[self.type])  # type: ignore[name-defined]


NODES = Resource("", "v1", "nodes", False, Node)
PODS = Resource("", "v1", "pods", True, Pod)
DAEMONSETS = Resource("apps", "v1", "daemonsets", True, DaemonSet)
CONTROLLER_REVISIONS = Resource("apps", "v1", "controllerrevisions", True, ControllerRevision)
POD_DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", True, PodDisruptionBudget)
LEASES = Resource("coordination.k8s.io", "v1", "leases", True, Lease)
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", False, TokenReview)
SUBJECT_ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", False, SubjectAccessReview)

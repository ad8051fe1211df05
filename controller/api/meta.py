"""The parts of ObjectMeta that the controller reads, and the base of all trimmed objects.

Objects are trimmed while they are decoded: a field that is not declared here costs msgspec a scan and no memory, which
makes a list of 10,000 pods about 200 times cheaper than the client library's models. They are frozen and untracked by
the garbage collector (``gc=False``), which is safe because they never hold cycles.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

_LAST_SECOND: Final = 253_402_300_799


class Trimmed(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Base of every object read from the API server: frozen, camelCase on the wire, unknown fields dropped."""


class OwnerReference(Trimmed, frozen=True, gc=False):
    """Who owns an object; at most one owner is its ``controller``."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


def micro_time(seconds: float) -> str:
    """Return a time, in seconds since the epoch, as the API's MicroTime."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def timestamp(seconds: float | None) -> str:
    """Return a time, in seconds since the epoch, as the API's Time; empty where there is none, or beyond the year 9999."""
    if not seconds or not 0 < seconds <= _LAST_SECOND:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class ObjectMeta(Trimmed, frozen=True, gc=False):
    """Identity, version, labels and annotations of an object."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    """When the grace of a deletion is over, which is later than when it was asked for."""
    deletion_grace_period_seconds: int | None = None
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    owner_references: tuple[OwnerReference, ...] | None = None
    finalizers: tuple[str, ...] | None = None


class KubeObject(Trimmed, frozen=True, gc=False):
    """An object with metadata. Subclasses add the fields that the controller reads."""

    metadata: ObjectMeta

    @property
    def name(self) -> str:
        """The object's name."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The object's namespace, empty for cluster-scoped objects."""
        return self.metadata.namespace

    @property
    def uid(self) -> str:
        """The identity that a re-created object of the same name does not share."""
        return self.metadata.uid

    @property
    def key(self) -> str:
        """``namespace/name``, or ``name`` for cluster-scoped objects: the key in stores and queues."""
        meta = self.metadata
        return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels; empty where there are none."""
        return self.metadata.labels or {}

    @property
    def annotations(self) -> Mapping[str, str]:
        """Annotations; empty where there are none."""
        return self.metadata.annotations or {}

    @property
    def controller_ref(self) -> OwnerReference | None:
        """The owner that controls the object, if any."""
        for owner in self.metadata.owner_references or ():
            if owner.controller:
                return owner
        return None

    @property
    def terminating(self) -> bool:
        """Whether deletion was asked for and has not finished."""
        return self.metadata.deletion_timestamp is not None

"""What an Event is about."""

from typing import Literal

import msgspec

from controller.api.meta import KubeObject

EventType = Literal["Normal", "Warning"]


class ObjectReference(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The object that an event is about, or that has to do with it."""

    kind: str
    name: str
    namespace: str = ""
    uid: str = ""
    api_version: str = "v1"


def reference(obj: KubeObject, kind: str, api_version: str = "v1") -> ObjectReference:
    """Return the reference to an object, which does not know its own kind."""
    return ObjectReference(kind, obj.name, obj.namespace, obj.uid, api_version)

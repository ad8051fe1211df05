"""Whose a DaemonSet's pods and revisions are: adopted by who selects them, let go by who does not any more, orphaned.

As ``ControllerRefManager`` has it, and the garbage collector for a deletion with ``propagationPolicy: Orphan``.
"""

import random
from functools import partial

from tests.sim.apiserver import ORPHAN, ApiServer
from tests.sim.objects import Obj, assoc, controller_of, key_of, labels
from tests.sim.selectors import from_object

ACTOR = "daemonset-controller"
OWNED = ("pods", "controllerrevisions")
_OWNERS = ("metadata", "ownerReferences")


class Ownership:
    """Keeps owner references as they should be, a moment after they should."""

    def __init__(self, server: ApiServer, rng: random.Random) -> None:
        self._server = server
        self._rng = rng
        for kind in OWNED:
            server.store.reactions[kind].append(partial(self._changed, kind))
        server.store.reactions["daemonsets"].append(self._daemonset)
        self._orphans: dict[str, dict[str, None]] = {kind: {} for kind in OWNED}
        """Keys of those without a controller."""

    def adopt(self, daemonset: Obj) -> None:
        """Take at once what it selects and nobody owns."""
        for kind, keys in self._orphans.items():
            for key in tuple(keys):
                self._take(kind, key, [daemonset])

    def _changed(self, kind: str, old: Obj | None, new: Obj | None) -> None:
        if new is None:
            self._orphans[kind].pop(key_of(old or {}), None)
            return
        owner = controller_of(new)
        if owner is None:
            self._orphans[kind][key_of(new)] = None
            self._later(self._adopted, kind, key_of(new))
            return
        self._orphans[kind].pop(key_of(new), None)
        if old is not None and owner["kind"] == "DaemonSet" and labels(old) != labels(new):
            self._later(self._let_go, kind, key_of(new))

    def _later(self, *args: object) -> None:
        self._server.loop.call_later(self._rng.uniform(0.01, 0.2), *args)  # type: ignore[arg-type]

    def _adopted(self, kind: str, key: str) -> None:
        self._take(kind, key, self._server.store.objects("daemonsets"))

    def _take(self, kind: str, key: str, daemonsets: list[Obj]) -> None:
        obj = self._server.get(kind, key)
        if obj is None or controller_of(obj) is not None or "deletionTimestamp" in obj["metadata"]:
            return
        owner = next((d for d in daemonsets if "deletionTimestamp" not in d["metadata"] and _selects(d, obj)), None)
        if owner is not None:
            self._server.apply(ACTOR, kind, assoc(obj, _OWNERS, [reference(owner)]))

    def _let_go(self, kind: str, key: str) -> None:
        obj = self._server.get(kind, key)
        owner = controller_of(obj) if obj is not None else None
        if obj is None or owner is None:
            return
        daemonset = self._server.get("daemonsets", f"{obj['metadata']['namespace']}/{owner['name']}")
        if daemonset is not None and daemonset["metadata"]["uid"] == owner["uid"] and not _selects(daemonset, obj):
            self._server.apply(ACTOR, kind, assoc(obj, _OWNERS, None))

    def _daemonset(self, _: Obj | None, new: Obj | None) -> None:
        if new is not None and "deletionTimestamp" in new["metadata"] and ORPHAN in new["metadata"].get("finalizers", ()):
            self._later(self._orphan, key_of(new))

    def _orphan(self, key: str) -> None:
        """It goes, and what it owned stays."""
        daemonset = self._server.get("daemonsets", key)
        if daemonset is None:
            return
        uid, finalizers = daemonset["metadata"]["uid"], daemonset["metadata"].get("finalizers") or ()
        for kind in OWNED:
            for obj in self._server.store.objects(kind):
                if (owner := controller_of(obj)) is not None and owner["uid"] == uid:
                    self._server.apply("garbage-collector", kind, assoc(obj, _OWNERS, None))
        left = [one for one in finalizers if one != ORPHAN]
        self._server.edit("garbage-collector", "daemonsets", key, ("metadata", "finalizers"), left or None)


def _selects(daemonset: Obj, obj: Obj) -> bool:
    here = daemonset["metadata"].get("namespace") == obj["metadata"]["namespace"]
    return here and from_object(daemonset["spec"]["selector"])(labels(obj))


def reference(daemonset: Obj) -> Obj:
    """The owner reference to a DaemonSet that is the controller."""
    meta = daemonset["metadata"]
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": meta["name"], "uid": meta["uid"], "controller": True}

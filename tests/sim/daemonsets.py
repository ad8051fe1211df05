"""The DaemonSet controller: revisions with hash names, pods on the nodes that want them, OnDelete."""

import random
import zlib

import orjson

from tests.sim.apiserver import ApiServer
from tests.sim.objects import Obj, assoc, controller_of, key_of, labels, node_of, pod_status, ready_node, terminal
from tests.sim.ownership import Ownership, reference

ACTOR = "daemonset-controller"
HISTORY_LIMIT = 10
COLLECTED = 3.0
"""Seconds within which the garbage collector has taken what a deleted DaemonSet leaves."""
HASH = "controller-revision-hash"
PART = "part"
"""Label by which a DaemonSet selects its pods beside ``app``, by which policies do: a pod that loses it is nobody's."""


def template_hash(template: Obj) -> str:
    """The name suffix of a template's revision."""
    return f"{zlib.crc32(orjson.dumps(template, option=orjson.OPT_SORT_KEYS)):x}"


class DaemonSets:
    """Keeps every DaemonSet's revisions and pods as they should be, a moment after it should."""

    def __init__(self, server: ApiServer, rng: random.Random, *, slow: float = 0.2) -> None:
        self._server = server
        self._rng = rng
        self._slow = slow
        # Collecting has dice of its own: other stories do not change by it.
        self._collecting = random.Random(rng.getstate()[1][0])
        self._ownership = Ownership(server, random.Random(rng.getstate()[1][1]))
        self.targets: dict[str, str] = {}
        """The node that each unbound daemon pod is made for (the real one writes it into the pod's affinity)."""
        self._here: dict[tuple[str, str], set[str]] = {}
        store = server.store
        store.reactions["daemonsets"].append(self._daemonset)
        store.reactions["nodes"].append(self._node)
        store.reactions["pods"].append(self._pod)
        store.reactions["controllerrevisions"].append(self._revision)

    def newest(self, uid: str) -> str:
        """Hash of the newest revision of the DaemonSet with this uid."""
        found = self._revisions(uid)
        return labels(max(found, key=lambda r: int(r["revision"])))[HASH] if found else ""

    def _later(self, *args: object) -> None:
        self._server.loop.call_later(self._rng.uniform(0.01, self._slow), *args)  # type: ignore[arg-type]

    def _daemonset(self, old: Obj | None, new: Obj | None) -> None:
        if new is None:
            if old is not None:
                self._later(self._collect, old["metadata"]["uid"])
        elif old is None or old["metadata"]["generation"] != new["metadata"]["generation"]:
            self._later(self._sync, key_of(new))

    def _node(self, old: Obj | None, new: Obj | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        # The template tolerates nothing but a cordon, so pods are made when the node gets ready.
        shown = [n and (n["metadata"]["uid"], labels(n), ready_node(n)) for n in (old, new)]
        if shown[0] != shown[1]:
            for daemonset in self._server.store.objects("daemonsets"):
                self._later(self._sync_node, key_of(daemonset), name)

    def _pod(self, old: Obj | None, new: Obj | None) -> None:
        if old is not None and new is not None and controller_of(old) != controller_of(new):
            self._pod(old, None)  # another's, or nobody's, from now on
            old = None
        pod = new or old
        if pod is None or (new is not None and old is not None and node_of(old) == node_of(new) and not terminal(new)):
            return
        owner = controller_of(pod)
        if owner is None or owner["kind"] != "DaemonSet":
            return
        node = self._target(pod)
        here = self._here.setdefault((owner["uid"], node), set())
        if new is not None:
            here.add(key_of(new))
        else:
            here.discard(key_of(pod))
            self.targets.pop(key_of(pod), None)
        if new is None or terminal(new):
            self._later(self._sync_node, f"{pod['metadata']['namespace']}/{owner['name']}", node)

    def _revision(self, old: Obj | None, new: Obj | None) -> None:
        """A name is free: the DaemonSet that was named like the last owner can have a revision of its own."""
        if new is None and old is not None and (owner := controller_of(old)) is not None:
            key = f"{old['metadata']['namespace']}/{owner['name']}"
            self._server.loop.call_later(self._collecting.uniform(0.01, 2.0), self._sync, key)

    def _target(self, pod: Obj) -> str:
        return node_of(pod) or self.targets.get(key_of(pod), "")

    def _sync(self, key: str) -> None:
        daemonset = self._server.get("daemonsets", key)
        if daemonset is None or "deletionTimestamp" in daemonset["metadata"]:
            return
        self._ownership.adopt(daemonset)
        self._ensure_revision(daemonset)
        generation = daemonset["metadata"]["generation"]
        self._later(self._observed, key, daemonset["metadata"]["uid"], generation)
        for node in self._server.store.objects("nodes"):
            self._sync_node(key, node["metadata"]["name"])

    def _observed(self, key: str, uid: str, generation: int) -> None:
        daemonset = self._server.get("daemonsets", key)
        if daemonset is not None and daemonset["metadata"]["uid"] == uid:
            self._server.edit(ACTOR, "daemonsets", key, ("status", "observedGeneration"), generation)

    def _revisions(self, uid: str) -> list[Obj]:
        found = self._server.store.objects("controllerrevisions")
        return [r for r in found if (owner := controller_of(r)) is not None and owner["uid"] == uid]

    def _ensure_revision(self, daemonset: Obj) -> None:
        """A template that was there before is made the newest again; a new one gets a revision of its own.

        As long as its name is that of a revision of an earlier DaemonSet, which is not collected yet, that one stands in.
        """
        meta = daemonset["metadata"]
        found = self._revisions(meta["uid"])
        top = max((int(r["revision"]) for r in found), default=0)
        digest = template_hash(daemonset["spec"]["template"])
        for revision in found:
            if labels(revision)[HASH] == digest:
                if int(revision["revision"]) < top:
                    self._server.apply(ACTOR, "controllerrevisions", {**revision, "revision": top + 1})
                return
        if self._server.get("controllerrevisions", f"{meta['namespace']}/{meta['name']}-{digest}") is not None:
            return
        self._forget(found)
        self._server.apply(
            ACTOR,
            "controllerrevisions",
            {
                "kind": "ControllerRevision",
                "apiVersion": "apps/v1",
                "metadata": {
                    "name": f"{meta['name']}-{digest}",
                    "namespace": meta["namespace"],
                    "labels": {**daemonset["spec"]["template"]["metadata"]["labels"], HASH: digest},
                    "ownerReferences": [reference(daemonset)],
                },
                "revision": top + 1,
                "data": {"spec": {"template": daemonset["spec"]["template"]}},
            },
        )

    def _forget(self, found: list[Obj]) -> None:
        """Of old revisions as many stay as the history limit says, and those that pods still are of."""
        used = {labels(p).get(HASH) for p in self._server.store.objects("pods")}
        old = [r for r in sorted(found, key=lambda r: int(r["revision"])) if labels(r)[HASH] not in used]
        for revision in old[: max(0, len(old) - HISTORY_LIMIT)]:
            self._server.delete(ACTOR, "controllerrevisions", key_of(revision))

    def _sync_node(self, key: str, name: str) -> None:
        daemonset, node = self._server.get("daemonsets", key), self._server.get("nodes", name)
        if daemonset is None or "deletionTimestamp" in daemonset["metadata"]:
            return
        uid = daemonset["metadata"]["uid"]
        self._ownership.adopt(daemonset)
        here = [k for k in sorted(self._here.get((uid, name), ())) if self._server.get("pods", k)]
        if node is None or not wants(daemonset, node):
            for pod in here:
                self._server.delete(ACTOR, "pods", pod)
        elif not here:
            if ready_node(node):
                self._create(daemonset, name)
        else:
            self._tidy(here)

    def _tidy(self, here: list[str]) -> None:
        """Failed pods make place for new ones, and of several one stays."""
        kept = 0
        for key in here:
            pod = self._server.get("pods", key)
            if pod is None or "deletionTimestamp" in pod["metadata"]:
                continue
            kept += not terminal(pod)
            if terminal(pod) or kept > 1:
                self._server.delete(ACTOR, "pods", key)

    def _create(self, daemonset: Obj, node: str) -> None:
        meta, template = daemonset["metadata"], daemonset["spec"]["template"]
        digest = self.newest(meta["uid"]) or self._borrowed(daemonset)
        if not digest:
            return
        name = f"{meta['name']}-{self._rng.getrandbits(32):08x}"
        key = f"{meta['namespace']}/{name}"
        self.targets[key] = node
        self._here.setdefault((meta["uid"], node), set()).add(key)
        pod = {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {
                "name": name,
                "namespace": meta["namespace"],
                "labels": {
                    **template["metadata"]["labels"],
                    HASH: digest,
                    "pod-template-generation": str(meta["generation"]),
                },
                "ownerReferences": [reference(daemonset)],
            },
            "spec": {**template["spec"], "terminationGracePeriodSeconds": 30},
            "status": pod_status("Pending"),
        }
        self._server.apply(ACTOR, "pods", pod)

    def _borrowed(self, daemonset: Obj) -> str:
        """Hash of an earlier DaemonSet's revision that stands in for the newest."""
        meta, digest = daemonset["metadata"], template_hash(daemonset["spec"]["template"])
        there = self._server.get("controllerrevisions", f"{meta['namespace']}/{meta['name']}-{digest}")
        return digest if there is not None else ""

    def _collect(self, uid: str) -> None:
        """The garbage collector's share: what a deleted DaemonSet owned goes as well, in no order."""
        for kind in ("pods", "controllerrevisions"):
            for obj in self._server.store.objects(kind):
                owner = controller_of(obj)
                if owner is not None and owner["uid"] == uid:
                    late = self._collecting.uniform(0.0, COLLECTED)
                    self._server.loop.call_later(late, self._collect_one, kind, key_of(obj), obj["metadata"]["uid"])

    def _collect_one(self, kind: str, key: str, uid: str) -> None:
        obj = self._server.get(kind, key)
        if obj is not None and obj["metadata"]["uid"] == uid and controller_of(obj) is not None:
            self._server.delete("garbage-collector", kind, key)


def wants(daemonset: Obj, node: Obj) -> bool:
    """Whether a pod of the DaemonSet should run on the node: its nodeSelector decides here."""
    selector = daemonset["spec"]["template"]["spec"].get("nodeSelector") or {}
    return all(labels(node).get(key) == value for key, value in selector.items())


def daemonset(name: str, namespace: str, app: str, version: str, selector: Obj, *, safe_load: bool = False) -> Obj:
    """A driver's, or a validator's, DaemonSet."""
    spec: Obj = {
        "nodeSelector": selector,
        "containers": [{"name": "main", "image": f"{app}:{version}", "env": [{"name": "CONFIG", "value": version}]}],
    }
    if safe_load:
        spec["initContainers"] = [{"name": "wait", "image": "driver-upgrade"}]
    return {
        "kind": "DaemonSet",
        "apiVersion": "apps/v1",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": {"app": app, PART: app}},
            "updateStrategy": {"type": "OnDelete"},
            "template": {"metadata": {"labels": {"app": app, PART: app}}, "spec": spec},
        },
        "status": {"observedGeneration": 0},
    }


def with_version(obj: Obj, version: str, config: str = "") -> Obj:
    """The DaemonSet with another image; ``config`` is the variable that stands for the driver itself."""
    main = dict(obj["spec"]["template"]["spec"]["containers"][0])
    main["image"] = f"{main['image'].partition(':')[0]}:{version}"
    main["env"] = [{"name": "CONFIG", "value": config or version}]
    return assoc(obj, ("spec", "template", "spec", "containers"), [main])

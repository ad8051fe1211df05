"""Objects as nobody should write them: huge, null where lists are, numbers where words are, control characters.

Two kinds. *Disguises* add such things to real nodes and pods on their way to clients, which must go on with them as if
nothing were there. *Strangers* are objects beside them that cannot be read at all, or only with a strong stomach.
"""

import random
from collections.abc import Callable

from tests.sim.apiserver import ApiServer
from tests.sim.objects import Obj, assoc, pod_status

CONTROLS = "\x1b[2J\x07\r\n\u202e\u0000" + "\ufffd"
MANY = 10_000
DISGUISES: dict[str, tuple[Callable[[Obj], Obj], ...]] = {
    "nodes": (
        lambda o: assoc(o, ("metadata", "annotations", "evil.example/huge"), "x" * (3 * 2**19)),
        lambda o: assoc(o, ("metadata", "annotations", "evil.example/controls"), CONTROLS),
        lambda o: assoc(o, ("metadata", "labels"), {**o["metadata"]["labels"], **{f"evil/{n}": "" for n in range(MANY)}}),
        lambda o: assoc(assoc(o, ("status", "images"), None), ("status", "nodeInfo"), None),
        lambda o: assoc(o, ("status", "conditions"), [*o["status"]["conditions"], {"type": CONTROLS, "status": "Perhaps"}]),
        lambda o: assoc(o, ("metadata", "ownerReferences"), None),
        lambda o: {**o, "spec": {**o["spec"], "configSource": None, "podCIDRs": None}},
    ),
    "pods": (
        lambda o: assoc(o, ("metadata", "annotations"), {"evil.example/huge": CONTROLS * 1000}),
        lambda o: {
            **o,
            "spec": {**o["spec"], "volumes": o["spec"].get("volumes"), "initContainers": o["spec"].get("initContainers")},
        },
        lambda o: {**o, "status": {**o["status"], "conditions": None, "podIPs": None, "ephemeralContainerStatuses": None}},
    ),
}
STRANGERS: tuple[tuple[str, Callable[[Obj], Obj]], ...] = (
    ("nodes", lambda o: {**o, "metadata": {**o["metadata"], "labels": ["not", "a", "map"]}}),
    ("nodes", lambda o: {**o, "spec": 7, "status": None}),
    ("nodes", lambda o: {**o, "spec": {"unschedulable": "maybe", "taints": [None]}}),
    ("poddisruptionbudgets", lambda o: {**o, "spec": {"selector": {"matchExpressions": [{"operator": "Like"}]}}}),
    ("poddisruptionbudgets", lambda o: {**o, "spec": None, "status": {"disruptionsAllowed": "some"}}),
    ("driverupgradepolicies", lambda o: {**o, "spec": None}),
    ("driverupgradepolicies", lambda o: {**o, "spec": {"driver": []}}),
    (
        "driverupgradepolicies",
        lambda o: {**o, "spec": {"driver": {"name": CONTROLS, "podSelector": 5, "upgradePolicy": {}}}},
    ),
    ("controllerrevisions", lambda o: {**o, "revision": 10**30}),
    ("controllerrevisions", lambda o: {**o, "metadata": {**o["metadata"], "ownerReferences": [None]}, "revision": "x"}),
    ("daemonsets", lambda o: {**o, "spec": {"selector": None, "template": None}, "status": []}),
    ("pods", lambda o: {**o, "spec": {"nodeName": 5, "containers": None}}),
)
RECORDS = ("abc", "{}", "[]", "null", '"x"', '{"state":5}', '{"state":"drain-required","since":1e30}', "[" * 5000, CONTROLS)
RECORD = "nvidia.com/gpu-driver-upgrade.record"


class Hostile:
    """Lets such objects appear and disappear."""

    def __init__(self, server: ApiServer, rng: random.Random) -> None:
        self._server = server
        self._rng = rng
        self._count = 0

    def disguise(self) -> str:
        """A real object gets something odd beside what it has; now and then a record does not say what it should."""
        kind = self._rng.choice(["nodes", "pods"])
        real = [k for k in self._server.store.tables[kind] if "evil" not in k]
        if not real:
            return "nothing to disguise"
        key = self._rng.choice(sorted(real))
        if kind == "nodes" and self._rng.random() < 0.15:
            return self._record(key)
        self._server.store.disguises[kind, key] = self._rng.choice(DISGUISES[kind])
        self._server.store.touch(kind, key)
        return f"{kind}/{key} disguised"

    def _record(self, node: str) -> str:
        value = self._rng.choice(RECORDS)
        self._server.edit("admin", "nodes", node, ("metadata", "annotations", RECORD), value)
        return f"record of {node} is {value[:20]!r}"

    def appear(self) -> str:
        """A stranger."""
        kind, spoil = self._rng.choice(STRANGERS)
        return self.add(kind, spoil)

    def add(self, kind: str, spoil: Callable[[Obj], Obj]) -> str:
        """Add one stranger of a kind."""
        self._count += 1
        name = f"evil-{self._count}"
        namespace = {} if kind == "nodes" else {"namespace": "drivers"}
        app = {"app": "driver"} if kind in {"pods", "daemonsets", "controllerrevisions"} else {}
        owner = [{"kind": "DaemonSet", "name": "evil", "uid": "evil", "controller": True}]
        meta: Obj = {"name": name, **namespace, "uid": name, "labels": {**app, "evil": "true"}, "annotations": {}}
        template = {"metadata": {"labels": app}, "spec": {"nodeSelector": {"evil": "true"}, "containers": []}}
        spec: Obj = {"selector": {"matchLabels": {"app": "evil"}}, "template": template, "containers": []}
        meta |= {"ownerReferences": owner} if kind in {"pods", "controllerrevisions"} else {}
        obj: Obj = {"kind": kind[:-1], "metadata": meta, "spec": spec, "status": pod_status("Pending"), "revision": 1}
        key = "/".join(filter(None, (meta.get("namespace"), name)))
        self._server.store.disguises[kind, str(key)] = spoil
        self._server.store.slip_in(kind, obj)
        return f"{kind}/{name} appears"

    def vanish(self) -> None:
        """Everything is as it should be again."""
        store = self._server.store
        spoilt = list(store.disguises)
        store.disguises.clear()
        for kind, key in spoilt:
            if store.get(kind, key) is None:
                continue
            if "evil" in key:
                store.slip_out(kind, key)
            else:
                store.touch(kind, key)

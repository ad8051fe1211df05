"""What an outsider sees of the cluster: every object as it is and as it was a little while ago.

Rules about our own writes are strict. Rules about what others did count only where it had been so for the whole window
before the request was sent, since nobody can know sooner.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator

from tests.checker.events import Event, Obj
from tests.checker.names import HASH
from tests.sim.objects import controller_of, labels, node_of

REMEMBERED = 900.0
MANY = 4096
"""Objects of which the past is kept before those that have been gone for long are forgotten."""

Version = tuple[float, float, Obj | None]
"""What an object was, since when and until when."""


class Sight:
    """Objects by kind and key, with what they were before."""

    def __init__(self) -> None:
        self.now: dict[str, dict[str, Obj]] = {}
        self._before: dict[tuple[str, str], deque[tuple[float, Obj | None]]] = {}
        self.on_node: dict[str, dict[str, None]] = {}
        self._gone: dict[str, deque[tuple[float, Obj]]] = {}
        self._newest: dict[str, deque[tuple[float, str]]] = {}
        self.earliest: Callable[[str], float] = lambda _kind: -math.inf
        """How far back the view of a kind may have been of which the present write was decided on, whatever it asks for."""

    def take(self, entry: Event) -> None:
        """Take one write in."""
        if entry.old is entry.new:
            return
        table = self.now.setdefault(entry.kind, {})
        if entry.new is None:
            table.pop(entry.key, None)
        else:
            table[entry.key] = entry.new
        before = self._before.setdefault((entry.kind, entry.key), deque())
        before.append((entry.at, entry.old))
        while before[0][0] < entry.at - REMEMBERED:
            before.popleft()
        if entry.kind == "pods":
            self._pod(entry)
        elif entry.kind == "controllerrevisions":
            self._revision(entry)

    def _pod(self, entry: Event) -> None:
        if entry.old is not None and node_of(entry.old):
            self.on_node.setdefault(node_of(entry.old), {}).pop(entry.key, None)
            if entry.new is None:
                gone = self._gone.setdefault(node_of(entry.old), deque(maxlen=64))
                gone.append((entry.at, entry.old))
        if entry.new is not None and node_of(entry.new):
            self.on_node.setdefault(node_of(entry.new), {})[entry.key] = None
        if entry.new is None and len(self._before) > MANY:
            self._forget(entry.at)

    def _forget(self, now: float) -> None:
        """Objects that have been gone for long: a run of weeks must not remember them all."""
        for key in [k for k, past in self._before.items() if past[-1][0] < now - REMEMBERED]:
            if key[1] not in self.now.get(key[0], {}):
                del self._before[key]

    def _revision(self, entry: Event) -> None:
        """Every hash that is or was the newest of its DaemonSet, each with the time at which it came to be.

        What a deleted DaemonSet leaves is collected in no order, and none of it becomes the newest by that.
        """
        owner = controller_of(entry.new or entry.old or {"metadata": {}})
        if owner is None or (entry.new is None and not self.stands(owner["uid"])):
            return
        found = [r for r in self.all("controllerrevisions") if (o := controller_of(r)) and o["uid"] == owner["uid"]]
        best = max(found, key=lambda r: int(r["revision"]), default=None)
        story = self._newest.setdefault(owner["uid"], deque(maxlen=256))
        digest = labels(best).get(HASH, "") if best else ""
        if not story or story[-1][1] != digest:
            story.append((entry.at, digest))

    def stands(self, uid: str) -> bool:
        """Whether there is a DaemonSet of this uid that is not being deleted."""
        found = (d["metadata"] for d in self.all("daemonsets"))
        return any(meta["uid"] == uid and "deletionTimestamp" not in meta for meta in found)

    def all(self, kind: str) -> list[Obj]:
        return list(self.now.get(kind, {}).values())

    def get(self, kind: str, key: str) -> Obj | None:
        return self.now.get(kind, {}).get(key)

    def keys(self, kind: str, since: float) -> set[str]:
        """The keys of all objects that were there at some time from since until now."""
        since = max(since, self.earliest(kind))
        left = {key for (of, key), past in self._before.items() if of == kind and past[-1][0] >= since}
        return left | self.now.get(kind, {}).keys()

    def during(self, kind: str, key: str, since: float) -> list[Obj | None]:
        """Every version from since until now; None where the object was not there."""
        since = max(since, self.earliest(kind))
        past = [obj for replaced, obj in self._before.get((kind, key), ()) if replaced >= since]
        return [*past, self.get(kind, key)]

    def between(self, kind: str, key: str, begin: float, end: float) -> list[Version]:
        """Every version that stood at some time in between, with since when and until when."""
        found: list[Version] = []
        since = -math.inf
        for replaced, obj in (*self._before.get((kind, key), ()), (math.inf, self.get(kind, key))):
            if replaced >= begin and since <= end:
                found.append((since, replaced, obj))
            since = replaced
        return found

    def pods_on(self, node: str) -> Iterator[Obj]:
        pods = self.now.get("pods", {})
        return (pods[key] for key in tuple(self.on_node.get(node, ())))

    def gone_from(self, node: str, since: float) -> list[Obj]:
        """Pods that have left the node since then, each as it was last."""
        since = max(since, self.earliest("pods"))
        return [obj for at, obj in self._gone.get(node, ()) if at >= since]

    def newest(self, uid: str, since: float) -> set[str]:
        """The hashes that were newest at some time from since until now."""
        since = max(since, self.earliest("controllerrevisions"))
        story = self._newest.get(uid, deque())
        current = {digest for at, digest in story if at >= since}
        earlier = [digest for at, digest in story if at < since]
        return current | set(earlier[-1:])

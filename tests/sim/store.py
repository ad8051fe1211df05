"""The MVCC store: every write gets the next resourceVersion of one global count, and its event is kept for watches.

Like etcd behind an API server there is one order of all writes. History is kept per resource and may be compacted at any
time; a watch from before that is refused.
"""

import json
from collections import deque
from collections.abc import Callable

import orjson

from tests.sim.objects import Obj, key_of

HISTORY = 2000
Reaction = Callable[[Obj | None, Obj | None], None]


class Version:
    """One version of one object, encoded at most once."""

    __slots__ = ("_json", "obj", "rv")

    def __init__(self, rv: int, obj: Obj, json: bytes | None = None) -> None:
        self.rv = rv
        self.obj = obj
        self._json = json

    @property
    def json(self) -> bytes:
        if self._json is None:
            self._json = orjson.dumps(self.obj)
        return self._json


class Event:
    """One write: what was there before and what is there now. A deletion's ``new`` is the object at its end."""

    __slots__ = ("at", "deleted", "new", "old", "rv")

    def __init__(self, rv: int, old: Version | None, new: Version, deleted: bool, at: float = 0.0) -> None:
        self.rv = rv
        self.at = at
        self.old = old
        self.new = new
        self.deleted = deleted


class Store:
    """All objects, by resource and key."""

    def __init__(self, kinds: tuple[str, ...], clock: Callable[[], float] = lambda: 0.0) -> None:
        self.rv = 1000
        self._clock = clock
        self.disguises: dict[tuple[str, str], Callable[[Obj], Obj]] = {}
        """By kind and key, how clients are shown an object otherwise than it is."""
        self.tables: dict[str, dict[str, Version]] = {kind: {} for kind in kinds}
        self.history: dict[str, deque[Event]] = {kind: deque() for kind in kinds}
        self.compacted: dict[str, int] = dict.fromkeys(kinds, 0)
        self.watchers: dict[str, list[Callable[[Event], None]]] = {kind: [] for kind in kinds}
        self.reactions: dict[str, list[Reaction]] = {kind: [] for kind in kinds}

    def get(self, kind: str, key: str) -> Obj | None:
        version = self.tables[kind].get(key)
        return version.obj if version else None

    def objects(self, kind: str) -> list[Obj]:
        return [v.obj for v in self.tables[kind].values()]

    def put(self, kind: str, obj: Obj) -> Version:
        """Create or replace an object, which the store owns from then on."""
        key = key_of(obj)
        old = self.tables[kind].get(key)
        version = self.tables[kind][key] = self._next(obj, kind)
        self._tell(kind, Event(version.rv, old, version, deleted=False, at=self._clock()))
        return version

    def remove(self, kind: str, key: str) -> Version:
        """Delete an object; its last version carries the resourceVersion of the deletion."""
        old = self.tables[kind].pop(key)
        version = self._next(old.obj, kind)
        self._tell(kind, Event(version.rv, old, version, deleted=True, at=self._clock()))
        return version

    def touch(self, kind: str, key: str) -> None:
        """Show an object anew, unchanged."""
        old = self.tables[kind][key]
        version = self.tables[kind][key] = self._next(old.obj, kind)
        self._tell(kind, Event(version.rv, old, version, deleted=False, at=self._clock()), quietly=True)

    def slip_in(self, kind: str, obj: Obj) -> None:
        """Create an object that only clients are to see: none of the cluster's components takes notice."""
        version = self.tables[kind][key_of(obj)] = self._next(obj, kind)
        self._tell(kind, Event(version.rv, None, version, deleted=False, at=self._clock()), quietly=True)

    def slip_out(self, kind: str, key: str) -> None:
        """Delete such an object."""
        old = self.tables[kind].pop(key)
        version = self._next(old.obj, kind)
        self._tell(kind, Event(version.rv, old, version, deleted=True, at=self._clock()), quietly=True)

    def as_of(self, kind: str, rv: int) -> dict[str, Version] | None:
        """The table as it was at a resourceVersion; None where its history is forgotten."""
        if rv < self.compacted[kind]:
            return None
        table = dict(self.tables[kind])
        for event in reversed(self.history[kind]):
            if event.rv <= rv:
                break
            if event.old is None:
                table.pop(key_of(event.new.obj), None)
            else:
                table[key_of(event.old.obj)] = event.old
        return table

    def compact(self, kind: str) -> None:
        """Forget the history of a resource."""
        self.history[kind].clear()
        self.compacted[kind] = self.rv

    def _next(self, obj: Obj, kind: str) -> Version:
        self.rv += 1
        stamped = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.rv)}}
        disguise = self.disguises.get((kind, key_of(obj))) if self.disguises else None
        return Version(self.rv, stamped, json.dumps(disguise(stamped)).encode() if disguise else None)

    def _tell(self, kind: str, event: Event, *, quietly: bool = False) -> None:
        history = self.history[kind]
        history.append(event)
        if len(history) > HISTORY:
            self.compacted[kind] = history.popleft().rv
        for watcher in tuple(self.watchers[kind]):
            watcher(event)
        if quietly:
            return
        old = event.old.obj if event.old else None
        for reaction in self.reactions[kind]:
            reaction(old, None if event.deleted else event.new.obj)

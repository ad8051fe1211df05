"""A store of objects with indexes: what the controller knows of one resource.

It is fed from two sides. The reflector brings what the server says, in order; :meth:`Store.observe_write` brings the
answers to our own writes, which are often ahead of the watch. Three rules keep the two from contradicting each other:

* An object never becomes older: what is not newer by resourceVersion than what is held is dropped.
* What was deleted stays deleted: the uids of deleted objects are remembered, each with the version of its end, and a late
  answer to an own write to one of them is dropped. (Another object of the same name has another uid and is welcome.)
  Only the watch may bring one back, by a newer version: to a watch by labels, deleted is also what has left the selection.
* A list replaces everything but what is newer than the list itself, be it an object or an end: a list that was read while
  the watch went on may still have what the watch has told the end of, and never tells of again.

Handlers are told ``(old, new)`` after the store and its indexes are complete; ``None`` stands for "was not there" and
"is gone". An object that was deleted and created anew between two looks is told as both, in this order, so a handler never
sees one object turn into another. Everything is synchronous and belongs to one event loop.
"""

import logging
from collections.abc import Callable, Collection, Hashable, Iterable
from typing import Final, Generic, TypeVar

from controller.api.meta import KubeObject
from controller.kube.resourceversion import newer, surely_newer

T = TypeVar("T", bound=KubeObject)
Handler = Callable[[T | None, T | None], None]
IndexFunc = Callable[[T], Iterable[Hashable]]
_Changes = list[tuple[T | None, T | None]]
TOMBSTONES: Final = 4096
"""Deleted uids remembered; an answer to a write is late by seconds, not by thousands of deletions."""

logger = logging.getLogger(__name__)


class _Index(Generic[T]):
    """Objects by the values that a function finds in them. Empty values are dropped at once."""

    def __init__(self, name: str, values: IndexFunc[T]) -> None:
        self._name = name
        self._values = values
        self.buckets: dict[Hashable, dict[str, T]] = {}

    def move(self, key: str, old: T | None, new: T | None) -> None:
        """Make the index right after key's object changed."""
        for value in self._of(old):
            bucket = self.buckets.get(value, {})
            bucket.pop(key, None)
            if not bucket:
                self.buckets.pop(value, None)
        for value in self._of(new):
            self.buckets.setdefault(value, {})[key] = new  # type: ignore[assignment]

    def _of(self, obj: T | None) -> Iterable[Hashable]:
        if obj is None:
            return ()
        try:
            return set(self._values(obj))
        except Exception:  # an index that stumbles over one object must not stop the cache of all
            logger.exception("index function failed", extra={"index": self._name, "key": obj.key})
            return ()


class Store(Generic[T]):
    """Objects by key, with indexes and handlers."""

    def __init__(self) -> None:
        self._objects: dict[str, T] = {}
        self._indexes: dict[str, _Index[T]] = {}
        self._handlers: list[Handler[T]] = []
        # Uids of deleted objects, longest ago first, each with a version at which it was gone.
        self._tombstones: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, key: str) -> bool:
        return key in self._objects

    def get(self, key: str) -> T | None:
        """The object of this key (``namespace/name``, or ``name``), or None."""
        return self._objects.get(key)

    def list(self) -> tuple[T, ...]:
        """All objects."""
        return tuple(self._objects.values())

    def index_by(self, name: str, values: IndexFunc[T]) -> None:
        """Keep an index under this name; values must be a pure function of the object."""
        if name in self._indexes:
            raise ValueError(f"there is already an index {name!r}")
        index = self._indexes[name] = _Index(name, values)
        for key, obj in self._objects.items():
            index.move(key, None, obj)

    def by_index(self, name: str, value: Hashable) -> tuple[T, ...]:
        """The objects that have this value."""
        return tuple(self._indexes[name].buckets.get(value, {}).values())

    def count_by_index(self, name: str, value: Hashable) -> int:
        """How many objects have this value, without collecting them."""
        return len(self._indexes[name].buckets.get(value, {}))

    def index_values(self, name: str) -> tuple[Hashable, ...]:
        """The values that at least one object has."""
        return tuple(self._indexes[name].buckets)

    def add_handler(self, handler: Handler[T]) -> Callable[[], None]:
        """Call handler(old, new) after every change, and now for every object that is there.

        Returns:
            A function that removes it.
        """
        self._handlers.append(handler)
        for obj in self.list():
            _call(handler, None, obj)
        return lambda: self._handlers.remove(handler)

    def apply(self, obj: T) -> bool:
        """Take over what the watch says of a live object. Returns whether it was news."""
        gone = self._tombstones.get(obj.uid)
        if gone is not None and not newer(obj.metadata.resource_version, gone):
            return False
        held = self._objects.get(obj.key)
        if held is not None and not _supersedes(obj, held):
            return False
        self._notify(self._put(obj.key, held, obj))
        return True

    def observe_write(self, obj: T) -> bool:
        """Take over the answer to an own write, if it is newer than what is held. Returns whether it was.

        What is gone stays gone, whatever the version: no watch would tell that it has left a second time.
        """
        return obj.uid not in self._tombstones and self.apply(obj)

    def delete(self, obj: T, gone_at: str = "") -> bool:
        """Take over what the watch, or a list, says of a deleted object. Returns whether it was held.

        Args:
            obj: As it was at its end, or as it is held.
            gone_at: A version at which it was gone, where that is not the object's own.
        """
        held = self._objects.get(obj.key)
        if held is not None and held.uid == obj.uid and _supersedes(obj, held):
            self._put(obj.key, held, obj)  # handlers see the object as it was at its end
            held = obj
        self._bury(obj.uid, gone_at or obj.metadata.resource_version)
        if held is None or (held.uid != obj.uid and _supersedes(held, obj)):
            return False
        self._notify(self._put(obj.key, held, None))
        return True

    def replace(self, items: Iterable[T], resource_version: str, *, keep: Collection[str] = ()) -> None:
        """Take over a complete list.

        Args:
            items: All objects there are.
            resource_version: Version of the list; held objects that are newer stay, and what ended after it stays away.
            keep: Keys of objects that exist but could not be read: what is held of them stays.
        """
        changes: _Changes[T] = []
        listed = {obj.key: obj for obj in items if not self._ended_after(resource_version, obj.uid)}
        for key, obj in listed.items():
            held = self._objects.get(key)
            if held is None or _supersedes(obj, held):
                changes += self._put(key, held, obj)
        for key, held in list(self._objects.items()):
            created_after = surely_newer(held.metadata.resource_version, resource_version)
            if key not in listed and key not in keep and not created_after:
                changes += self._put(key, held, None)
                self._bury(held.uid, resource_version)
        self._notify(changes)

    def _ended_after(self, version: str, uid: str) -> bool:
        """Whether the object is known to have been gone at something newer than version."""
        gone = self._tombstones.get(uid)
        return gone is not None and surely_newer(gone, version)

    def _put(self, key: str, old: T | None, new: T | None) -> "_Changes[T]":
        """Change one entry and its indexes; return what handlers are to be told."""
        if new is None:
            self._objects.pop(key, None)
        else:
            self._objects[key] = new
            self._tombstones.pop(new.uid, None)
        for index in self._indexes.values():
            index.move(key, old, new)
        if old is not None and new is not None and old.uid != new.uid:
            self._bury(old.uid, new.metadata.resource_version)
            return [(old, None), (None, new)]
        return [(old, new)]

    def _bury(self, uid: str, version: str) -> None:
        if not uid:
            return
        known = self._tombstones.pop(uid, version)
        self._tombstones[uid] = known if newer(known, version) else version
        if len(self._tombstones) > TOMBSTONES:
            del self._tombstones[next(iter(self._tombstones))]

    def _notify(self, changes: "_Changes[T]") -> None:
        for old, new in changes:
            for handler in tuple(self._handlers):
                _call(handler, old, new)


def _supersedes(obj: KubeObject, held: KubeObject) -> bool:
    return newer(obj.metadata.resource_version, held.metadata.resource_version)


def _call(handler: Handler[T], old: T | None, new: T | None) -> None:
    try:
        handler(old, new)
    except Exception:  # one handler's bug must not keep the change from the others, nor end the watch
        about = new or old
        logger.exception("event handler failed", extra={"key": about.key if about else ""})

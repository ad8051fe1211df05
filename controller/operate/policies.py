"""The policies in force, by driver: custom resources resolved, invalid ones stood in for by their last good version."""

import logging
from collections.abc import Callable, Iterable

from controller.api.policy import PolicyObject
from controller.kube.informer import Informer
from controller.kube.store import Store
from controller.upgrade.policy import Policy, full_name, resolve
from controller.upgrade.sources import Source

logger = logging.getLogger(__name__)


class Policies:
    """Keeps every policy resolved.

    Args:
        informers: One per source.
        namespaces: Where policies count; elsewhere they are listed in :attr:`ignored` only.
        domain: The label domain.
        changed: Called with the driver's name after each change.
    """

    def __init__(
        self,
        informers: Iterable[tuple[Source, Informer[PolicyObject]]],
        namespaces: Iterable[str],
        domain: str,
        changed: Callable[[str], None],
    ) -> None:
        self._namespaces = frozenset(namespaces)
        self._domain = domain
        self._changed = changed
        self._all: dict[str, Policy] = {}
        self._by_driver: dict[str, tuple[Policy, ...]] = {}
        self._followers: list[Callable[[], None]] = []
        self._stores: dict[Source, Store[PolicyObject]] = {}
        self.ignored: dict[str, Policy] = {}
        """Policies outside the driver namespaces, which count for nothing and are told so in their status."""
        for source, informer in informers:
            self._stores[source] = informer.store
            self._follow(source, informer)

    def on_change(self, follower: Callable[[], None]) -> None:
        """Call follower after every change of any policy, its status and those that count for nothing included."""
        self._followers.append(follower)

    def of_driver(self, driver: str) -> tuple[Policy, ...]:
        """The driver's policies, oldest first."""
        return self._by_driver.get(driver, ())

    def drivers(self) -> tuple[str, ...]:
        """Drivers that have a policy."""
        return tuple(self._by_driver)

    def all(self) -> tuple[Policy, ...]:
        """Every policy that counts."""
        return tuple(self._all.values())

    def get(self, full_name: str) -> Policy | None:
        """Return the policy of this ``Kind/namespace/name``."""
        return self._all.get(full_name)

    def object_of(self, policy: Policy) -> PolicyObject | None:
        """Return the custom resource; a cluster-scoped one has no namespace, whatever namespace it counts in."""
        key = f"{policy.namespace}/{policy.name}" if policy.source.namespaced else policy.name
        return self._stores[policy.source].get(key)

    def _follow(self, source: Source, informer: Informer[PolicyObject]) -> None:
        def handle(old: PolicyObject | None, new: PolicyObject | None) -> None:
            if new is not None and (old is None or _differs(old, new)):
                self._put(new, source)
            elif new is None and old is not None:
                self._drop(full_name(source, old))
            for follower in self._followers:
                follower()

        informer.add_handler(handle)

    def _put(self, obj: PolicyObject, source: Source) -> None:
        name = full_name(source, obj)
        last = self._all.get(name)
        policy = resolve(obj, source, domain=self._domain, last=last if last and last.usable else None)
        if policy.namespace not in self._namespaces:
            self.ignored[name] = policy
            logger.warning("policy ignored", extra={"policy": name, "reason": "NamespaceNotAllowed"})
            return
        for error in policy.errors:
            logger.warning("policy invalid", extra={"policy": name, "field": error.field, "error": error.message})
        self._all[name] = policy
        self._regroup({policy.driver, last.driver if last else policy.driver})

    def _drop(self, name: str) -> None:
        self.ignored.pop(name, None)
        if policy := self._all.pop(name, None):
            self._regroup({policy.driver})

    def _regroup(self, drivers: Iterable[str]) -> None:
        for driver in drivers:
            found = sorted((p for p in self._all.values() if p.driver == driver), key=lambda p: p.age_order)
            self._by_driver[driver] = tuple(found)
            if not found or not driver:
                del self._by_driver[driver]
            if driver:
                self._changed(driver)


def _differs(old: PolicyObject, new: PolicyObject) -> bool:
    """Whether anything but the status, which we write ourselves, has changed."""
    return (old.uid, old.spec, old.annotations, old.metadata.generation) != (
        new.uid,
        new.spec,
        new.annotations,
        new.metadata.generation,
    )

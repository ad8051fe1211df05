"""The driver DaemonSets with what is known of their revisions, collected once for all nodes instead of once for each."""

from typing import Any

from controller.api.selectors import Selector
from controller.api.workloads import DaemonSet
from controller.operate.caches import Caches
from controller.upgrade.revision import Revisions

MOST = 64
"""Selectors and uids that are remembered: more than any cluster has drivers."""
Found = tuple[tuple[DaemonSet, Revisions], ...]


class DriverSets:
    """Remembers what the caches were asked for, until a DaemonSet or a revision changes."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches
        # By namespace and selector, or by uid.
        self._found: dict[tuple[str, Selector] | str, Found] = {}
        # How often hashes had been proved to be of no revision when these were collected.
        self._proofs = caches.proofs
        for daemonsets in caches.daemonsets.values():
            daemonsets.add_handler(self._changed)
        for revisions in caches.controller_revisions.values():
            revisions.add_handler(self._changed)

    def of(self, namespace: str, selector: Selector) -> Found:
        """Return the DaemonSets whose pods a selector picks, by name."""
        found = self._known((namespace, selector))
        if found is None:
            found = self._keep((namespace, selector), self._caches.driver_daemonsets(namespace, selector))
        return found

    def alone(self, uid: str) -> Found:
        """Return the DaemonSet of this uid, if there is one."""
        found = self._known(uid)
        if found is None:
            daemonset = self._caches.daemonset_by_uid(uid)
            found = self._keep(uid, [daemonset] if daemonset else [])
        return found

    def _known(self, key: tuple[str, Selector] | str) -> Found | None:
        if self._proofs != self._caches.proofs or len(self._found) > MOST:
            self._found.clear()
            self._proofs = self._caches.proofs
        return self._found.get(key)

    def _keep(self, key: tuple[str, Selector] | str, daemonsets: list[DaemonSet]) -> Found:
        found = self._found[key] = tuple((daemonset, self._caches.revisions(daemonset)) for daemonset in daemonsets)
        return found

    def _changed(self, _old: Any, _new: Any) -> None:
        self._found.clear()

"""Whether a driver pod is the newest version of its DaemonSet (design, section 3).

DaemonSets, ControllerRevisions and pods arrive on three streams in no common order. Three rules keep a lagging stream
from costing a drain: a hash that the cache does not know is never acted on before one consistent LIST of that
DaemonSet's revisions, and only if the DaemonSet still stood after it; nothing is outdated while the DaemonSet controller
has not observed the newest spec; and a node that was granted for a revision never takes an older one for the newest.
"""

from collections.abc import Iterable, Mapping
from enum import Enum

import msgspec

from controller.api.pod import Pod
from controller.api.workloads import ControllerRevision, DaemonSet

HASH_LABEL = "controller-revision-hash"


class Standing(Enum):
    """How a driver pod compares with its DaemonSet's newest revision."""

    CURRENT = "current"
    OUTDATED = "outdated"
    ORPHAN = "orphan"
    UNSETTLED = "unsettled"
    """Not known yet: never acted on."""


class Revisions(msgspec.Struct, frozen=True):
    """The revisions of one DaemonSet: hash to number, and the hashes that a consistent LIST proved absent."""

    known: Mapping[str, int] = {}
    absent: frozenset[str] = frozenset()

    @property
    def newest(self) -> tuple[str, int] | None:
        """Hash and number of the newest revision."""
        return max(self.known.items(), key=lambda item: item[1], default=None)


def revisions_of(uid: str, revisions: Iterable[ControllerRevision], absent: frozenset[str] = frozenset()) -> Revisions:
    """Collect the revisions that the DaemonSet with this uid controls.

    The owner's uid decides, never a shared name prefix or label: k8s-operator-libs confuses DaemonSets that have those
    in common.
    """
    known = {
        r.labels[HASH_LABEL]: r.revision
        for r in revisions
        if HASH_LABEL in r.labels and (owner := r.controller_ref) is not None and owner.uid == uid
    }
    return Revisions(known, absent - known.keys())


class DriverSet(msgspec.Struct, frozen=True):
    """One driver DaemonSet as one node sees it."""

    daemonset: DaemonSet
    revisions: Revisions = Revisions()
    wants_node: bool = True

    @property
    def uid(self) -> str:
        """The DaemonSet's identity."""
        return self.daemonset.uid

    @property
    def target(self) -> str:
        """``<uid>@<revision>`` of the newest revision, empty while it is not known."""
        newest = self.revisions.newest
        return f"{self.uid}@{newest[1]}" if newest and self.daemonset.observed else ""


def split_target(target: str) -> tuple[str, int]:
    """Return DaemonSet uid and revision of a target; revision 0 where it is not one."""
    uid, _, revision = target.rpartition("@")
    return (uid, int(revision)) if revision.isascii() and revision.isdigit() else (target, 0)


def owner_of(pod: Pod, sets: Iterable[DriverSet]) -> DriverSet | None:
    """Return the DaemonSet that controls the pod, if it is among these."""
    owner = pod.controller_ref
    return next((s for s in sets if owner is not None and s.uid == owner.uid), None)


def standing(pod: Pod, sets: Iterable[DriverSet], granted: str = "") -> Standing:
    """Judge a driver pod.

    Args:
        pod: The pod.
        sets: The DaemonSets that it may belong to.
        granted: The target that the node was granted for: the cache must not be behind it.
    """
    owner = pod.controller_ref
    if owner is None:
        return Standing.ORPHAN
    driver = owner_of(pod, sets)
    if driver is None:
        return Standing.UNSETTLED
    return _against(pod.labels.get(HASH_LABEL, ""), driver, granted)


def _against(pod_hash: str, driver: DriverSet, granted: str) -> Standing:
    newest = driver.revisions.newest
    if newest is None or not driver.daemonset.observed:
        return Standing.UNSETTLED
    uid, revision = split_target(granted)
    if uid == driver.uid and revision > newest[1]:
        return Standing.UNSETTLED
    if pod_hash == newest[0]:
        return Standing.CURRENT
    if pod_hash in driver.revisions.known or pod_hash in driver.revisions.absent:
        return Standing.OUTDATED
    return Standing.UNSETTLED


def needs_list(pod: Pod, sets: Iterable[DriverSet], granted: str = "") -> DriverSet | None:
    """Return the DaemonSet whose revisions must be listed before this pod can be judged, if that is what is missing."""
    driver = owner_of(pod, sets)
    if driver is None or not driver.daemonset.observed:
        return None
    return driver if standing(pod, sets, granted) is Standing.UNSETTLED else None

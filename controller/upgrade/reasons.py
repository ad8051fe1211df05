"""Why a node is not moving (design, section 7): one vocabulary for explain, status, Events, logs and metrics."""

from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """Machine-readable causes. Values are stable: alerts and scripts match them."""

    NO_SLOT = "NoSlot"
    MAX_UNAVAILABLE = "MaxUnavailable"
    HALTED = "Halted"
    PAUSED = "Paused"
    SKIPPED = "Skipped"
    NODE_NOT_READY = "NodeNotReady"
    NODE_CORDONED = "NodeCordoned"
    DRIVER_POD_MISSING = "DriverPodMissing"
    OTHER_DRIVER_IN_PROGRESS = "OtherDriverInProgress"
    OTHER_OPERATOR = "OtherOperator"
    POLICY_CONFLICT = "PolicyConflict"
    POLICY_INVALID = "PolicyInvalid"
    NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
    INVALID_STATE = "InvalidState"
    REVISION_UNKNOWN = "RevisionUnknown"
    PODS_NOT_LISTED = "PodsNotListed"
    JOBS_RUNNING = "JobsRunning"
    EVICTING = "Evicting"
    POD_DISRUPTION_BUDGET = "PodDisruptionBudget"
    MULTIPLE_POD_DISRUPTION_BUDGETS = "MultiplePodDisruptionBudgets"
    POD_TERMINATING = "PodTerminating"
    NAMESPACE_TERMINATING = "NamespaceTerminating"
    UNMANAGED_POD = "UnmanagedPod"
    EMPTY_DIR_POD = "EmptyDirPod"
    EVICTION_DENIED = "EvictionDenied"
    FORBIDDEN = "Forbidden"
    API_THROTTLED = "ApiThrottled"
    API_UNAVAILABLE = "ApiUnavailable"
    DRIVER_POD_PENDING = "DriverPodPending"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    DRIVER_POD_CRASHING = "DriverPodCrashing"
    DRIVER_POD_NOT_READY = "DriverPodNotReady"
    DRIVER_POD_TERMINATING = "DriverPodTerminating"
    VALIDATION_POD_MISSING = "ValidationPodMissing"
    VALIDATION_NOT_READY = "ValidationNotReady"
    CORDON_LIFTED = "CordonLifted"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    DAEMONSET_GONE = "DaemonSetGone"
    FAILED = "Failed"


PASSING = frozenset({Reason.EVICTING, Reason.REVISION_UNKNOWN, Reason.PODS_NOT_LISTED, Reason.DRIVER_POD_NOT_READY})
"""Waits that healthy upgrades go through: they are told with all others, but are never the headline."""


class Blocker(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One thing that holds a node up: a pod, what of it, and since when (server time, seconds).

    ``until`` is when the grace of a pod that is being deleted is over; 0 where nothing says when it ends.
    """

    reason: Reason
    namespace: str = ""
    name: str = ""
    message: str = ""
    since: float = 0.0
    until: float = 0.0

    def __str__(self) -> str:
        what = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{what}: {self.reason}" + (f" ({self.message})" if self.message else "")

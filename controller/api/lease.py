"""Leases of leader election."""

from controller.api.meta import KubeObject, Trimmed


class LeaseSpec(Trimmed, frozen=True, gc=False):
    """Who holds the Lease. Times are kept as text: they are for people to read."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(KubeObject, frozen=True, gc=False):
    """coordination.k8s.io/v1 Lease."""

    spec: LeaseSpec = LeaseSpec()

"""What is written into a Lease by its holder, and what a Lease that was given back looks like.

client-go's ``resourcelock/leaselock.go``.
"""

from typing import Final

from controller.api.lease import Lease, LeaseSpec
from controller.api.meta import micro_time

RELEASED_SECONDS: Final = 1
"""The duration that a Lease is given back with, as client-go does it; it tells a release from a person's edit."""


def lease_body(
    old: Lease | None, *, namespace: str, name: str, holder: str | None, seconds: int, at: float
) -> dict[str, object]:
    """Return what the Lease is to be.

    Args:
        old: As it is, whose version it replaces; None where there is none yet.
        namespace: Where it is.
        name: Its name.
        holder: Identity of the holder; None gives it back.
        seconds: Its duration.
        at: Server time in seconds since the epoch.
    """
    now = micro_time(at)
    was = old.spec if old else LeaseSpec()
    same = was.holder_identity == holder
    spec = LeaseSpec(
        holder_identity=holder,
        lease_duration_seconds=seconds,
        acquire_time=was.acquire_time if same or holder is None else now,
        renew_time=now,
        lease_transitions=(was.lease_transitions or 0) + (0 if same or holder is None or old is None else 1),
    )
    meta = old.metadata if old else {"name": name, "namespace": namespace}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}


def is_released(lease: Lease) -> bool:
    """Whether its holder has given the Lease back, by which it is free at once."""
    return not lease.spec.holder_identity and (lease.spec.lease_duration_seconds or 0) <= RELEASED_SECONDS

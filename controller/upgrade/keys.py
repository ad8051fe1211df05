"""The labels and annotations by which a node's upgrade is seen, steered and remembered (design, section 1).

All but the last two are those of NVIDIA's k8s-operator-libs, so that its dashboards, scripts and half-upgraded nodes
carry over. ``nvidia.com`` is the default domain only; a controller that runs beside an operator's own needs another.
"""

from functools import lru_cache

import msgspec

DEFAULT_DOMAIN = "nvidia.com"
TRUE = "true"


class Keys(msgspec.Struct, frozen=True):
    """The keys of one driver. Made by :func:`keys_for`."""

    driver: str
    state: str
    """Node label: the state."""
    skip: str
    """Node label ``true``: never grant this node."""
    drain_skip: str
    """Pod label ``true``: never evict this pod."""
    safe_load: str
    """Node annotation: the driver's init container waits until it is removed."""
    initial_unschedulable: str
    """Node annotation ``true``: leave the node cordoned at the end."""
    jobs_start: str
    """Node annotation, the peer's clock: removed when a node is taken over, never written."""
    validation_start: str
    """Node annotation, the peer's clock: removed when a node is taken over, never written."""
    requested: str
    """Node annotation ``true``: upgrade or restart this node although it is current."""
    requestor_mode: str
    """Node annotation: another operator owns this node's upgrade."""
    record: str
    """Node annotation: our record (:mod:`controller.upgrade.record`)."""


@lru_cache(maxsize=256)
def keys_for(driver: str, domain: str = DEFAULT_DOMAIN) -> Keys:
    """Return the keys of a driver under a label domain."""
    stem = f"{domain}/{driver}-driver-upgrade"
    return Keys(
        driver=driver,
        state=f"{stem}-state",
        skip=f"{stem}.skip",
        drain_skip=f"{stem}-drain.skip",
        safe_load=f"{stem}.driver-wait-for-safe-load",
        initial_unschedulable=f"{stem}.node-initial-state.unschedulable",
        jobs_start=f"{stem}-wait-for-pod-completion-start-time",
        validation_start=f"{stem}-validation-start-time",
        requested=f"{stem}-requested",
        requestor_mode=f"{stem}-requestor-mode",
        record=f"{stem}.record",
    )


def paused_key(domain: str = DEFAULT_DOMAIN) -> str:
    """Return the annotation that pauses a policy of a kind that is not ours."""
    return f"{domain}/driver-upgrade.paused"

"""Settings of a running controller, from the command line."""

from dataclasses import dataclass, field

from controller.upgrade.keys import DEFAULT_DOMAIN
from controller.upgrade.sources import OWN_KIND, Source, seed_kind


@dataclass(frozen=True)
class Options:
    """What ``driver-upgrade run`` was told.

    ``driver_order`` decides between drivers that want the same node; drivers that are not in it come last, by name.
    ``marks_qps`` is how many nodes at rest are marked a second. ``pod_uid`` is our own pod's, which a drain never evicts.
    """

    driver_namespaces: tuple[str, ...]
    sources: tuple[Source, ...] = field(default_factory=lambda: (OWN_KIND, seed_kind()))
    domain: str = DEFAULT_DOMAIN
    driver_order: tuple[str, ...] = ()
    workers: int = 64
    marks_qps: float = 50.0
    pod_uid: str = ""

    def default_namespaces(self, own: str) -> tuple[str, ...]:
        """Return the driver namespaces where none were given: our own, and those of cluster-scoped sources."""
        return tuple(dict.fromkeys((own, *(s.namespace for s in self.sources if s.namespace))))

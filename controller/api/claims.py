"""ResourceClaim (dynamic resource allocation), trimmed to which drivers' devices a pod holds through it."""

from controller.api.meta import KubeObject, Trimmed


class DeviceResult(Trimmed, frozen=True, gc=False):
    """One allocated device; ``driver`` is the DRA driver's name, such as ``gpu.nvidia.com``."""

    driver: str = ""


class DeviceAllocation(Trimmed, frozen=True, gc=False):
    """The devices of an allocation."""

    results: tuple[DeviceResult, ...] | None = None


class Allocation(Trimmed, frozen=True, gc=False):
    """What was allocated."""

    devices: DeviceAllocation | None = None


class ResourceClaimStatus(Trimmed, frozen=True, gc=False):
    """The allocation; none before a pod that uses the claim is scheduled."""

    allocation: Allocation | None = None


class ResourceClaim(KubeObject, frozen=True, gc=False):
    """A claim on devices, shared by the pods that name it."""

    status: ResourceClaimStatus = ResourceClaimStatus()

    @property
    def drivers(self) -> tuple[str, ...]:
        """Names of the DRA drivers whose devices are allocated."""
        allocation = self.status.allocation
        results = allocation.devices.results if allocation and allocation.devices else None
        return tuple(sorted({r.driver for r in results or () if r.driver}))

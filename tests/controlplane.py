"""One real control plane for all tests of a session, whichever suite they belong to; it is always stopped."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tools.controlplane.api import Api
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import SERVICE_ACCOUNTS

CRDS = Path(__file__).parents[1] / "manifests" / "crd"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def control_plane() -> AsyncIterator[ControlPlane]:
    """Real API server, controllers, scheduler, and kwok. The audit log has the bodies of writes: the checker's evidence."""
    async with ControlPlane.start(audit_level="RequestResponse") as running:
        yield running


async def namespace_ready(api: Api, *names: str) -> None:
    """Waits until pods may be made in new namespaces: admission looks for ServiceAccount `default` two seconds at most.

    A controller makes it, which takes its time on a busy machine, and starts anew when the API server was away.
    """
    for name in names:
        await api.wait_for_object(SERVICE_ACCOUNTS, "default", bool, name, what=f"ServiceAccount default of {name}")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def crds(control_plane: ControlPlane) -> None:
    """Our custom resource definitions."""
    async with Api(control_plane.access) as client:
        for path in sorted(CRDS.glob("*.nvidia.com.yaml")):
            await client.apply(path.read_text())

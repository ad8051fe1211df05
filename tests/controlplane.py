"""One real control plane for all tests of a session, whichever suite they belong to; it is always stopped."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tools.controlplane.api import Api
from tools.controlplane.cluster import ControlPlane

CRDS = Path(__file__).parents[1] / "manifests" / "crd"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def control_plane() -> AsyncIterator[ControlPlane]:
    """Real API server, controllers, scheduler, and kwok. The audit log has the bodies of writes: the checker's evidence."""
    async with ControlPlane.start(audit_level="RequestResponse") as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def crds(control_plane: ControlPlane) -> None:
    """Our custom resource definitions."""
    async with Api(control_plane.access) as client:
        for path in sorted(CRDS.glob("*.nvidia.com.yaml")):
            await client.apply(path.read_text())

"""The image is really built, once for the session, and really run, on a real control plane."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tools.account import Replica, installed
from tools.controlplane.api import Api
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.terminal import Reporter
from tools.image import build, tooling

CRDS = Path(__file__).parents[2] / "manifests" / "crd"


@pytest.fixture(scope="session")
def image() -> str:
    """The name of the built image."""
    if reasons := tooling.missing():
        pytest.skip("; ".join(reasons))
    return build.build(Reporter())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def control_plane() -> AsyncIterator[ControlPlane]:
    """A real control plane that knows our kinds."""
    async with ControlPlane.start() as cp, Api(cp.access) as api:
        for path in sorted(CRDS.glob("*.nvidia.com.yaml")):
            await api.apply(path.read_text())
        yield cp


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ours(control_plane: ControlPlane) -> Replica:
    """A pod of the controller's, with the account and the permissions of the manifests."""
    async with Api(control_plane.access) as api:
        return await installed(api, control_plane.access, "default", control_plane.directory)

"""The controller on the real control plane, with the fault proxy between them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.cluster.conftest import api, cluster, pytest_runtest_makereport
from tests.cluster.world import World
from tools.faultproxy.proxy import FaultProxy

__all__ = ["api", "cluster", "pytest_runtest_makereport"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest_asyncio.fixture
async def proxy(cluster: World, tmp_path: Path) -> AsyncIterator[FaultProxy]:
    """A proxy before the API server; nothing goes wrong until its plan says so."""
    async with FaultProxy.start(cluster.control_plane.access, tmp_path) as running:
        yield running

"""Fixtures of the tests on the real control plane, which `tests/controlplane.py` starts once for the whole session."""

import itertools
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from tests.cluster.world import World, world
from tests.controlplane import namespace_ready
from tools.controlplane import scene
from tools.controlplane.api import Api
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.resources import NAMESPACES

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the log of every controller that a failed test ran."""
    report = yield
    made: Any = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(made, World):
        for process in made.processes:
            log = "\n".join(orjson.dumps(line).decode() for line in process.lines[-200:])
            report.sections.append(("log of the controller", log))
    return report


@pytest_asyncio.fixture
async def api(control_plane: ControlPlane) -> AsyncIterator[Api]:
    """The administrator, in the test's own event loop."""
    async with Api(control_plane.access) as client:
        yield client


@pytest_asyncio.fixture
async def namespace(api: Api) -> AsyncIterator[str]:
    """A namespace of the test's own, removed in the background afterwards."""
    name = f"test-{next(_numbers)}"
    await api.create(scene.namespace(name))
    await namespace_ready(api, name)
    yield name
    await api.delete(NAMESPACES, name)


@pytest_asyncio.fixture
async def cluster(api: Api, control_plane: ControlPlane, crds: None) -> AsyncIterator[World]:
    """A part of the cluster of the test's own: nodes, driver, workloads, policy, controller."""
    async with world(api, control_plane) as made:
        yield made

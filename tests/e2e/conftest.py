"""The site of the end-to-end tests: control plane, real node, and the controller as its manifests deploy it.

These tests run in namespaces that `make e2e` makes; anywhere else they are not even collected, for there is nothing that
they could run on.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.site import Site, opened
from tools.e2e import node

collect_ignore_glob = [] if node.IMAGES_VARIABLE in os.environ else ["test_*.py"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def site() -> AsyncIterator[Site]:
    """One site for all tests, which follow on each other: a cluster has a history."""
    async with opened(Path(os.environ[node.IMAGES_VARIABLE]), os.environ[node.CGROUP_VARIABLE]) as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Adds what the containers of a failed test said."""
    report = yield
    made = getattr(item, "funcargs", {}).get("site")
    if report.failed and isinstance(made, Site):
        report.sections += made.logs()
    return report

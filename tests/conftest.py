"""What all tests share: in CI a skipped test is a failed one, for there everything that a test needs is installed."""

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.controlplane import control_plane, crds

__all__ = ["control_plane", "crds"]

IN_CI = os.environ.get("CI") == "true"

# How slow a machine is must not fail a test. In CI a change is judged by the same examples as the one before it; elsewhere
# each run looks at others.
settings.register_profile(
    "project", deadline=None, print_blob=True, derandomize=IN_CI, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("project")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which counts as a failure in CI: {report.longrepr}"
    return report

"""Programs of Debian packages that some tests need. .ci/run installs them; in CI a skip is a failure."""

import shutil

import pytest

PACKAGES = {"promtool": "prometheus", "prometheus": "prometheus", "prometheus-alertmanager": "prometheus-alertmanager"}


def needed(name: str) -> str:
    """Where the program is; skips the test where it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is missing: apt-get install {PACKAGES[name]}")
    return path

"""Each case runs twice: on the simulator's API server, and on a real one (marked ``cluster``)."""

import pytest

from tests.contract.runners import Real, Simulated
from tests.contract.server import Runner


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.cluster)])
def runner(request: pytest.FixtureRequest) -> Runner:
    """Runs a case."""
    if request.param == "simulated":
        return Simulated()
    request.getfixturevalue("crds")
    return Real(request.getfixturevalue("control_plane"))

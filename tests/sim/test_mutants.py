"""The checker is worth what it notices: every seeded defect of the controller is noticed."""

import pytest

from tests.sim.mutants import hunt
from tests.sim.mutations import MUTANTS


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_killed(name):
    assert hunt(name).killed


def test_there_are_enough():
    assert len(MUTANTS) >= 40
    assert all(any(name.startswith(f"P{n}") for name in MUTANTS) for n in range(1, 9))

"""The checker is worth what it notices: every seeded defect of the controller is noticed, by the rule that is about it."""

import pytest

from tests.sim import test_isolation, test_leader_mutants
from tests.sim.mutants import LIVES, hunt, killing
from tests.sim.mutations import MUTANTS

RULES = [*(f"S{n}" for n in range(1, 17)), *(f"L{n}" for n in range(1, 7))]
ELSEWHERE = {"S10": test_leader_mutants.S10, "L6": test_leader_mutants.L6, "L4": test_isolation.MUTANTS}
"""Rules about several replicas, and about the time that others take: with their mutants, which those modules run."""


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_killed(name):
    verdict = hunt(name)
    assert verdict.killed, (MUTANTS[name][1], verdict.others)


def test_there_are_enough():
    assert len(MUTANTS) >= 40
    assert all(any(name.startswith(f"P{n}") for name in MUTANTS) for n in range(1, 9))


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_kills(rule):
    """A rule by which nothing dies may be blind."""
    assert ELSEWHERE.get(rule) or [name for name, (_, killer, *_) in MUTANTS.items() if rule in killer.split()]


@pytest.mark.parametrize("life", LIVES)
def test_nothing_is_said_against_the_controller_itself(life):
    """A life in which something always seems to grow kills every mutant, and says nothing."""
    assert LIVES[life]() == []


def test_another_rule_does_not_kill():
    violations = ["1.0 S1 n00: 2 in progress", "2.0 S15 n00: a PATCH that changed nothing"]
    assert killing("S1", violations) == violations[0]
    assert killing("S1 S15", violations)
    assert not killing("S5", violations)
    assert not killing("S1 S5", violations)
    assert not killing("Fleet._drivers grows", violations)

"""Leader election's share of the mutants: who writes without asking, gives nothing back, or looks too rarely is noticed."""

from collections.abc import Callable

import pytest

from tests.sim.leaderworld import HAND_OVER, TAKE_OVER, Cluster, Election, Replica, elect
from tests.sim.mutants import swapped
from tests.sim.mutations import Edit
from tests.sim.scenes import scene

_ELECTOR = "kube.leaderelection:LeaderElector."


def _frozen(cluster: Cluster) -> None:
    """The leader stands still for longer than its Lease lasts, and goes on as if nothing had been."""
    leader = cluster.leader()
    leader.loop.freeze(on=True)
    cluster.world.loop.call_later(25, _go_on, leader)


def _go_on(leader: Replica) -> None:
    if not leader.ended:
        leader.loop.freeze(on=False)


def _run(act: Callable[[Cluster], None]) -> tuple[list[str], float]:
    """The violations, and the seconds until another replica led; without end where none did."""
    signalled: list[tuple[float, str]] = []

    def begin(cluster: Cluster) -> None:
        signalled.append((cluster.world.loop.time(), cluster.leader().name))
        act(cluster)

    violations: list[str] = []
    slowest = 0.0
    for number in range(3):
        plan = scene("drain two at a time")
        plan.seed = number
        cluster = elect(Election(plan, fence=False, script=[(0.3 + 0.4 * number, begin)]))
        violations += cluster.checker.violations
        at, who = signalled[-1]
        slowest = max(slowest, *(t - at for t, by in cluster.acquired if by != who), 0.0)
    return violations, slowest


def _kill(cluster: Cluster) -> None:
    Replica.kill(cluster.leader())


def _stop(cluster: Cluster) -> None:
    Replica.stop(cluster.leader())


S10: dict[str, Edit] = {
    "writes do not ask whether we lead": ("kube.writegate:WriteGate.check", "not self._leadership.is_leader", "False"),
}
L6: dict[str, tuple[Callable[[Cluster], None], float, Edit]] = {
    "the Lease is not given back": (_stop, HAND_OVER, (_ELECTOR + "run", "if answered and not lost:", "if False:")),
    "a standby looks once a minute": (
        _kill,
        TAKE_OVER,
        (_ELECTOR + "_wait", "return max(SHORTEST_WAIT, min(wait, left)) if left > 0 else wait", "return 60.0"),
    ),
}


@pytest.mark.parametrize("name", S10)
def test_who_writes_without_the_lease_is_noticed(name):
    assert not _run(_frozen)[0]
    with swapped([S10[name]]):
        violations, _ = _run(_frozen)
    assert any(" S10 " in violation for violation in violations), violations


@pytest.mark.parametrize("name", L6)
def test_a_slow_succession_is_noticed(name):
    act, limit, edit = L6[name]
    assert _run(act)[1] <= limit
    with swapped([edit]):
        violations, slowest = _run(act)
    assert slowest > limit
    assert any(" L6 " in violation for violation in violations), violations

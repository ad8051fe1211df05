"""Leader election together with all else that goes wrong, and the moments in which a leader's end is the hardest."""

import pytest

from tests.sim.faults import MOMENTS
from tests.sim.leaderworld import FOREVER, HAND_OVER, TAKE_OVER, Cluster, Election, elect
from tests.sim.network import LINGER, Verdict
from tests.sim.scenes import scene
from tests.sim.world import random_plan

BUSY = "drain two at a time"
FAULTS = ("errors", "watch", "meddle", "all", "storm")
SEEDS = 4
KILLED = ("restart", "drain")
LEASE_SECONDS = 15.0
DRAINED = 20.0


@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_replicas_under_faults(seed, faults):
    """Random clusters with two and three replicas, whose requests for the Lease fail like any others.

    With the fence, as some writes travel for longer than a deposed leader has until the next one.
    """
    cluster = elect(Election(random_plan(seed, faults), 2 + seed % 2, fence_lag=0.0))
    assert not cluster.checker.violations, cluster.checker.violations[:20]
    assert cluster.troubles.count > 0
    assert cluster.checker.upgrades > 0


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", KILLED)
def test_killed_at_every_write(name, moment):
    """Before the write is sent, carried out but unanswered, and answered: a standby takes over and finishes the rollout."""
    index = finished = 0
    while True:
        index += 1
        plan = scene(name)
        cluster = elect(Election(plan, kill_at=(index, moment), fence=False))
        assert not cluster.checker.violations, (index, cluster.checker.violations)
        assert cluster.checker.upgrades == plan.nodes
        if not cluster.faults:
            break
        ((at, leader),) = cluster.kills
        assert leader == cluster.acquired[0][1]
        assert not [e for e in cluster.ours if e.actor == leader and e.at > at + LINGER]
        finished += any(e.at > at and e.actor != leader for e in cluster.ours)
        assert cluster.until_acquired(at, leader) <= TAKE_OVER
        assert len(cluster.acquired) == 2
    assert finished > 8


def freeze_before_sending(cluster: Cluster) -> None:
    """The clock was looked at and the write is let through: here the machine is paused, until another one leads."""
    cluster.leader().freeze_before_sending()


def frozen(*, fence: bool) -> list[Cluster]:
    """Stories of it, at several writes."""
    clusters = []
    for number in range(8):
        plan = scene("all at once")
        plan.seed = number
        election = Election(plan, fence=fence, fence_lag=0.0, script=[(0.02 + 0.2 * number, freeze_before_sending)])
        clusters.append(elect(election))
    return clusters


def test_frozen_between_the_last_look_and_the_sending():
    """Nothing in the process can help: without the fence the write is carried out in the next one's term."""
    without = frozen(fence=False)
    assert any(" S10 " in violation for cluster in without for violation in cluster.checker.violations)
    fenced = frozen(fence=True)
    assert not [violation for cluster in fenced for violation in cluster.checker.violations]
    assert sum(cluster.fence.refused for cluster in fenced) > 0
    assert all(len(cluster.acquired) > 1 for cluster in fenced)


@pytest.mark.parametrize("late", [FOREVER, DRAINED + 0.5], ids=["never carried out", "carried out when all is over"])
@pytest.mark.parametrize("number", range(3))
def test_a_write_without_an_answer_keeps_the_lease_from_being_given_back(number, late):
    """Nobody knows whether it will be carried out, so its sender stays the holder until the Lease has expired."""

    def stop(cluster: Cluster) -> None:
        cluster.leader().mute = Verdict(delay=late)

    plan = scene(BUSY)
    plan.seed = number
    cluster = elect(Election(plan, fence=False, script=[(0.02 + 0.3 * number, stop)]))
    assert not cluster.checker.violations, cluster.checker.violations
    ((asked, over),) = cluster.stops
    assert DRAINED - 0.001 <= over - asked <= DRAINED + HAND_OVER
    leader = cluster.acquired[0][1]
    assert leader not in cluster.released
    assert LEASE_SECONDS <= cluster.until_acquired(asked, leader) - (over - asked) + 2.0 <= TAKE_OVER
    assert cluster.checker.upgrades == plan.nodes

"""Two and three replicas: whatever happens to the leader, never two act, and soon another one does.

Every story is told in the middle of a rollout, with the processes' wall clocks an hour apart, and judged by the checker:
every write's sender holds the Lease and has renewed it in time (S10), and the rollout ends as if nothing had been (S1-S16).
"""

import random
from collections.abc import Callable

import pytest

from tests.sim.leaderworld import HAND_OVER, KEY, TAKE_OVER, Cluster, Election, Replica, elect
from tests.sim.scenes import scene

BUSY = "drain two at a time"
WHEN = (0.3, 1.0, 4.0)
"""Seconds after the rollout began: while grants are written, pods evicted, drivers restarted."""


def on_leader(act: Callable[[Replica], None]) -> Callable[[Cluster], None]:
    return lambda cluster: act(cluster.leader())


def fault_lease(kind: str, seconds: float) -> Callable[[Cluster], None]:
    """Something is wrong with the leader's requests for the Lease, and with no others, for a while."""

    def begin(cluster: Cluster) -> None:
        leader = cluster.leader()
        leader.lease_fault = kind
        cluster.world.loop.call_later(seconds, setattr, leader, "lease_fault", "")

    return begin


def freeze(seconds: float) -> Callable[[Cluster], None]:
    def begin(cluster: Cluster) -> None:
        leader = cluster.leader()
        leader.loop.freeze(on=True)
        cluster.world.loop.call_later(seconds, _thaw, leader)

    return begin


def _thaw(leader: Replica) -> None:
    if not leader.ended:
        leader.loop.freeze(on=False)


def partition(seconds: float) -> Callable[[Cluster], None]:
    def begin(cluster: Cluster) -> None:
        leader = cluster.leader()
        leader.partition(on=True)
        cluster.world.loop.call_later(seconds, lambda: leader.partition(on=False))

    return begin


STORIES: dict[str, tuple[Callable[[Cluster], None], bool]] = {
    "killed": (on_leader(Replica.kill), False),
    "asked to stop": (on_leader(Replica.stop), False),
    "frozen for long": (freeze(25), True),
    "frozen for less than the deadline": (freeze(6), False),
    "frozen between deadline and expiry": (freeze(12.5), True),
    "resets of lease requests": (fault_lease("reset", 40), True),
    "a short series of resets": (fault_lease("reset", 5), False),
    "lost answers to renewals": (fault_lease("unanswered", 40), True),
    "a few lost answers": (fault_lease("unanswered", 5), False),
    "lease requests that hang and arrive late": (fault_lease("hang", 40), True),
    "lease requests that never arrive": (fault_lease("never", 40), True),
    "partitioned": (partition(60), True),
    "lease deleted": (lambda c: c.delete_lease(), False),
    "holder taken out": (lambda c: c.edit_lease(holderIdentity=None), False),
    "duration shortened": (lambda c: c.edit_lease(leaseDurationSeconds=1), False),
    "lease given to somebody unknown": (lambda c: c.edit_lease(holderIdentity="somebody"), True),
    "renewal said to be an hour ago": (lambda c: c.edit_lease(renewTime="2001-01-01T00:00:00.000000Z"), False),
}
"""What happens, and whether it must end the leader."""


@pytest.mark.parametrize("fence", [True, False], ids=["fence", "no fence"])
@pytest.mark.parametrize("name", STORIES)
def test_never_two_that_act(name, fence):
    act, demoted = STORIES[name]
    for number, after in enumerate(WHEN):
        plan = scene(BUSY)
        plan.seed = number
        cluster = elect(Election(plan, 2 + number % 2, fence, script=[(after, act)]))
        assert not cluster.checker.violations, (after, cluster.checker.violations)
        assert cluster.checker.upgrades == 4
        first = cluster.acquired[0][1]
        assert (first in cluster.lost) == demoted
        moved = demoted or name in {"killed", "asked to stop"}
        assert (len(cluster.acquired) > 1) == moved
        if not moved:
            assert {entry.actor for entry in cluster.ours} == {first}


@pytest.mark.parametrize(("name", "limit"), [("killed", TAKE_OVER), ("asked to stop", HAND_OVER)])
def test_somebody_leads_soon(name, limit):
    """From the signal to the next holder's first look at the nodes; twelve times, as renewals and looks fall differently."""
    for number in range(12):
        plan = scene(BUSY)
        plan.seed = number
        after = 0.5 + number * 0.37
        signalled: list[tuple[float, str]] = []

        def act(cluster: Cluster, signalled: list[tuple[float, str]] = signalled) -> None:
            signalled.append((cluster.world.loop.time(), cluster.leader().name))
            STORIES[name][0](cluster)

        cluster = elect(Election(plan, script=[(after, act)]))
        assert not cluster.checker.violations, cluster.checker.violations
        ((at, who),) = signalled
        assert cluster.until_acquired(at, who) <= limit
        following = next((e for e in cluster.ours if e.at > at and e.actor != who), None)
        assert following is not None, "there was nothing left to do: the story says nothing"


@pytest.mark.parametrize("slow", [True, False])
def test_clocks_that_drift_apart_by_a_fifth(slow, monkeypatch):
    """The leader's clock is slow, or its rivals' are fast, and it cannot renew: it still stops before the lease expires."""
    monkeypatch.setattr("tests.checker.leaders.RENEW_DEADLINE", 12.0)  # ten seconds of the slow clock
    rates = {1: 1 / 1.2, 2: 1 / 1.2} if slow else {2: 1.2, 3: 1.2, 4: 1.2}
    for kind in ("reset", "never", "unanswered"):
        cluster = elect(Election(scene(BUSY), fence=False, rates=rates, script=[(1.0, fault_lease(kind, 40))]))
        assert not cluster.checker.violations, (kind, cluster.checker.violations)
        assert len(cluster.acquired) == 2
        assert cluster.checker.upgrades == 4


def late_and_cut_off(cluster: Cluster) -> None:
    """Its writes are held up on their way, by a proxy say, and arrive when another one leads."""
    leader = cluster.leader()
    leader.late = 18.0
    leader.lease_fault = "reset"


def handed_over_by_hand(cluster: Cluster) -> None:
    """A person writes a standby's name into the Lease, which cannot tell this from its own."""
    standby = cluster.standby()
    cluster.edit_lease(holderIdentity=f"{standby.name}_uid-{standby.number}")


def deleted_while_one_starts(cluster: Cluster) -> None:
    """A replica that has never seen a holder finds no Lease, and takes it before the leader writes it again."""
    cluster.delete_lease()
    cluster.start()


NEEDS_FENCE: dict[str, Callable[[Cluster], None]] = {
    "late writes": late_and_cut_off,
    "handed over by hand": handed_over_by_hand,
    "deleted while one starts": deleted_while_one_starts,
}


@pytest.mark.parametrize("name", NEEDS_FENCE)
def test_what_only_the_fence_keeps_out(name):
    """Without it the old leader's write is carried out in the new one's time; with it, it is refused."""

    def told(fence: bool) -> list[Cluster]:
        stories = []
        for number in range(8):
            plan = scene("all at once")
            plan.seed = number
            script = [(0.02 + 0.2 * number, NEEDS_FENCE[name])]
            stories.append(elect(Election(plan, fence=fence, fence_lag=0.0, script=script)))
        return stories

    without = [v for cluster in told(False) for v in cluster.checker.violations]
    assert any(" S10 " in violation for violation in without)
    fenced = told(True)
    assert not [v for cluster in fenced for v in cluster.checker.violations]
    assert sum(cluster.fence.refused for cluster in fenced) > 0


def test_a_fence_that_learns_late_delays_a_new_leader_and_nothing_else():
    """Its refusals of the first seconds are taken as "not yet": none is told to anyone, and the rollout goes on."""
    cluster = elect(Election(scene(BUSY), fence_lag=3.0, script=[(1.0, on_leader(Replica.kill))]))
    assert not cluster.checker.violations
    assert cluster.fence.refused > 0
    assert cluster.checker.upgrades == 4
    (_, (at, who)) = cluster.acquired
    accepted = [e for e in cluster.ours if e.actor == who and e.code < 400 and e.kind == "nodes"]
    assert 3.0 <= accepted[0].at - at <= 5.0


def test_without_a_lease_the_fence_lets_nobody_write():
    cluster = elect(Election(scene(BUSY), fence_lag=0.0, script=[(1.0, lambda c: c.delete_lease())]))
    assert not cluster.checker.violations
    assert cluster.world.server.get("leases", KEY) is not None


SCENES = ("drain", BUSY, "all at once", "budget", "jobs", "pod deletion", "validation", "safe load", "foreign cordon")
ANY_TIME = ("killed", "asked to stop", *(name for name in STORIES if name not in {"killed", "asked to stop"}))


@pytest.mark.parametrize("fence", [True, False], ids=["fence", "no fence"])
@pytest.mark.parametrize("seed", range(16))
def test_several_things_at_once(seed, fence):
    """Any of the stories, some times over, one into the other, with clocks that drift. A seed tells the same each time."""
    rng = random.Random(f"{seed} stories")
    plan = scene(rng.choice(SCENES))
    plan.seed = seed
    script = [(rng.uniform(0.1, 90), if_led(STORIES[rng.choice(ANY_TIME)][0])) for _ in range(rng.randint(2, 6))]
    rates = {number: rng.choice([0.97, 1.0, 1.0, 1.03]) for number in range(1, 12)}
    cluster = elect(Election(plan, rng.choice([2, 3]), fence, script=script, rates=rates))
    assert not cluster.checker.violations, cluster.checker.violations
    assert cluster.checker.upgrades >= plan.nodes


def if_led(act: Callable[[Cluster], None]) -> Callable[[Cluster], None]:
    """What is to befall the leader befalls nobody while there is none."""

    def begin(cluster: Cluster) -> None:
        if any(replica.leads for replica in cluster.replicas.values()) and cluster.world.server.get("leases", KEY):
            act(cluster)

    return begin


GRACEFUL = ("restart", "drain", "budget", "validation")


@pytest.mark.parametrize("name", GRACEFUL)
def test_asked_to_stop_at_every_write(name):
    """The write that is under way is answered, none follows the release of the Lease, and the next replica finishes."""
    index = 0
    while True:
        index += 1
        cluster = elect(Election(scene(name), stop_at=index, fence=False))
        assert not cluster.checker.violations, (index, cluster.checker.violations)
        if not cluster.faults:
            break
        ((asked, over),) = cluster.stops
        leader = cluster.acquired[0][1]
        assert leader in cluster.released
        assert not [e for e in cluster.ours if e.actor == leader and e.sent > asked], "a write began after the signal"
        assert over - asked <= 1.0
        assert cluster.until_acquired(asked, leader) <= HAND_OVER
        assert not cluster.lost
    assert index > 8

"""The Lease while everything goes wrong with it, over real connections: never two that act, and the rollout ends.

Whose each write was, and whose the Lease, is in the audit log, by which every test's world is judged (S10, and L6, as the
standby has nothing in its way); `Election.check` looks once more at the order of the writes.
"""

from dataclasses import replace
from pathlib import Path

from tests.cluster.judge import LEASE
from tests.cluster.leaders import LOST
from tests.cluster.world import DONE, World
from tests.faults.leases import from_now_on, held_back, over, renewals, two
from tools.controlplane import scene
from tools.controlplane.resources import LEASES
from tools.faultproxy.plan import Fault, Kind, Plan

UNANSWERED = Fault(Kind.UNANSWERED)
CONFLICT = Fault(Kind.REFUSED, 409)
REFUSED = Fault(Kind.REFUSED, 500)
FAILING = (
    *(UNANSWERED, UNANSWERED, None, None),
    *(REFUSED, CONFLICT, CONFLICT, None),
    *(Fault(Kind.REFUSED, 429, retry_after=1), Fault(Kind.HANGS, seconds=3.0), None),
    replace(REFUSED, applied=True),
)
"""Never as much at once as ends a leader, which has ten seconds from one success to the next. After an answer that was lost
the next write fails by itself: it insists on the version before."""
SLOWLY = scene.stage(ready_delay="1s", delete_delay="50ms")


async def test_a_rollout_goes_on_while_renewals_fail(cluster: World, tmp_path: Path):
    """Answers lost, refusals, silence, then the Lease itself deleted. The last node waits until all that has happened."""
    *_, last = await cluster.nodes(4)
    await cluster.driver("1", annotations=SLOWLY)
    await cluster.workload("web", 4)
    await cluster.policy()
    async with two(cluster, tmp_path) as (election, leader, _):
        await cluster.state(DONE)
        await cluster.skip(last)
        leader.proxy.plan = Plan(1, renewals(*FAILING))
        await cluster.roll("2")
        await over(leader)
        old = await cluster.api.get(LEASES, LEASE, cluster.namespace)
        await cluster.api.delete(LEASES, LEASE, cluster.namespace)
        await cluster.unskip(last)
        await cluster.done("2")
        await cluster.api.wait_for_object(
            LEASES, LEASE, lambda lease: lease["metadata"]["uid"] != old["metadata"]["uid"], cluster.namespace
        )
        election.check()
    assert not leader.member.process.found(msg="leadership lost", error="was taken by")
    assert not await cluster.violations(at_rest=True)


async def test_a_leader_that_cannot_renew_has_no_effect_when_the_next_one_leads(cluster: World, tmp_path: Path):
    """Its first writes of a rollout are on their way when its renewals end, and would arrive when another one leads.

    A renewal is carried out without its knowledge, so that it counts from an earlier one than everybody else. What it has
    under way it must have given up: the API server does not carry out what nobody waits for any more, nor does the proxy.
    """
    await cluster.nodes(2)
    await cluster.driver("1")
    await cluster.workload("web", 2)
    await cluster.policy()
    async with two(cluster, tmp_path) as (election, leader, standby):
        await cluster.state(DONE)
        leader.proxy.plan = Plan(
            1, [*held_back(), *renewals(UNANSWERED, UNANSWERED), *from_now_on(Fault(Kind.HANGS, seconds=60.0))]
        )
        standby.proxy.plan = Plan(1, held_back())
        await cluster.roll("2")
        await leader.proxy.happens(str(Kind.HELD), resource="nodes")
        assert await election.leader(other_than=leader.member) is standby.member
        for write in leader.proxy.held():
            if not write.left:
                await write.send_on()
        standby.proxy.plan.clear()
        for write in standby.proxy.held():
            await write.send_on()
        await cluster.done("2")
        await election.led(leader.member, standby.member)
        assert await leader.member.process.ended() == LOST
    assert not await cluster.violations(at_rest=True)

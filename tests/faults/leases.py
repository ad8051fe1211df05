"""Two replicas that elect a leader, each behind a proxy of its own: what goes wrong with the one's Lease is its alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.leaders import LOST, Election, Member
from tests.cluster.world import World
from tests.faults.rollout import first, through
from tools.faultproxy.plan import Fault, Kind, Rule
from tools.faultproxy.proxy import FaultProxy


@dataclass(frozen=True)
class Seat:
    """A replica and its proxy."""

    member: Member
    proxy: FaultProxy


@asynccontextmanager
async def seated(cluster: World, election: Election, directory: Path) -> AsyncIterator[Seat]:
    """One replica behind a proxy of its own; it may lose leadership, and must then exit."""
    await asyncio.to_thread(directory.mkdir)
    async with (
        FaultProxy.start(cluster.control_plane.access, directory) as proxy,
        election.replica(LOST, through=lambda who: through(proxy, who, cluster.namespace)) as member,
    ):
        yield Seat(member, proxy)


@asynccontextmanager
async def two(cluster: World, directory: Path) -> AsyncIterator[tuple[Election, Seat, Seat]]:
    """The leader and a standby."""
    election = Election(cluster)
    async with seated(cluster, election, directory / "a") as leader:
        assert await election.leader() is leader.member
        async with seated(cluster, election, directory / "b") as standby:
            yield election, leader, standby


async def over(seat: Seat) -> None:
    """Waits until all has gone wrong that was to, or so slowly that it has cost the replica its leadership."""
    await first(seat.proxy.spent(), seat.member.process.logged(msg="leadership lost"))


def renewals(*faults: Fault | None) -> list[Rule]:
    """What goes wrong with one write of the Lease after the other; None lets one pass."""
    passed = [sum(fault is None for fault in faults[:number]) for number in range(len(faults))]
    return [
        Rule((fault,), ("update",), ("leases",), times=1, skip=skip)
        for fault, skip in zip(faults, passed, strict=True)
        if fault is not None
    ]


def from_now_on(fault: Fault) -> list[Rule]:
    """What goes wrong with every further write of the Lease."""
    return [Rule((fault,), ("update",), ("leases",))]


def held_back() -> list[Rule]:
    """No write arrives but of the Lease, before the test says so."""
    return [Rule((Fault(Kind.HELD),), ("patch", "evict", "delete"))]

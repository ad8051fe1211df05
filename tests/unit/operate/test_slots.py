"""Who gets a slot: some are left for the next group, however many of the others come and however long they stay."""

import asyncio

import pytest

from controller.operate.slots import FairSlots

pytestmark = pytest.mark.looptime


class Holders:
    """Takes slots for tasks that stay until they are told to go; tells who got one, in order."""

    def __init__(self, slots: int) -> None:
        self.slots = FairSlots(slots)
        self.got: list[str] = []
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}

    async def come(self, *names: str) -> None:
        """Each of a name such as ``group/member``."""
        for name in names:
            self._tasks.setdefault(name, []).append(asyncio.create_task(self._hold(name)))
        await asyncio.sleep(1)

    async def _hold(self, name: str) -> None:
        group, _, member = name.partition("/")
        async with self.slots.hold(group, member):
            self.got.append(name)
            await asyncio.Event().wait()

    async def go(self, *names: str) -> None:
        """The first that came of each name ends, wherever it is."""
        ended = [self._tasks[name].pop(0) for name in names]
        for task in ended:
            task.cancel()
            await asyncio.sleep(0)  # a slot is given away, and who got it is still to be told
        await asyncio.wait(ended)
        await asyncio.sleep(1)

    async def end(self) -> None:
        await self.go(*(name for name, tasks in self._tasks.items() for _ in tuple(tasks)))


async def test_a_group_leaves_as_many_as_it_takes():
    holders = Holders(8)
    await holders.come(*["slow"] * 10)
    assert holders.got == ["slow"] * 4
    await holders.come("other")
    assert holders.got[4:] == ["other"]
    await holders.end()


async def test_each_slow_group_takes_half_of_what_is_left():
    holders = Holders(64)
    groups = [f"slow{n}" for n in range(8)]
    for group in groups:
        await holders.come(*[group] * 100)
    assert [holders.got.count(group) for group in groups] == [32, 16, 8, 4, 2, 1, 1, 0]
    await holders.go("slow0")
    assert holders.got[64:] == ["slow7"], "what is given back is for those who have none"
    await holders.end()


async def test_groups_take_turns():
    holders = Holders(1)
    await holders.come("a", "b", "b", "b", "c", "c")
    for name in ("a", "b", "c", "b", "c", "b"):
        assert holders.got[-1] == name
        await holders.go(name)
    assert holders.got == ["a", "b", "c", "b", "c", "b"]


async def test_members_of_a_group_take_turns():
    holders = Holders(1)
    await holders.come("g/many", "g/many", "g/many", "g/few", "g/many")
    for name in ("g/many", "g/many", "g/few", "g/many", "g/many"):
        assert holders.got[-1] == name
        await holders.go(name)
    assert holders.got == ["g/many", "g/many", "g/few", "g/many", "g/many"]


async def test_who_stops_waiting_takes_nothing():
    holders = Holders(1)
    await holders.come("a", "b", "c")
    await holders.go("b")
    await holders.go("a")
    assert holders.got == ["a", "c"]
    await holders.end()


async def test_a_slot_given_to_somebody_who_stops_at_the_same_moment_is_given_on():
    holders = Holders(1)
    await holders.come("a", "b", "c")
    await holders.go("a", "b")
    assert holders.got == ["a", "c"]
    await holders.end()


async def test_nothing_is_kept():
    holders = Holders(2)
    await holders.come("a/x", "a/y", "b/x", "c/z")
    await holders.end()
    assert (holders.slots._free, not holders.slots._held, holders.slots._waiting) == (2, True, {})

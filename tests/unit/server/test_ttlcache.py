"""A cache with an end and a bound, in virtual time."""

import asyncio

import pytest

from controller.server.ttlcache import TTLCache

pytestmark = pytest.mark.looptime


async def test_a_value_is_there_for_its_time_and_reading_does_not_prolong_it():
    cache: TTLCache[str, int] = TTLCache(10, 2)
    cache.put("a", 1)
    await asyncio.sleep(9)
    assert cache.get("a") == 1
    await asyncio.sleep(1)
    assert cache.get("a") is None
    assert len(cache) == 0


async def test_putting_again_begins_the_time_anew():
    cache: TTLCache[str, int] = TTLCache(10, 2)
    cache.put("a", 1)
    await asyncio.sleep(6)
    cache.put("a", 2)
    await asyncio.sleep(6)
    assert cache.get("a") == 2


async def test_where_it_is_full_the_oldest_goes():
    cache: TTLCache[str, int] = TTLCache(10, 2)
    for number, name in enumerate("abc"):
        cache.put(name, number)
    assert [cache.get(name) for name in "abc"] == [None, 1, 2]


async def test_what_has_ended_takes_no_room():
    cache: TTLCache[str, int] = TTLCache(10, 2)
    cache.put("a", 1)
    await asyncio.sleep(11)
    cache.put("b", 2)
    cache.put("c", 3)
    assert (cache.get("b"), cache.get("c")) == (2, 3)

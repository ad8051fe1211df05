"""The arithmetic of the two caps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.upgrade.budget import UNLIMITED, free_room, free_slots, scale


@pytest.mark.parametrize(
    ("cap", "total", "nodes"),
    [
        (None, 10, UNLIMITED),
        (0, 10, 0),
        (3, 10, 3),
        (30, 10, 30),
        ("0%", 10, 0),
        ("1%", 10, 1),
        ("1%", 100, 1),
        ("1%", 101, 2),
        ("25%", 10, 3),
        ("29%", 100, 29),
        ("57%", 100, 57),
        ("33%", 3, 1),
        ("34%", 3, 2),
        ("100%", 7, 7),
        ("50%", 0, 0),
    ],
)
def test_percentages_are_rounded_up(cap: int | str | None, total: int, nodes: int):
    assert scale(cap, total) == nodes


@given(st.integers(0, 100), st.integers(0, 100_000))
def test_rounding_up_is_exact(percent: int, total: int):
    nodes = scale(f"{percent}%", total)
    assert (nodes - 1) * 100 < percent * total <= nodes * 100


@pytest.mark.parametrize(
    ("most", "busy", "free"), [(1, 0, 1), (1, 1, 0), (3, 5, 0), (0, 0, UNLIMITED), (0, 5000, UNLIMITED)]
)
def test_slots(most: int, busy: int, free: int):
    assert free_slots(most, busy) == free


@pytest.mark.parametrize(
    ("cap", "total", "unavailable", "room"),
    [(None, 5, 5, UNLIMITED - 5), (0, 5, 0, 0), ("25%", 10, 2, 1), ("25%", 10, 9, 0), (20, 5, 3, 17), ("100%", 5, 5, 0)],
)
def test_room(cap: int | str | None, total: int, unavailable: int, room: int):
    assert free_room(cap, total, unavailable) == room

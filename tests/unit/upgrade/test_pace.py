"""When a rollout will end: never before now, never without a pace, and steady where nothing has changed."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.upgrade.facts import ORDINARY, Ask, Facts
from controller.upgrade.fleet import Fleet, Tally
from controller.upgrade.pace import WINDOW, Progress, estimate, progress, steady
from controller.upgrade.reasons import Reason
from controller.upgrade.states import State
from tests.unit.upgrade.builders import NOW, policy


def done(times: Iterable[float]) -> list[tuple[float, str]]:
    return [(at, f"n{number}") for number, at in enumerate(times)]


@pytest.mark.parametrize(
    ("finished", "busy", "waiting", "after"),
    [
        pytest.param([], 1, 5, None, id="no pace yet"),
        pytest.param([-50.0], 1, 5, None, id="done before it began: not this rollout's pace"),
        pytest.param([50.0], 0, 0, None, id="nothing left"),
        pytest.param([50.0, 100.0], 0, 4, 200.0, id="two in 100 s, four to go"),
        pytest.param([50.0, 100.0], 2, 4, 500 / 3, id="those under way are half done"),
        pytest.param([100.0], 1, 0, 100 / 3, id="only the last is left"),
        pytest.param([1.0], 1, 10**9, None, id="in a year or more is no estimate"),
    ],
)
def test_the_end_follows_from_what_was_done(finished, busy, waiting, after):
    found = estimate(NOW, done(NOW + at for at in finished), busy, waiting, NOW + 100)
    assert found == (None if after is None else pytest.approx(NOW + 100 + after))


def test_what_was_long_ago_does_not_count():
    slow = [NOW + 1000.0 * n for n in range(1, 11)]
    fast = [slow[-1] + n for n in range(1, WINDOW + 2)]
    found = estimate(NOW, done([*slow, *fast]), 0, 10, fast[-1])
    assert found == pytest.approx(fast[-1] + 10)


def test_a_rollout_that_stands_still_ends_later_and_later():
    ends = [estimate(NOW, done([NOW + 10]), 1, 3, NOW + 10 + wait) or 0.0 for wait in (0, 100, 1000, 10_000)]
    assert ends == sorted(set(ends))


@given(st.lists(st.floats(-1e4, 1e4)).map(sorted), st.integers(0, 10**5), st.integers(0, 10**5), st.floats(-1e4, 1e6))
def test_the_end_is_never_past(finished: list[float], busy: int, waiting: int, at: float):
    found = estimate(NOW, done(NOW + f for f in finished), busy, waiting, NOW + at)
    assert found is None or found >= NOW + at
    told = steady(found, None, NOW + at)
    assert told is None or (found is not None and found <= told + 1e-3)


@pytest.mark.parametrize(
    ("end", "told", "kept"),
    [
        (105.0, 110.0, True),
        (125.0, 110.0, False),
        (3600.0, 3650.0, True),
        (3600.0, 3700.0, False),
        (50_000.0, 51_000.0, True),
        (105.0, -1.0, False),
    ],
)
def test_an_end_that_hardly_moves_is_not_told_again(end, told, kept):
    found = steady(NOW + end, NOW + told, NOW)
    assert (found == NOW + told) == kept


def fleet(*states: State, since: float = 0.0, blocked: Reason | None = None, failed: str = "") -> Tally:
    made = Fleet()
    for number, state in enumerate(states):
        ask = Ask.GRANT if state is State.UPGRADE_REQUIRED else Ask.NOTHING
        busy = state is State.DRAIN_REQUIRED
        facts = Facts(
            "p", state, True, busy, not busy, "ds@2", failed, ask, ORDINARY, blocked if ask is Ask.GRANT else None, since
        )
        made.update("gpu", f"n{number}", facts)
    return made.tally("gpu", "p")


DONE, WAITING, BUSY = State.UPGRADE_DONE, State.UPGRADE_REQUIRED, State.DRAIN_REQUIRED
GOING = fleet(DONE, DONE, BUSY, WAITING, WAITING, since=NOW - 50)
BEGUN = Progress(NOW - 100)


def test_a_rollout_under_way_has_a_begin_and_an_end():
    found = progress(policy(maxParallelUpgrades=1), GOING, BEGUN, NOW)
    assert found is not None
    assert found.started == NOW - 100
    assert found.completion == NOW + 100


def test_a_new_one_begins_now_and_has_no_end_yet():
    assert progress(policy(), GOING, None, NOW) == Progress(NOW)


def test_a_begin_in_the_future_is_now():
    """The server's time as we know it may be a second behind what was written by it."""
    assert progress(policy(), GOING, Progress(NOW + 5), NOW) == Progress(NOW)


def test_none_is_under_way_where_nothing_is_to_do():
    assert progress(policy(), fleet(DONE, State.UPGRADE_FAILED), BEGUN, NOW) is None
    assert progress(policy(autoUpgrade=False), GOING, BEGUN, NOW) is None


@pytest.mark.parametrize(
    ("given", "tally"),
    [
        pytest.param(policy(paused=True), GOING, id="paused"),
        pytest.param(policy(drain={"podSelector": "a in ("}), GOING, id="invalid"),
        pytest.param(policy(), fleet(DONE, BUSY, WAITING, since=NOW - 50, failed="ds@2"), id="halted"),
        pytest.param(policy(), fleet(DONE, WAITING, since=NOW - 50, blocked=Reason.SKIPPED), id="nothing that may begin"),
        pytest.param(policy(maxUnavailable=0), fleet(DONE, WAITING, since=NOW - 50), id="no room"),
        pytest.param(policy(maxUnavailable=0), GOING, id="no room, when what is in progress is done, either"),
    ],
)
def test_nothing_is_said_of_the_end_while_it_cannot_go_on(given, tally):
    assert progress(given, tally, Progress(NOW - 100, NOW + 70), NOW) == BEGUN


def test_what_is_in_progress_makes_room_when_it_is_done():
    """A node that is being upgraded is unavailable: the rollout goes on when it is not any more."""
    found = progress(policy(maxUnavailable=1), GOING, BEGUN, NOW)
    assert found is not None
    assert found.completion is not None


def test_a_small_change_changes_nothing():
    told = progress(policy(), GOING, BEGUN, NOW)
    assert told is not None
    assert progress(policy(), GOING, told, NOW + 1) == told

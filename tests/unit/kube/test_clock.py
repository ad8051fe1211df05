"""Server time from Date headers: narrows over many answers, ignores noise, follows a jump."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.kube.clock import CONTRADICTIONS, ServerClock


class Local:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def answer(clock: ServerClock, local: Local, server: float, *, took: float = 0.01) -> None:
    """One request that the server answered at this time of its own."""
    sent = local.at - took / 2
    clock.observe(formatdate(int(server), usegmt=True), sent, local.at + took / 2)


def test_the_guess_before_any_answer_is_the_wall_clock() -> None:
    local = Local()
    clock = ServerClock(local, lambda: 5000.0)
    local.at += 7
    assert clock.now() == pytest.approx(5007)


def test_the_first_answer_replaces_a_wrong_wall_clock() -> None:
    local = Local()
    clock = ServerClock(local, lambda: 5000.0)
    answer(clock, local, 1_700_000_000.4)
    assert abs(clock.now() - 1_700_000_000.4) <= 0.6


@given(st.floats(-1e6, 1e6), st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.001, 0.5)), min_size=1, max_size=60))
def test_the_truth_is_never_outside_what_was_learnt(offset: float, requests: list[tuple[float, float]]) -> None:
    local = Local()
    clock = ServerClock(local, lambda: 0.0)
    offset += 1_700_000_000
    for pause, took in requests:
        local.at += pause
        answer(clock, local, local.at + offset, took=took)
        assert clock._low - 1e-6 <= offset <= clock._high + 1e-6


def test_many_answers_narrow_it_below_a_second() -> None:
    local = Local()
    clock = ServerClock(local, lambda: 0.0)
    for _ in range(40):
        local.at += 0.173
        answer(clock, local, local.at + 1_700_000_000.25)
    assert abs(clock.now() - (local.at + 1_700_000_000.25)) < 0.05


def test_one_contradiction_is_noise_and_several_are_a_jump() -> None:
    local = Local()
    clock = ServerClock(local, lambda: 0.0)
    answer(clock, local, 1_700_000_000.0)
    before = clock.now()
    answer(clock, local, 1_700_003_600.0)
    assert clock.now() == before
    for _ in range(CONTRADICTIONS - 1):
        answer(clock, local, 1_700_003_600.0)
    assert abs(clock.now() - 1_700_003_600.0) <= 1


@pytest.mark.parametrize("step", [-3600.0, -60.0, 60.0, 3600.0])
def test_a_step_is_told_when_it_is_believed(step: float) -> None:
    local, told = Local(), list[float]()
    clock = ServerClock(local, lambda: 0.0)
    clock.on_step(told.append)
    for _ in range(10):
        local.at += 1
        answer(clock, local, local.at + 1_700_000_000)
    assert not told  # the first answer replaces a guess, which is no step
    for _ in range(CONTRADICTIONS):
        assert not told
        answer(clock, local, local.at + 1_700_000_000 + step)
    assert told == [pytest.approx(step, abs=1.0)]
    assert abs(clock.now() - (local.at + 1_700_000_000 + step)) <= 1


@pytest.mark.parametrize("rate", [1.2, 1 / 1.2])
@pytest.mark.parametrize("pause", [0.5, 5.0, 600.0])
def test_a_clock_at_a_wrong_speed_is_no_step(rate: float, pause: float) -> None:
    """Ours or the server's, and however long nothing was asked."""
    local, told = Local(), list[float]()
    clock = ServerClock(local, lambda: 0.0)
    clock.on_step(told.append)
    for _ in range(500):
        local.at += pause
        answer(clock, local, 1_700_000_000 + local.at * rate)
    assert not told


def test_clocks_that_drift_apart_slowly_do_not_contradict() -> None:
    local = Local()
    clock = ServerClock(local, lambda: 0.0)
    for step in range(2000):
        local.at += 10
        server = 1_700_000_000.25 + local.at * 1.0003
        answer(clock, local, server)
        assert clock._contradictions == 0
        assert abs(clock.now() - server) < (1 if step < 100 else 0.6)


@pytest.mark.parametrize("date", ["", "nonsense", "Mon, 99 Xyz 2020 00:00:00 GMT"])
def test_unreadable_dates_are_ignored(date: str) -> None:
    local = Local()
    clock = ServerClock(local, lambda: 5000.0)
    clock.observe(date, 1.0, 2.0)
    assert clock.now() == pytest.approx(5000)

"""When a rollout began, and when it will end at the pace that it has had: pure functions of counts and times.

The pace is this rollout's own. Nothing is said before its first node is done, nor while it cannot go on to its end. One that
stands still has a pace that falls with each moment, so its estimated end moves away instead of passing.
"""

from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter

import msgspec

from controller.upgrade.admission import grants_new, halted_targets, why_never
from controller.upgrade.fleet import Tally
from controller.upgrade.policy import Policy
from controller.upgrade.states import State

WINDOW = 50
"""The pace is that of the last so many nodes: what was slow an hour ago says little about now."""
MOST_SECONDS = 365 * 86400.0
"""An end that is further away than this is no estimate."""
_STEPS = ((600.0, 10.0), (7200.0, 60.0), (21600.0, 300.0), (86400.0, 1800.0))


class Progress(msgspec.Struct, frozen=True):
    """A rollout under way. Times are server time in seconds; ``completion`` None where nothing can be said."""

    started: float
    completion: float | None = None


def is_under_way(policy: Policy, tally: Tally) -> bool:
    """Whether a rollout is under way: some node is being upgraded, or waits for it."""
    return policy.enabled and (tally.in_progress > 0 or tally.states[State.UPGRADE_REQUIRED] > 0)


def progress(policy: Policy, tally: Tally, earlier: Progress | None, now: float) -> Progress | None:
    """Judge a rollout; None where none is under way.

    Args:
        policy: Its policy.
        tally: Its counts.
        earlier: What was told last, where it was about the same rollout.
        now: Server time in seconds.
    """
    if not is_under_way(policy, tally):
        return None
    started = min(earlier.started, now) if earlier else now
    if not grants_new(policy) or halted_targets(policy, tally):
        return Progress(started)
    if tally.groups and not tally.validations and all(why_never(policy, tally, group) for group in tally.groups):
        return Progress(started)
    waiting = tally.waiting() + len(tally.validations)
    end = estimate(started, tally.finished, tally.in_progress, waiting, now)
    return Progress(started, steady(end, earlier.completion if earlier else None, now))


def estimate(started: float, finished: Sequence[tuple[float, str]], busy: int, waiting: int, now: float) -> float | None:
    """Return when the rollout will end if it goes on at its pace; None while it has none. Never before now.

    Args:
        started: When it began.
        finished: When which nodes became done, in order; those before it began do not count.
        busy: How many nodes are being upgraded. Each is taken for half done.
        waiting: How many are still to begin.
        now: Server time in seconds.
    """
    done = len(finished) - bisect_right(finished, started, key=itemgetter(0))
    since, counted, half_way = started, done, busy / 2
    if counted > WINDOW:
        since, counted, half_way = finished[-WINDOW - 1][0], WINDOW, 0.0
    left = waiting + busy / 2
    if not done or not left or now <= since:
        return None
    seconds = left * (now - since) / (counted + half_way)
    return now + seconds if seconds <= MOST_SECONDS else None


def steady(end: float | None, told: float | None, now: float) -> float | None:
    """Round an end up to a step that grows with its distance, and stay with what was told while that is as good."""
    if end is None:
        return None
    step = next((step for within, step in _STEPS if end - now <= within), 3600.0)
    if told is not None and told >= now and abs(told - end) <= step:
        return told
    return -(-end // step) * step

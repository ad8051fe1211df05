"""``python -m tests.sim.endurance --minutes 60``: one process of the controller lives through weeks of virtual time.

A table tells week by week what was upgraded, what was asked of the API server, and what the controller holds at rest; the
last line is one JSON object. The exit status is 1 where anything grew, or where there was more to ask at rest than the
ends of watches. Memory is compared once a quarter of the weeks is over, by which time all that has a bound is full.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from tests.sim.footprint import low_bounds, tracing
from tests.sim.harness import Outcome, Run, simulate_with
from tests.sim.leaderworld import Cluster, Election, elect
from tests.sim.life import BEAT, HOUR, WEEK, Life, Week, plan
from tests.sim.scenes import scene

WARM_UP = 2
"""Weeks before the first that is compared."""
EDGE = 2
"""Weeks at the beginning and at the end that are compared: the most then with the least now."""
WEEKS = WARM_UP + 2 * EDGE + 1
ALLOWED = 1
MEMORY_ALLOWED = 1.05
MOST_PER_SECOND = 0.6
"""Requests at rest, of one replica."""
LEASE_PER_SECOND = 0.5
"""What of that is the Lease's, which has no part in a life without election."""


def growth(weeks: Sequence[Week], edge: int = EDGE) -> Iterator[str]:
    """Say of what there is more in the last weeks than in the first after the warm-up."""
    first, last = weeks[WARM_UP : WARM_UP + edge], weeks[-edge:]
    for name in sorted({name for week in (*first, *last) for name in week.held}):
        before, now = max(w.held.get(name, 0) for w in first), min(w.held.get(name, 0) for w in last)
        if now > before + ALLOWED:
            yield f"{name} grows: {[w.held.get(name, 0) for w in weeks]}"
    if min(w.tasks for w in last) > max(w.tasks for w in first):
        yield f"tasks grow: {[w.tasks for w in weeks]}"
    for week in weeks:
        if week.stale:
            yield f"week {week.number}: series of what is gone: {week.stale[:5]}"


def more_memory(weeks: Sequence[Week]) -> Iterator[str]:
    """Say whether what the controller holds has more bytes in the last quarter of the weeks than in the second."""
    quarter = len(weeks) // 4
    before, now = ([w.weight for w in weeks[n : n + quarter]] for n in (quarter, len(weeks) - quarter))
    if before and median(now) > median(before) * MEMORY_ALLOWED:
        yield f"memory grows: from {median(before)} to {median(now)} bytes"


def restless(idle: dict[str, int], most: float, lease: str = "") -> Iterator[str]:
    """Say what is asked in an hour at rest that is not the end of a watch, or the Lease's."""
    unasked = {what: n for what, n in idle.items() if not what.startswith("WATCH ") and not (lease and what.endswith(lease))}
    if unasked:
        yield f"asked for at rest: {unasked}"
    if sum(idle.values()) > most * HOUR:
        yield f"{sum(idle.values()) / HOUR:.2f} requests a second at rest: {idle}"


def live(enough: Callable[[int], bool], seconds: float, told: Callable[[Week], None]) -> tuple[Outcome, list[Week]]:
    """Live until there were enough weeks, of so many seconds each at least; returns what the checker says, and the weeks."""
    lived: list[Week] = []

    async def play(run: Run) -> None:
        life = Life(run, seconds)
        await life.begin()
        while not enough(len(lived)):
            lived.append(await life.week())
            told(lived[-1])

    return simulate_with(plan(), play), lived


def complaints(weeks: int = WEEKS, seconds: float = 0.0, edge: int = EDGE) -> list[str]:
    """Live through weeks and say all that is wrong with them."""
    outcome, lived = live(lambda count: count >= weeks, seconds, lambda _: None)
    if outcome.violations:
        return outcome.violations
    noisy = [text for week in lived for text in restless(week.idle, MOST_PER_SECOND - LEASE_PER_SECOND)]
    return [*growth(lived, edge), *noisy]


def at_rest(replicas: int = 1, *, bookmarks: bool = True) -> list[str]:
    """Say what is wrong with an hour in which nothing happens but heartbeats, with an elected leader and standbys."""
    counts: list[dict[str, int]] = []

    def count(cluster: Cluster) -> None:
        counts.append(dict(cluster.world.server.requests))

    def still(cluster: Cluster) -> None:
        cluster.world.watches.bookmarks = bookmarks

    def beat(cluster: Cluster) -> None:
        cluster.world.kubelets.beat()

    beats = [(600.0 + second, beat) for second in range(0, int(HOUR), int(BEAT))]
    election = Election(
        scene("drain"), replicas=replicas, script=[(0.0, still), (600.0, count), *beats, (600.0 + HOUR, count)]
    )
    cluster = elect(election)
    before, after = counts
    asked = {what: number - before.get(what, 0) for what, number in after.items() if number != before.get(what, 0)}
    found = [*cluster.checker.violations, *restless(asked, MOST_PER_SECOND * replicas, " leases")]
    renewals = sum(number for what, number in asked.items() if what.endswith(" leases"))
    return found if renewals >= replicas * HOUR / 4 else [*found, f"the Lease was asked for {renewals} times only"]


def _table(week: Week) -> None:
    idle = sum(week.idle.values()) / HOUR
    cells = (week.number, week.upgrades, f"{week.busy:.2f}", f"{idle:.3f}", week.tasks, week.things)
    memory = (f"{week.weight / 2**10:.1f}", f"{week.traced / 2**20:.3f}", f"{week.resident / 2**20:.0f}")
    _say("".join(f"{cell:>10}" for cell in (*cells, *memory)))


def main() -> int:
    """Parse arguments, live, print; returns 1 where anything grew or was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.endurance", description=__doc__)
    parser.add_argument("--weeks", type=int, default=20, help="how many (%(default)s)")
    parser.add_argument("--minutes", type=float, help="as many weeks as begin in this time, instead")
    parser.add_argument("--days", type=float, default=7.0, help="days of a week")
    parser.add_argument("--no-memory", action="store_true", help="do not trace memory, which is four times as fast")
    args = parser.parse_args()
    if args.weeks < WEEKS:
        parser.error(f"--weeks: at least {WEEKS} are needed to tell whether anything grows")
    _say("".join(f"{c:>10}" for c in ("week", "upgrades", "busy/s", "idle/s", "tasks", "things", "KiB", "MiB", "RSS MiB")))
    began, until = time.process_time(), time.monotonic() + 60 * (args.minutes or 0)

    def enough(count: int) -> bool:
        return count >= WEEKS and time.monotonic() >= until if args.minutes else count >= args.weeks

    with low_bounds(), contextlib.nullcontext() if args.no_memory else tracing():
        outcome, weeks = live(enough, args.days * WEEK / 7, _table)
    noisy = [text for week in weeks for text in restless(week.idle, MOST_PER_SECOND - LEASE_PER_SECOND)]
    found = [*outcome.violations, *growth(weeks), *more_memory(weeks), *noisy]
    sys.stderr.writelines(f"{text}\n" for text in found)
    summary = {
        "weeks": len(weeks),
        "upgrades": sum(w.upgrades for w in weeks),
        "faults": outcome.faults,
        "violations": len(outcome.violations),
        "cpu_seconds": round(time.process_time() - began),
        "tasks": [weeks[0].tasks, weeks[-1].tasks],
        "things": [weeks[0].things, weeks[-1].things],
        "held_kib": [round(weeks[n].weight / 2**10, 1) for n in (0, len(weeks) // 4, -1)],
        "traced_mib": [round(weeks[n].traced / 2**20, 3) for n in (0, len(weeks) // 4, -1)],
        "rss_mib": [round(weeks[n].resident / 2**20) for n in (0, len(weeks) // 4, -1)],
        "idle_per_second": round(max(sum(w.idle.values()) for w in weeks) / HOUR, 3),
        "flat": not found,
    }
    _say(json.dumps(summary))
    return int(bool(found))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # As in ``tests.sim``: the same life each time.
        args = [sys.executable, "-m", "tests.sim.endurance", *sys.argv[1:]]
        os.execve(sys.executable, args, {**os.environ, "PYTHONHASHSEED": "0"})
    sys.exit(main())

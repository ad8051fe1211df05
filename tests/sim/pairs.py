"""``python -m tests.sim.pairs``: two crashes in one rollout, every pair of writes, at every pair of moments.

The first crash is at each write of the scene's rollout, the second at each write that follows it, be it one of the
original story or one that only the first crash caused: it goes on until there is no such write any more. One line of
progress for each first crash, and one JSON object at the end. A pair that failed is told as a plan to be played again:

    python -m tests.sim.pairs --scene drain --crash 7:committed --crash 9:after
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from itertools import count, product
from multiprocessing import get_context
from typing import NamedTuple

from tests.sim.faults import MOMENTS
from tests.sim.harness import Run, simulate, simulate_with
from tests.sim.scenes import SCENES, scene

CRASHED = (
    "restart",
    "drain",
    "drain two at a time",
    "budget",
    "jobs",
    "pod deletion",
    "validation",
    "safe load",
    "foreign cordon",
    "max unavailable",
    "broken version",
    "disabled meanwhile",
    "requested",
)
"""The scenes in which processes are killed: what an upgrade may go through, each once."""
NEVER = 1 << 30


class First(NamedTuple):
    """The first crash of a scene: at which write, and when."""

    scene: str
    write: int
    moment: str


class Tried(NamedTuple):
    """What came of a first crash with each second one."""

    first: First
    pairs: int
    violations: int
    failed: list[str]


@cache
def crash_points(name: str) -> tuple[int, int]:
    """How many writes of a scene there are to crash at: before its first rollout, and from there on."""
    found: list[int] = []

    async def play(run: Run) -> None:
        await run.play()
        found.extend((run.faults.earlier, run.faults.writes))

    plan = scene(name)
    plan.early = plan.crashes = {NEVER: "after"}
    assert not simulate_with(plan, play).violations
    return found[0], found[1]


def firsts(names: tuple[str, ...]) -> Iterator[First]:
    """Every first crash of these scenes."""
    for name in names:
        for index, moment in product(range(1, crash_points(name)[1] + 1), MOMENTS):
            yield First(name, index, moment)


def seconds(first: First) -> Tried:
    """Play a first crash with each second one."""
    pairs, violations, failed = 0, 0, []
    for moment in MOMENTS:
        for index in count(first.write + 1):
            plan = scene(first.scene)
            plan.crashes = {first.write: first.moment, index: moment}
            outcome = simulate(plan)
            if outcome.faults < 2:
                break
            pairs += 1
            violations += len(outcome.violations)
            if outcome.violations:
                failed.append(f"{command(first.scene, plan.crashes)}: {outcome.violations[0]}")
    return Tried(first, pairs, violations, failed)


def command(name: str, crashes: dict[int, str]) -> str:
    """What plays two crashes again."""
    return " ".join(["python -m tests.sim.pairs", f"--scene {name!r}", *(f"--crash {i}:{m}" for i, m in crashes.items())])


def play_one(name: str, crashes: dict[int, str]) -> int:
    """Play these crashes with a readable trace; returns the exit code."""
    plan = scene(name)
    plan.crashes = crashes
    outcome = simulate(plan, trace=True)
    sys.stdout.writelines(f"{line}\n" for line in (*outcome.trace, *outcome.violations))
    return int(bool(outcome.violations))


def play_all(names: tuple[str, ...], jobs: int) -> int:
    """Play every pair of these scenes over some processes, and say how many; returns the exit code."""
    tried: list[Tried] = []
    # A fresh process for each worker, so that none inherits an event loop or a seed.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(seconds, first) for first in firsts(names)]):
            tried.append(future.result())
            one = tried[-1]
            sys.stderr.writelines(f"{line}\n" for line in one.failed)
            sys.stderr.write(f"{one.first.scene} {one.first.write} {one.first.moment}: {one.pairs} pairs\n")
    sums = {
        "scenes": len({one.first.scene for one in tried}),
        "crashes": len(tried),
        "pairs": sum(one.pairs for one in tried),
        "violations": sum(one.violations for one in tried),
    }
    sys.stdout.write(json.dumps(sums) + "\n")
    return int(bool(sums["violations"]))


def crash(text: str) -> tuple[int, str]:
    """An index and a moment; raises ArgumentTypeError."""
    index, _, moment = text.partition(":")
    if not index.isdigit() or moment not in MOMENTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not INDEX:MOMENT with one of {', '.join(MOMENTS)}")
    return int(index), moment


def main() -> int:
    """Parse arguments, play, print; returns 1 where a violation was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.pairs", description=__doc__)
    parser.add_argument("--scene", action="append", choices=sorted(SCENES), help="only this one; may be given again")
    parser.add_argument("--crash", action="append", type=crash, metavar="INDEX:MOMENT", help="only these, with a trace")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    args = parser.parse_args()
    names = tuple(args.scene or CRASHED)
    return play_one(names[0], dict(args.crash)) if args.crash else play_all(names, args.jobs)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of strings must be walked in the same order each time.
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.sim.pairs", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"}
        )
    sys.exit(main())

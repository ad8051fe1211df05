"""``python -m tests.sim``: many worlds and one JSON line, or one seed again with a readable trace."""

import argparse
import json
import os
import sys
import time

from tests.sim.harness import Outcome, simulate
from tests.sim.mutants import hunt
from tests.sim.mutations import MUTANTS
from tests.sim.world import KINDS, PROFILES, random_plan


def main() -> int:
    """Parse arguments, run, print; returns the exit code: 1 where a violation was found or a mutant lived."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--upgrades", type=int, default=10_000, help="simulate at least this many node upgrades")
    parser.add_argument("--seed", type=int, help="run this seed alone")
    parser.add_argument("--first", type=int, default=0, help="the first seed of many")
    parser.add_argument("--faults", type=kinds, default="", help="only these kinds of faults, joined by +")
    parser.add_argument("--worlds", type=int, default=0, help="simulate exactly so many worlds, however many upgrades")
    parser.add_argument("--trace", action="store_true", help="with --seed: tell everything that happened")
    parser.add_argument("--no-mutants", action="store_true", help="leave the mutants out")
    args = parser.parse_args()
    if args.seed is not None:
        return _one(args.seed, args.faults, trace=args.trace)
    return _many(args.first, args.upgrades, args.worlds, args.faults, mutants=not args.no_mutants)


def kinds(text: str) -> str:
    """Kinds of faults, joined by ``+``; raises ArgumentTypeError."""
    known = {*PROFILES, *KINDS, "storm"}
    if unknown := set(filter(None, text.split("+"))) - known:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    return text


def _one(seed: int, faults: str, *, trace: bool) -> int:
    outcome = simulate(random_plan(seed, faults), trace=trace)
    _say(*outcome.trace)
    return _report([outcome], faults)


def _many(first: int, upgrades: int, worlds: int, faults: str, *, mutants: bool) -> int:
    outcomes: list[Outcome] = []
    done, seed, began = 0, first, time.process_time()
    while seed < first + worlds if worlds else done < upgrades:
        outcome = simulate(random_plan(seed, faults))
        if outcome.violations:
            _tell(outcome, faults)
        outcomes.append(outcome)
        done += outcome.upgrades
        seed += 1
    _warn(f"{len(outcomes)} worlds, {done} upgrades, {time.process_time() - began:.0f} CPU seconds")
    return _report(outcomes, faults, *(_mutants() if mutants else (0, 0)))


def _mutants() -> tuple[int, int]:
    """Return how many mutants there are and how many the right rule killed, and name those that lived."""
    lived = [name for name in MUTANTS if not hunt(name).killed]
    for name in lived:
        _warn(f"mutant lived, which {MUTANTS[name][1]} was to kill: {name}")
    return len(MUTANTS), len(MUTANTS) - len(lived)


def _tell(outcome: Outcome, faults: str) -> None:
    option = f" --faults {faults}" if faults else ""
    _warn(f"seed {outcome.seed}: python -m tests.sim --seed {outcome.seed}{option} --trace")
    for violation in outcome.violations[:10]:
        _warn(f"    {violation}")


def _report(outcomes: list[Outcome], faults: str, mutants: int = 0, killed: int = 0) -> int:
    violations = sum(len(o.violations) for o in outcomes)
    if len(outcomes) == 1 and violations:
        _tell(outcomes[0], faults)
    summary = {
        "upgrades": sum(o.upgrades for o in outcomes),
        "faults": sum(o.faults for o in outcomes),
        "violations": violations,
        "mutants": mutants,
        "killed": killed,
    }
    _say(json.dumps(summary))
    return int(bool(violations) or killed < mutants)


def _say(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _warn(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # Sets of strings must be walked in the same order each time.
        os.execve(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
    sys.exit(main())

"""``python -m tests.sim.soak``: a million upgrades over all cores, kinds of faults in turn; goes on where it was stopped.

Seeds are worked off in chunks. What each finished chunk came to is a line of the progress file, which is all that is kept,
so that a soak may be interrupted at any time. The last line of the output is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tests.sim.world import KINDS, PROFILES

CHUNK = 25
CYCLE = ("", *PROFILES, *KINDS, "answers+gaps+meddle", "storm")
"""Kinds of faults, chunk by chunk; the first is what the seed says."""
COMMAND = (sys.executable, "-m", "tests.sim", "--no-mutants")


def run_chunk(number: int) -> dict[str, Any]:
    """Run one chunk in a process of its own; returns its counts and the seeds that failed."""
    faults = CYCLE[number % len(CYCLE)]
    command = [*COMMAND, "--first", str(number * CHUNK), "--worlds", str(CHUNK), "--faults", faults]
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    lines = done.stdout.splitlines()
    if not lines:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    failed = [line for line in done.stderr.splitlines() if line.startswith("seed ")]
    return {"chunk": number, **json.loads(lines[-1]), "failed": failed}


def soak(upgrades: int, progress: Path, jobs: int) -> dict[str, Any]:
    """Work off chunks until there are enough upgrades; returns the sums over all that the progress file holds."""
    lines = progress.read_text().splitlines() if progress.exists() else []
    done = [json.loads(line) for line in lines]
    finished = {entry["chunk"] for entry in done}
    waiting = (number for number in range(1 << 31) if number not in finished)
    with ThreadPoolExecutor(jobs) as pool, progress.open("a") as log:
        while sum(entry["upgrades"] for entry in done) < upgrades:
            for future in as_completed([pool.submit(run_chunk, next(waiting)) for _ in range(jobs)]):
                done.append(future.result())
                log.write(json.dumps(done[-1]) + "\n")
                log.flush()
                sys.stderr.writelines(f"{line}\n" for line in done[-1]["failed"])
    sums = {name: sum(entry[name] for entry in done) for name in ("upgrades", "faults", "violations")}
    return {**sums, "failed": [line for entry in done for line in entry["failed"]][:50]}


def main() -> int:
    """Parse arguments, soak, print; returns 1 where a violation was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.soak", description=__doc__)
    parser.add_argument("--upgrades", type=int, default=1_000_000, help="stop after at least so many")
    parser.add_argument("--progress", type=Path, default=Path("soak.jsonl"), help="what is done already, and will be")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    args = parser.parse_args()
    summary = soak(args.upgrades, args.progress, args.jobs)
    sys.stdout.write(json.dumps(summary) + "\n")
    return int(bool(summary["violations"]))


if __name__ == "__main__":
    sys.exit(main())

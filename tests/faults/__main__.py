"""Rollouts under mixed faults, seed after seed, for as long as there is time; ends with one JSON line.

python -m tests.faults --seconds 600           # or: make faults SECONDS=600
python -m tests.faults --seed 7                # the same faults again, as far as the requests are the same
"""

import asyncio
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import orjson

from tests.cluster.world import world
from tests.controlplane import CRDS
from tests.faults.families import FAMILIES, WATCHES
from tests.faults.rollout import at_rest, rolls
from tools.controlplane.api import Api
from tools.controlplane.cluster import ControlPlane
from tools.faultproxy.plan import Plan
from tools.faultproxy.proxy import FaultProxy

MIX = 3


def plan(seed: int) -> tuple[list[str], Plan]:
    """Some families at once."""
    families = {**FAMILIES, **WATCHES}
    names = random.Random(seed).sample(sorted(families), MIX)
    return names, Plan(seed, itertools.chain.from_iterable(families[name]() for name in names))


async def _one(api: Api, control_plane: ControlPlane, seed: int) -> tuple[int, str]:
    """Run one seed; returns how many faults there were, and what was wrong."""
    names, mixed = plan(seed)
    started = time.monotonic()
    wrong = ""
    with tempfile.TemporaryDirectory() as directory:
        async with FaultProxy.start(control_plane.access, Path(directory)) as proxy:
            try:
                async with world(api, control_plane) as made:
                    await at_rest(made, 4)
                    await rolls(made, proxy, mixed)
            except (AssertionError, TimeoutError) as error:
                wrong = str(error) or type(error).__name__
            faults = len(proxy.did())
    took = time.monotonic() - started
    click.echo(f"seed {seed}: {', '.join(names)}: {faults} faults, {took:.0f} s{': ' if wrong else ''}{wrong}", err=True)
    return faults, wrong


async def _run(seeds: Iterator[int], seconds: float) -> int:
    deadline = time.monotonic() + seconds
    runs = faults = failed = 0
    async with ControlPlane.start(audit_level="RequestResponse") as control_plane, Api(control_plane.access) as api:
        for path in sorted(CRDS.glob("*.nvidia.com.yaml")):
            await api.apply(path.read_text())
        for seed in seeds:
            happened, wrong = await _one(api, control_plane, seed)
            runs, faults, failed = runs + 1, faults + happened, failed + bool(wrong)
            if time.monotonic() > deadline:
                break
    click.echo(orjson.dumps({"rollouts": runs, "faults": faults, "failed": failed}))
    return int(failed > 0)


@click.command()
@click.option("--seconds", default=600.0, show_default=True, help="How long new rollouts are begun.")
@click.option("--first", default=1, show_default=True, help="The first seed.")
@click.option("--seed", default=0, help="Only this one.")
def main(*, seconds: float, first: int, seed: int) -> None:
    """Rollouts on the real control plane under mixed faults."""
    sys.exit(asyncio.run(_run(iter([seed]) if seed else itertools.count(first), seconds)))


if __name__ == "__main__":
    main()

"""Command line: `python -m tools.bench --nodes 50 --parallel 10`."""

import asyncio
import sys
from collections.abc import Iterator

import click
import orjson
from rich.console import Console

from tools import trouble
from tools.bench import setting
from tools.bench.broken import isolation
from tools.bench.floor import USER_AGENT, Floor, FloorRun
from tools.bench.quiet import look_around
from tools.bench.report import Result, table
from tools.bench.setting import IncompleteError, Size
from tools.bench.subject import Run, roll
from tools.bench.witness import evidence_of
from tools.controlplane.api import Api
from tools.controlplane.audit import AuditLog
from tools.controlplane.cluster import ControlPlane
from tools.controlplane.terminal import Reporter


@click.command(help=__doc__)
@click.option("--nodes", type=click.IntRange(1), default=50, show_default=True, help="Nodes of the cluster.")
@click.option("--parallel", type=click.IntRange(1), default=10, show_default=True, help="Nodes upgraded at the same time.")
@click.option("--repeat", type=click.IntRange(1), default=1, show_default=True, help="Rollouts of each kind; medians.")
@click.option("--timeout", type=float, default=900.0, show_default=True, help="Seconds after which a rollout is given up.")
@click.option("--broken", is_flag=True, help="Measure as well what one broken node of each kind costs the others.")
@click.option("--json-only", is_flag=True, help="Print the JSON line alone.")
@click.argument("flags", nargs=-1, metavar="[-- FLAGS OF THE CONTROLLER]")
def main(
    nodes: int, parallel: int, repeat: int, timeout: float, broken: bool, json_only: bool, flags: tuple[str, ...]
) -> None:
    """Rolls a driver over N nodes, P at a time: by the controller, and by a bare script that does the least."""
    report = Reporter(Console(stderr=True, highlight=False, quiet=json_only))
    try:
        result = asyncio.run(_bench(Size(nodes, parallel), repeat, timeout, flags, report))
        beside = asyncio.run(isolation(repeat, flags, timeout, report)) if broken else None
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("Stopped, and everything with it.", err=True)
        sys.exit(trouble.INTERRUPTED)
    except Exception as error:  # told in a sentence where it is no defect, else raised
        found = trouble.cause(error)
        message = str(found) if isinstance(found, IncompleteError) else trouble.known(error)
        if not message:
            raise
        click.echo(f"Error: {message}", err=True)
        sys.exit(trouble.FAILED)
    if not json_only:
        Console(highlight=False).print(table(result))
        click.echo(beside or "", nl=beside is not None)
    click.echo(orjson.dumps(result.as_json() | ({"isolation": round(beside.ratio, 3)} if beside else {})))


async def _bench(size: Size, repeat: int, timeout: float, flags: tuple[str, ...], report: Reporter) -> Result:  # noqa: ASYNC109
    trouble.stop_when_asked()
    look_around(report)
    floors: list[FloorRun] = []
    runs: list[Run] = []
    for is_floor in _order(repeat):
        name = "floor" if is_floor else "controller"
        with report.task(f"{size.nodes} nodes, {size.parallel} at a time, by the {name}"):
            async with ControlPlane.start(report=report) as cp, Api(cp.access) as api:
                _ = cp.audit_log  # a cluster that the user gave has none: nothing may be made there
                await setting.install(api, size)
                if is_floor:
                    floors.append(await _floor(cp, api, size, timeout))
                else:
                    runs.append(await roll(cp, api, size, *flags, timeout=timeout))
    return Result(size, floors, runs)


def _order(repeat: int) -> Iterator[bool]:
    """Each rollout has a fresh control plane, so that none inherits scattered pods, warm caches or a long history.

    Floor first, then controller; the next pair the other way round: what drifts on the machine meanwhile evens out.
    """
    for turn in range(repeat):
        yield turn % 2 == 0
        yield turn % 2 == 1


async def _floor(cp: ControlPlane, api: Api, size: Size, timeout: float) -> FloorRun:  # noqa: ASYNC109
    audit = AuditLog(cp.audit_log)
    audit.skip()
    async with asyncio.timeout(timeout), Api(cp.access, user_agent=USER_AGENT) as bare:
        floor = Floor(bare, size)
        await floor.run()
    await setting.confirm(api, size)
    return FloorRun(evidence_of(audit.read(), USER_AGENT), floor.cpu_seconds, dict(floor.state_seconds))


if __name__ == "__main__":
    main(prog_name="python -m tools.bench")

"""Command line: `python -m tools.demo`; exit code 0 when every node is upgraded, 1 when something went wrong."""

import asyncio
import sys

import click
from rich.console import Console

from tools import trouble
from tools.demo.play import Demo, DemoError
from tools.demo.stage import Script


@click.command(help="Rolls a new driver over a cluster on this machine, by the controller, and shows what happens.")
@click.option("--nodes", type=click.IntRange(3), default=24, show_default=True, help="Nodes of the cluster.")
@click.option("--parallel", type=click.IntRange(1), default=4, show_default=True, help="Nodes upgraded at the same time.")
@click.option("--driver-seconds", type=float, default=2.0, show_default=True, help="How long a driver takes to load.")
@click.option("--job-seconds", type=float, default=14.0, show_default=True, help="How long the batch job runs.")
@click.option("--timeout", type=float, default=180.0, show_default=True, help="Seconds after which the rollout is given up.")
def main(nodes: int, parallel: int, driver_seconds: float, job_seconds: float, timeout: float) -> None:
    """Entry point."""
    console = Console(highlight=False)
    script = Script(nodes, parallel, driver_seconds=driver_seconds, job_seconds=job_seconds)
    try:
        asyncio.run(Demo(script, console, timeout).play())
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("Stopped, and everything with it.", err=True)
        sys.exit(trouble.INTERRUPTED)
    except Exception as error:  # told in a sentence where it is no defect, else raised
        message = str(error) if isinstance(error, DemoError) else trouble.known(error)
        if not message:
            raise
        click.echo(f"Error: {message}", err=True)
        sys.exit(trouble.FAILED)


if __name__ == "__main__":
    main(prog_name="python -m tools.demo")

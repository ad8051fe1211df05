"""``driver-upgrade``: the command and its subcommands, each imported only when it is run.

``wait-for-safe-load`` starts on every node at once and ``--help`` should be there at once, so neither pays for tables, web
server and metrics that other commands need.
"""

import importlib
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final

import click

from controller import __version__

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "run": ("controller.cli.run:run", "Run the controller until SIGTERM or SIGINT."),
    "status": ("controller.cli.status:status", "Show policies, and nodes that are active, failed or blocked."),
    "explain": ("controller.cli.explain:explain", "Say why a node does not move, and what would move it."),
    "plan": ("controller.cli.plan:plan", "Say what an upgrade would do, and what would hold it up."),
    "pause": ("controller.cli.pause:pause", "Start no further node of a policy."),
    "resume": ("controller.cli.pause:resume", "Let a paused policy go on."),
    "retry": ("controller.cli.nodes:retry", "Try failed nodes again."),
    "skip": ("controller.cli.nodes:skip", "Never start the upgrade of these nodes."),
    "keep-cordon": ("controller.cli.nodes:keep_cordon", "Leave nodes cordoned when their upgrade ends."),
    "wait-for-safe-load": (
        "controller.cli.safeload:wait_for_safe_load",
        "Init container: wait until the driver may be loaded.",
    ),
    "crd": ("controller.cli.main:crd", "Print the CustomResourceDefinitions."),
}
"""Where each command lives, and its line in ``--help``."""


class LazyGroup(click.Group):
    """Imports a subcommand when it is asked for by name; the help is printed from :data:`COMMANDS` alone."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands, the most used first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; of a name that is none, say which come close."""
        if args[0] not in COMMANDS and args[0][:1].isalnum():
            from controller.cli.common import suggest  # noqa: PLC0415 - it imports what --help does without

            ctx.fail(f"No such command {args[0]!r}{suggest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "DRIVER_UPGRADE"})
@click.version_option(__version__, prog_name="driver-upgrade")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Upgrade the containerized drivers of a Kubernetes cluster node by node.

    All commands but `run` read the cluster themselves and work while the controller is down. Exit codes: 0 success, 1 an
    error at run time, 2 wrong usage or configuration.
    """
    if os.environ.get("NO_COLOR"):  # https://no-color.org: click does not know it, rich does
        ctx.color = False


@click.command()
def crd() -> None:
    """Print the CustomResourceDefinitions: driver-upgrade crd | kubectl apply -f -."""
    packaged = resources.files("controller") / "manifests"
    folder = packaged if packaged.is_dir() else Path(__file__).parents[2] / "manifests" / "crd"
    found = sorted((f for f in folder.iterdir() if f.name.endswith(".nvidia.com.yaml")), key=lambda f: f.name)
    click.echo("---\n".join(f.read_text() for f in found), nl=False)

"""``driver-upgrade plan``: a dry run. Which nodes would be upgraded, in which order, and at what cost to whom."""

from typing import NamedTuple

import click
import msgspec

from controller.cli.common import Target, driver_option, duration, machine, output_option, target_options, with_client
from controller.kube.client import Client
from controller.operate.picture import Picture
from controller.upgrade.outlook import Outlook, outlook
from controller.upgrade.plan import PlannedNode, in_order, is_waiting
from controller.upgrade.plan import plan as planned
from controller.upgrade.policy import Policy


@click.command()
@target_options
@driver_option
@output_option("wide")
def plan(*, target: Target, driver: str, output: str | None) -> None:
    """Say what would be upgraded in which order, which pods would be evicted, and what would hold it up.

    Nothing is written, and no controller need run. A paused policy is planned as if it went on, so one that is created
    with autoUpgrade and paused both true shows what it will do before it does it.
    """
    plans = [p for p in with_client(target, lambda client: _read(client, target)) if not driver or p.driver == driver]
    nodes = [node for each in plans for node in each.nodes]
    if output in {"json", "yaml"}:
        outlooks = [each.outlook for each in plans if each.nodes]
        click.echo(machine({"nodes": msgspec.to_builtins(nodes), "policies": msgspec.to_builtins(outlooks)}, output))
    elif not nodes:
        click.echo("Nothing to do: no node that a policy selects has an outdated driver, and none waits for a restart.")
    else:
        _print(nodes, wide=output == "wide")
        _print_times([each.outlook for each in plans if each.outlook.waves])


class _Plan(NamedTuple):
    """What one policy would do."""

    driver: str
    nodes: list[PlannedNode]
    outlook: Outlook


async def _read(client: Client, target: Target) -> list[_Plan]:
    """Read the cluster, first without pods, then with those of the nodes that wait."""
    picture = await Picture.read(client, target.options, pods_of=())
    waiting = {view.node.name for view in picture.all_views() if is_waiting(view)}
    await picture.load_pods(waiting)
    return [_of(picture, policy) for policy in picture.policies.all()]


def _of(picture: Picture, policy: Policy) -> _Plan:
    waiting = []
    for view in picture.all_views():
        facts = picture.fleet.facts(view.keys.driver, view.node.name)
        if facts is not None and view.policy is policy and is_waiting(view):
            waiting.append((view, facts))
    views = in_order(waiting)
    pods = [pod for view in views for pod in view.workload or ()]
    tally = picture.fleet.tally(policy.driver, policy.full_name)
    nodes = planned(policy, views, picture.foresee(pods), picture.now(), tally)
    took = {view.node.name: float(view.written.took) for view in views if view.written and view.written.took}
    return _Plan(policy.driver, nodes, outlook(policy, nodes, took, tally))


def _print(nodes: list[PlannedNode], *, wide: bool) -> None:
    from controller.cli.tables import plan_table, show  # noqa: PLC0415 - only where a table is drawn

    show(plan_table(nodes, wide=wide))
    starting = [n for n in nodes if n.wave]
    evicted = {pod for n in starting for pod in n.evicts}
    held = sum(1 for n in starting if n.blockers)
    click.echo(
        f"{len(starting)} nodes would be upgraded, {len(nodes) - len(starting)} not started; "
        f"{len(evicted)} pods would be evicted; {held} nodes would be held up as things stand now."
    )


def _print_times(outlooks: list[Outlook]) -> None:
    for one in outlooks:
        about = f"about {duration(one.seconds)}, by what these nodes took last" if one.seconds else _NO_ESTIMATE
        limit = f"{duration(one.at_most)} at most, by its time-outs" if one.at_most else "without end if it must be"
        name = f"{one.policy}: " if len(outlooks) > 1 else ""
        click.echo(f"{name}{'1 wave' if one.waves == 1 else f'{one.waves} waves'}: {about}; {limit}.")


_NO_ESTIMATE = "no estimate, for none of these nodes has been upgraded by this controller yet"

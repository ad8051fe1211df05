"""``driver-upgrade status``: policies, and the nodes that a person may want to look at.

Nodes that are done, or that only wait for their turn, are counted and not listed: there may be thousands. With
``--watch`` the same tables are drawn anew while informers, the controller's own, keep the picture up to date.
"""

from contextlib import suppress
from typing import Any

import click
import msgspec
from msgspec.structs import replace

from controller.api.meta import timestamp
from controller.cli.common import (
    Target,
    machine,
    output_option,
    target_options,
    with_client,
)
from controller.cli.explain import as_data
from controller.kube.client import Client
from controller.operate.live import follow
from controller.operate.picture import Picture
from controller.upgrade.explain import Explanation
from controller.upgrade.facts import Ask
from controller.upgrade.policy import Policy
from controller.upgrade.states import IN_PROGRESS, State
from controller.upgrade.survey import PolicySurvey, survey


@click.command()
@target_options
@click.option("-w", "--watch", is_flag=True, help="Stay, and show every change.")
@output_option("wide")
def status(*, target: Target, watch: bool, output: str | None) -> None:
    """Show policies, and nodes that are active, failed or blocked."""
    if watch and output in {"json", "yaml"}:
        raise click.UsageError("--watch draws tables: leave out -o json and -o yaml, or --watch")
    if watch:
        with suppress(KeyboardInterrupt):
            with_client(target, lambda client: _watch(client, target, wide=output == "wide"))
        return
    picture = with_client(target, lambda client: Picture.read(client, target.options))
    if output in {"json", "yaml"}:
        click.echo(machine(_data(picture), output))
    else:
        _print(picture, wide=output == "wide")


def surveys(picture: Picture) -> list[PolicySurvey]:
    """Sum up every policy, those that do not count last."""
    tally = picture.fleet.tally
    counting = [_with_times(picture, p, survey(p, tally(p.driver, p.full_name))) for p in picture.policies.all()]
    ignored = [survey(p, tally(p.driver, p.full_name), counts=False) for p in picture.policies.ignored.values()]
    return sorted(counting, key=lambda s: s.policy) + sorted(ignored, key=lambda s: s.policy)


def _with_times(picture: Picture, policy: Policy, found: PolicySurvey) -> PolicySurvey:
    """Add when the rollout began and may end: only the controller has seen its pace, so this is as its status tells it."""
    obj = picture.policies.object_of(policy)
    told = (obj.status if obj else None) or {}
    if not policy.source.ours or found.condition != "Upgrading" or told.get("state") != found.condition:
        return found
    started, estimated = (str(told.get(name) or "") for name in ("startedAt", "estimatedCompletion"))
    return replace(found, started_at=started, estimated_completion=estimated)


def notable(picture: Picture) -> list[Explanation]:
    """Explain the nodes that are failed, in progress or blocked, in this order.

    What keeps all waiting nodes alike (no slot, paused, halted) is said of their policy, not of each of them.
    """
    found = []
    for driver, name, facts in picture.facts():
        node = picture.caches.nodes.store.get(name)
        if node is None or (facts.ask is Ask.GRANT and facts.blocked is None):
            continue
        explained = picture.explain_driver(node, driver)
        if facts.in_progress or facts.state is State.UPGRADE_FAILED or explained.stuck:
            found.append(explained)
    return sorted(found, key=_order)


def _order(found: Explanation) -> tuple[int, str, str]:
    rank = 0 if found.state == State.UPGRADE_FAILED else 1 if found.state in IN_PROGRESS else 2
    return rank, found.driver, found.node


def _data(picture: Picture) -> dict[str, Any]:
    return {
        "time": timestamp(picture.now()),
        "policies": [msgspec.to_builtins(s) for s in surveys(picture)],
        "nodes": [as_data(e) for e in notable(picture)],
    }


def _print(picture: Picture, *, wide: bool) -> None:
    from controller.cli.tables import show, status_tables  # noqa: PLC0415 - only where a table is drawn

    show(status_tables(surveys(picture), notable(picture), picture.now(), wide=wide))


async def _watch(client: Client, target: Target, *, wide: bool) -> None:
    from controller.cli.tables import screen, status_tables  # noqa: PLC0415 - only where a table is drawn

    live, redraw = screen()

    def draw(picture: Picture) -> None:
        troubles = picture.caches.troubles()
        redraw(status_tables(surveys(picture), notable(picture), picture.now(), wide=wide, troubles=troubles))

    with live:
        await follow(client, target.options, draw)

"""``driver-upgrade explain NODE``: what the node waits for, since when, until when, and what would move it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click
import msgspec

from controller.api.meta import timestamp
from controller.cli.common import (
    CommandError,
    Target,
    clock,
    driver_option,
    duration,
    machine,
    output_option,
    suggest,
    target_options,
    with_client,
)
from controller.kube.client import Client
from controller.operate.picture import Picture
from controller.upgrade.explain import Explanation
from controller.upgrade.reasons import Blocker

MOST_NAMES = 6
_COLOURS = {"upgrade-failed": "red", "upgrade-done": "green"}


@click.command()
@click.argument("node")
@target_options
@driver_option
@output_option("wide")
def explain(*, node: str, target: Target, driver: str, output: str | None) -> None:
    """Say why NODE does not move: reason, blockers, deadline, remedy.

    Decides as the controller does, from the cluster as it is now, and works while the controller is down.
    """
    picture = with_client(target, lambda client: _read(client, target, node))
    found = [e for e in _explanations(picture, node) if not driver or e.driver == driver]
    if driver and not found:
        raise CommandError(f"no driver {driver} on node {node}{suggest(driver, picture.policies.drivers())}")
    if output in {"json", "yaml"}:
        click.echo(machine({"node": node, "drivers": [as_data(e) for e in found]}, output))
        return
    if not found:
        raise CommandError("there is no upgrade policy: see `driver-upgrade crd` and docs/policy.md to begin with one")
    for part in found:
        click.echo("\n".join(lines(part, picture.now(), wide=output == "wide")))


async def _read(client: Client, target: Target, node: str) -> Picture:
    return await Picture.read(client, target.options, pods_of=(node,))


def _explanations(picture: Picture, name: str) -> list[Explanation]:
    node = picture.caches.nodes.store.get(name)
    if node is None:
        if bad := picture.caches.nodes.reflector.malformed.get(name):
            raise CommandError(f"node {name} cannot be read: {bad.error}")
        known = (n.name for n in picture.caches.nodes.store.list())
        raise CommandError(f"there is no node {name}{suggest(name, known)}")
    return picture.explain(node)


def as_data(found: Explanation) -> dict[str, Any]:
    """Return an explanation for programs: times as RFC 3339, nothing that is empty."""
    data: dict[str, Any] = msgspec.to_builtins(found)
    data.setdefault("state", found.state)
    for item in (data, *data.get("blockers", ())):
        for key in ("since", "deadline", "until"):
            if key in item:
                item[key] = timestamp(item[key])
    return data


def lines(found: Explanation, now: float, *, wide: bool = False) -> Iterator[str]:
    """Yield an explanation for people; ``wide`` names the target, and every pod and node instead of the first few."""
    most = len(found.blockers) + len(found.holders) if wide else MOST_NAMES
    state = click.style(found.state, fg=_COLOURS.get(found.state, "yellow"), bold=True)
    yield f"{found.node}  driver {found.driver}: {state}" + (f"  ({found.policy})" if found.policy else "")
    if wide and found.target:
        yield _line("target", found.target)
    if found.since:
        yield _line("since", f"{clock(found.since, now)}, {duration(now - found.since)} ago")
    if found.deadline:
        yield _line("until", f"{clock(found.deadline, now)}, in {duration(found.deadline - now)}; then {found.then}")
    if found.reason:
        yield _line("reason", f"{click.style(found.reason, bold=True)}{': ' if found.message else ''}{found.message}")
    elif found.message:
        yield _line("", found.message)
    if found.next:
        yield _line("next", f"{found.next}, as soon as the controller looks: if this stays, see whether it runs")
    for text in _blockers(found.blockers, now, most):
        yield _line("blocker", text)
    if found.holders:
        yield _line("in use by", _some(found.holders, most))
    if found.remedy:
        yield _line("remedy", found.remedy)


def _blockers(blockers: Iterable[Blocker], now: float, most: int) -> Iterator[str]:
    """Yield a line for each cause, with the pods that it holds up: dozens of pods often share one budget."""
    causes: dict[tuple[str, str], list[Blocker]] = {}
    for blocker in blockers:
        causes.setdefault((blocker.reason, blocker.message), []).append(blocker)
    for (reason, message), held in causes.items():
        since = min((b.since for b in held if 0 < b.since < now), default=0.0)
        until = max((b.until for b in held), default=0.0)
        age = f", since {duration(now - since)}" if since else ""
        age += f", at the latest in {duration(until - now)}" if until > now else ""
        yield f"{reason}{f' ({message})' if message else ''}{age}: {_some([f'{b.namespace}/{b.name}' for b in held], most)}"


def _some(names: Sequence[str], most: int) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _line(name: str, text: str) -> str:
    return f"  {name:<10} {text}".rstrip()

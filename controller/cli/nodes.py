"""``retry``, ``skip`` and ``keep-cordon``: one label or annotation on each of some nodes.

These write what an administrator could write with kubectl, no more; the controller sees it and acts. Each says what it
did or that there was nothing to do, so that running it twice is harmless. Each node is tried; those that could not be
done are told at the end, with exit code 1.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from controller.api.node import Node
from controller.cli.common import (
    CommandError,
    Target,
    driver_option,
    explain_error,
    fail,
    suggest,
    target_options,
    with_client,
)
from controller.kube.client import Client
from controller.kube.errors import Conflict, KubeError, NotFound
from controller.kube.resources import NODES
from controller.operate.caches import policy_resource
from controller.operate.options import Options
from controller.upgrade.keys import TRUE, Keys, keys_for
from controller.upgrade.marks import marked_drivers
from controller.upgrade.policy import resolve
from controller.upgrade.record import decode_record
from controller.upgrade.snapshot import other_driver
from controller.upgrade.states import IN_PROGRESS, State, parse_state

T = TypeVar("T")
TRIES = 5
"""Times that a node is read again which someone else wrote at the same moment."""


class Nothing(Exception):  # noqa: N818 - it is the good case
    """The node is already as it should be."""


Change = Callable[[Node, Keys], tuple[dict[str, Any], str]]
"""Returns the metadata to merge and what to tell; raises Nothing, or CommandError where it makes no sense."""


@click.command()
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@target_options
@driver_option
def retry(*, nodes: tuple[str, ...], target: Target, driver: str) -> None:
    """Try failed nodes again.

    The node waits for a slot and then begins anew, with all its time. It counts as failed until it is done, but a halted
    rollout does not hold it back. Nodes whose driver has changed since they failed need no retry.
    """
    _each(target, nodes, driver, _retry, lambda node, key: parse_state(node.labels.get(key.state)) is State.UPGRADE_FAILED)


@click.command()
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@target_options
@driver_option
@click.option("--undo", is_flag=True, help="Let them take part again.")
def skip(*, nodes: tuple[str, ...], target: Target, driver: str, undo: bool) -> None:
    """Never start the upgrade of these nodes. One that is under way is finished."""
    _each(target, nodes, driver, _unskip if undo else _skip)


@click.command("keep-cordon")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@target_options
@driver_option
@click.option("--undo", is_flag=True, help="Lift the cordon after all when the upgrade ends.")
def keep_cordon(*, nodes: tuple[str, ...], target: Target, driver: str, undo: bool) -> None:
    """Leave nodes cordoned when their upgrade ends.

    While the controller has a node cordoned, `kubectl cordon` changes nothing and so says nothing; this does. Of several
    drivers one that holds the cordon is asked; where it ends first, the request goes on to the next that holds it.
    """
    if undo:
        _each(target, nodes, driver, _release, lambda node, key: key.initial_unschedulable in node.annotations)
    else:
        _each(target, nodes, driver, _keep, lambda node, key: other_driver(node, key).claim)


def _retry(node: Node, keys: Keys) -> tuple[dict[str, Any], str]:
    label = node.labels.get(keys.state, "")
    if label == State.UPGRADE_REQUIRED:
        raise Nothing("waits for its turn already")
    if label != State.UPGRADE_FAILED:
        text = f"is not failed but {label or 'unknown'}: nothing to retry"
        again = f"kubectl annotate node {node.name} {keys.requested}=true upgrades or restarts it all the same"
        raise CommandError(text if parse_state(label) in IN_PROGRESS else f"{text}; {again}")
    return {"labels": {keys.state: str(State.UPGRADE_REQUIRED)}}, "will be tried again when a slot is free"


def _skip(node: Node, keys: Keys) -> tuple[dict[str, Any], str]:
    if node.labels.get(keys.skip) == TRUE:
        raise Nothing("is skipped already")
    busy = parse_state(node.labels.get(keys.state)) in IN_PROGRESS
    told = "will be skipped from now on" + ("; the upgrade that is under way is finished" if busy else "")
    return {"labels": {keys.skip: TRUE}}, told


def _unskip(node: Node, keys: Keys) -> tuple[dict[str, Any], str]:
    if keys.skip not in node.labels:
        raise Nothing("is not skipped")
    return {"labels": {keys.skip: None}}, "takes part again"


def _keep(node: Node, keys: Keys) -> tuple[dict[str, Any], str]:
    if node.annotations.get(keys.initial_unschedulable) == TRUE:
        raise Nothing("will be left cordoned already")
    if not node.unschedulable or not other_driver(node, keys).claim:
        # A driver that holds the cordon does not look at what is asked of another one.
        elsewhere = "; a cordon of another driver's upgrade is kept with its name as --driver" if node.unschedulable else ""
        raise CommandError(
            f"has not cordoned it: use `kubectl cordon {node.name}`, which an upgrade leaves as it is{elsewhere}"
        )
    return {"annotations": {keys.initial_unschedulable: TRUE}}, "will be left cordoned when its upgrade ends"


def _release(node: Node, keys: Keys) -> tuple[dict[str, Any], str]:
    if keys.initial_unschedulable not in node.annotations:
        raise Nothing("is not marked to be left cordoned")
    record = decode_record(node.annotations.get(keys.record))
    if node.unschedulable and record is not None and not record.claim:
        raise CommandError(f"found it cordoned: use `kubectl uncordon {node.name}` after the upgrade")
    return {"annotations": {keys.initial_unschedulable: None}}, "will be uncordoned when its upgrade ends"


def _each(
    target: Target,
    names: Iterable[str],
    driver: str,
    change: Change,
    concerns: Callable[[Node, Keys], bool] = lambda _node, _keys: True,
) -> None:
    """Change node by node, tell what was done, and end with what could not be done.

    Args:
        target: Cluster and drivers.
        names: The nodes.
        driver: Given by flag, or empty.
        change: What to do.
        concerns: Which of several drivers can be meant.
    """

    async def work(client: Client) -> list[str]:
        errors = []
        for name in dict.fromkeys(names):
            try:
                click.echo(await _one(client, target.options, name, driver, change, concerns))
            except CommandError as error:
                errors.append(error.message)
            except KubeError as error:
                errors.append(f"node {name}: {explain_error(error)}")
        return errors

    if errors := with_client(target, work):
        fail(errors)


async def _one(
    client: Client, options: Options, name: str, driver: str, change: Change, concerns: Callable[[Node, Keys], bool]
) -> str:
    """Change one node. Someone else's write in between is no matter: it is read and judged again."""
    chosen = driver
    for _ in range(TRIES):
        node = await _get(client, name)
        chosen = chosen or await _choose(client, options, node, concerns)
        try:
            metadata, told = change(node, keys_for(chosen, options.domain))
            version = node.metadata.resource_version
            await client.patch(NODES, name, {"metadata": {"resourceVersion": version, **metadata}})
        except Nothing as nothing:
            return f"node {name}: driver {chosen} {nothing}"
        except Conflict:
            continue
        except CommandError as error:
            raise CommandError(f"node {name}: driver {chosen} {error.message}") from None
        return f"node {name}: driver {chosen} {told}"
    raise CommandError(f"node {name}: others wrote it {TRIES} times in a row meanwhile: try again")


async def _get(client: Client, name: str) -> Node:
    try:
        return await client.get(NODES, name)
    except NotFound:
        pass
    try:
        known = [n.name for n in (await client.list(NODES, resource_version="0")).items]
    except KubeError:
        known = []  # not allowed to list: there is no suggestion then
    raise CommandError(f"there is no node {name}{suggest(name, known)}")


async def _choose(client: Client, options: Options, node: Node, concerns: Callable[[Node, Keys], bool]) -> str:
    """Find the one driver that is meant: of those with marks on the node, else of those that have a policy."""
    drivers = marked_drivers(node, options.domain)
    meant = {d for d in drivers if concerns(node, keys_for(d, options.domain))} or drivers
    meant = meant or await drivers_with_policy(client, options)
    if len(meant) > 1:
        raise CommandError(f"node {node.name}: say which driver is meant with --driver: {', '.join(sorted(meant))}")
    if not meant:
        raise CommandError(f"node {node.name}: no driver is known here: name it with --driver")
    return next(iter(meant))


async def drivers_with_policy(client: Client, options: Options) -> set[str]:
    """Return the drivers that any policy names."""
    found = set()
    for source in options.sources:
        try:
            objects = (await client.list(policy_resource(source))).items
        except NotFound:
            continue
        found |= {resolve(obj, source, domain=options.domain).driver for obj in objects}
    return found - {""}

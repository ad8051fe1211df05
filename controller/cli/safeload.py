"""``driver-upgrade wait-for-safe-load``: the init container of a driver that must not be loaded under running workloads.

It sets the safe-load annotation on its own node and blocks until that is gone. The controller sees the annotation, grants
the node when its turn has come, cordons and drains it, and removes the annotation instead of deleting the driver pod.

The API server may be away at any time, at a boot above all: every error is said and tried again, with back-off, for ever.
Only what waiting cannot mend ends it: the node is gone, ``--timeout`` has passed, a signal came. The annotation is then
left where it is, and so it is when the container is restarted, which sets it again (a write that changes nothing) and
waits on. Three verbs on nodes are used: patch, get, and watch with ``metadata.name`` as field selector, which RBAC counts
as a request for that one name.
"""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, TypeVar

import click

from controller.api.node import Node
from controller.cli.common import CommandError, check_driver, connect, connection_options, domain_option, execute
from controller.kube.client import Client
from controller.kube.errors import Forbidden, KubeError, NotFound
from controller.kube.follow import Follower
from controller.kube.listoptions import ListOptions
from controller.kube.resources import NODES
from controller.upgrade.keys import TRUE, Keys, keys_for

TELL_SECONDS: Final = 60.0
TERMINATED: Final = 128 + signal.SIGTERM

T = TypeVar("T")
Say = Callable[[str], None]


class NodeGone(Exception):  # noqa: N818 - named for what happened
    """The node is not there, or not any more: nobody will ever remove the annotation."""


class SafeLoad:
    """One wait.

    Args:
        client: The API server.
        node: Our node.
        keys: The driver's keys.
        say: Prints a line.
        rng: Jitter, since thousands of nodes may wait at once.
    """

    def __init__(self, client: Client, node: str, keys: Keys, say: Say, rng: random.Random | None = None) -> None:
        self._client = client
        self._node = node
        self._keys = keys
        self._say = say
        ours = ListOptions(field_selector=f"metadata.name={node}")
        self._follower = Follower(client, NODES, ours, rng=rng or random.Random())  # noqa: S311 - jitter
        self._uid = ""
        self._state = ""

    async def wait(self) -> None:
        """Set the annotation and return when it is gone.

        Raises:
            NodeGone: The node does not exist any more.
        """
        node = await self._retried(self._mark)
        self._uid = node.uid
        self._say(f"annotation {self._keys.safe_load} is set on node {self._node}; {self._what()}")
        self._look(node)
        teller = asyncio.create_task(self._tell(), name="tell that it still waits")
        try:
            while not await self._retried(self._follow):
                continue
        finally:
            teller.cancel()
        self._say(f"annotation is gone from node {self._node}: the driver may be loaded")

    async def _mark(self) -> Node:
        body = {"metadata": {"annotations": {self._keys.safe_load: TRUE}}}
        return await self._client.patch(NODES, self._node, body)

    async def _follow(self) -> bool:
        """Look, then watch from there to the watch's end. Returns whether the annotation is gone."""
        node = await self._client.get(NODES, self._node)
        if self._look(node):
            return True
        async with self._follower.watch({"resourceVersion": node.metadata.resource_version}) as events:
            async for event in events:
                if event.type == "DELETED":
                    raise NodeGone
                if event.object is not None and self._look(event.object):
                    return True
        await asyncio.sleep(self._follower.pause())
        return False

    def _look(self, node: Node) -> bool:
        """Take in the node; return whether the annotation is gone."""
        if node.uid != self._uid:
            raise NodeGone
        state = node.labels.get(self._keys.state, "")
        if state != self._state:
            self._state = state
            self._say(f"upgrade state of node {self._node}: {state or 'unknown'}")
        return self._keys.safe_load not in node.annotations

    async def _retried(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do work until the API server lets it succeed."""
        while True:
            try:
                return await work()
            except NotFound as error:
                raise NodeGone from error
            except KubeError as error:
                hint = f": grant patch, get and watch on nodes/{self._node}" if isinstance(error, Forbidden) else ""
                self._say(f"cannot read or mark node {self._node}, trying again: {error}{hint}")
                await asyncio.sleep(self._follower.pause(error))

    async def _tell(self) -> None:
        """Say every minute that it still waits, so that nobody who reads the log takes it for stuck."""
        began = self._client.clock.monotonic()
        while True:
            await asyncio.sleep(TELL_SECONDS)
            minutes = round((self._client.clock.monotonic() - began) / 60)
            self._say(f"still waiting, for {minutes} min now, in state {self._state or 'unknown'}: {self._what()}")

    def _what(self) -> str:
        return (
            f"waiting for the upgrade controller to drain the node and to remove it "
            f"(driver-upgrade explain {self._node} says what that waits for)"
        )


def say(text: str) -> None:
    """Print a line with the time, at once: the container's log is read while it runs."""
    click.echo(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}")


@click.command("wait-for-safe-load")
@click.option("--driver", required=True, callback=check_driver, help="Driver name: the <d> of <d>-driver-upgrade-state.")
@click.option("--node", envvar="NODE_NAME", required=True, help="Our node. Default: $NODE_NAME (downward API).")
@click.option("--timeout", default=0.0, type=click.FloatRange(min=0), help="Seconds to wait; 0, the default, is for ever.")
@domain_option
@connection_options
def wait_for_safe_load(
    *, driver: str, node: str, timeout: float, label_domain: str, kubeconfig: str | None, context: str | None
) -> None:
    """Wait until the driver may be loaded: the init container of the driver's DaemonSet.

    Sets the annotation <domain>/<driver>-driver-upgrade.driver-wait-for-safe-load on its own node and blocks until the
    upgrade controller, which cordons and drains the node first, removes it. Errors of the API server are tried again for
    ever. Needs patch, get and watch on its node.
    """
    if not driver:
        raise click.BadParameter("must not be empty", param_hint="--driver")
    keys = keys_for(driver, label_domain)
    try:
        execute(_wait(kubeconfig, context, node, keys, timeout or None))
    except NodeGone:
        raise CommandError(f"node {node} does not exist (any more): check --node, or delete this pod") from None
    except TimeoutError:
        text = f"the driver may not be loaded yet after {timeout:g} s: driver-upgrade explain {node} says why"
        raise CommandError(f"{text}; annotation {keys.safe_load} stays") from None
    except asyncio.CancelledError:
        say(f"ended by a signal; annotation {keys.safe_load} stays on node {node}")
        raise SystemExit(TERMINATED) from None


async def _wait(kubeconfig: str | None, context: str | None, node: str, keys: Keys, limit: float | None) -> None:
    """Wait, bounded by limit and by SIGTERM, which a process that is PID 1 does not feel unless it asks for it."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with asyncio.timeout(limit), connect(kubeconfig, context) as client:
        await SafeLoad(client, node, keys, say).wait()

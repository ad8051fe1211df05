"""A picture that keeps itself up to date: the controller's informers, without its hands."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, NoReturn

from controller.kube.client import Client
from controller.kube.errors import KubeError
from controller.operate.caches import Caches, same
from controller.operate.nodepods import NodePods
from controller.operate.options import Options
from controller.operate.picture import Picture

REDRAW_SECONDS = 0.5
TICK_SECONDS = 5.0
"""Drawn at least this often: ages and deadlines change without an event."""


async def follow(client: Client, options: Options, draw: Callable[[Picture], None]) -> NoReturn:
    """Call draw with the picture as it is, and again after changes, until cancelled.

    What cannot be kept up to date is told by the picture's ``caches.troubles()``.

    Raises:
        KubeError: The cluster could not be read at the start.
    """
    first = await Picture.read(client, options)
    draw(first)
    news = asyncio.Event()
    caches = Caches(client, first.options)
    async with asyncio.TaskGroup() as tasks:
        pods = NodePods(client, tasks, lambda _: news.set(), _ignore, _ignore)
        picture = Picture(client, caches, pods, first.options)
        _listen(caches, news)
        caches.start(tasks)
        await caches.wait_for_sync()
        followed: set[str] = set()
        while True:
            news.clear()
            followed = _refresh(picture, pods, followed)
            with contextlib.suppress(KubeError):  # what is missing is said in the picture, and read next time
                await picture.read_claims()
            draw(picture)
            await asyncio.sleep(REDRAW_SECONDS)  # bounds the work of a busy rollout
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await news.wait()


def _refresh(picture: Picture, pods: NodePods, followed: set[str]) -> set[str]:
    """Count anew, and follow the pods of exactly the nodes whose pods matter. Returns these."""
    picture.count()
    needed = set(picture.needing_pods())
    for node in followed - needed:
        pods.drop(node)
        picture.forget_claims(node)
    for node in needed - followed:
        pods.ensure(node)
    return needed


def _ignore(_: str) -> None:
    """Nothing hangs on it here."""


def _listen(caches: Caches, news: asyncio.Event) -> None:
    def heard(old: Any, new: Any) -> None:
        if not same(old, new):
            news.set()

    caches.nodes.add_handler(heard)
    caches.budgets.add_handler(heard)
    for informers in (caches.policies, caches.daemonsets, caches.controller_revisions):
        for informer in informers.values():
            informer.add_handler(heard)
    caches.on_driver_pod(heard, news.set)

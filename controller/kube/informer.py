"""An informer: a store, and the reflector that keeps it equal to the API server."""

import random
from collections.abc import Callable
from typing import Generic, NoReturn, TypeVar

from controller.api.meta import KubeObject
from controller.kube.client import Client
from controller.kube.decoding import Malformed
from controller.kube.metrics import ReflectorMetrics
from controller.kube.reflector import Reflector
from controller.kube.resources import Resource
from controller.kube.store import Handler, Store

T = TypeVar("T", bound=KubeObject)


class Informer(Generic[T]):
    """Watches one resource, optionally of one namespace and by selectors.

    Its task is :meth:`run`, which the owner starts in a TaskGroup and cancels to stop. Handlers and indexes may be added
    to :attr:`store` before or after. For the other arguments see :class:`~controller.kube.reflector.Reflector`.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource[T],
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        *,
        consistent: bool = False,
        rng: random.Random | None = None,
        metrics: ReflectorMetrics | None = None,
        on_malformed: Callable[[Malformed], None] | None = None,
    ) -> None:
        self.resource = resource
        self.store: Store[T] = Store()
        self.reflector = Reflector(
            client,
            resource,
            self.store,
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            consistent=consistent,
            rng=rng,
            metrics=metrics,
            on_malformed=on_malformed,
        )

    async def run(self) -> NoReturn:
        """Keep the store up to date until cancelled."""
        await self.reflector.run()

    async def load(self) -> None:
        """Fill the store once without following; see :meth:`Reflector.load`."""
        await self.reflector.load()

    @property
    def synced(self) -> bool:
        """Whether the store has held a complete state once."""
        return self.reflector.synced

    async def wait_for_sync(self) -> None:
        """Return as soon as the store holds a complete state."""
        await self.reflector.wait_for_sync()

    @property
    def last_error(self) -> str:
        """Why the store is not being kept up to date at the moment, with the remedy; else empty."""
        return self.reflector.last_error

    @property
    def absent(self) -> bool:
        """Whether the API server does not know the resource."""
        return self.reflector.absent

    def add_handler(self, handler: Handler[T]) -> Callable[[], None]:
        """Call handler(old, new) after every change; see :meth:`Store.add_handler`."""
        return self.store.add_handler(handler)

"""An informer: a store, and the reflector that keeps it equal to the API server."""

import random
from collections.abc import Callable
from typing import Generic, NoReturn, TypeVar

from controller.api.meta import KubeObject
from controller.kube.client import Client
from controller.kube.decoding import Malformed
from controller.kube.listoptions import ListOptions
from controller.kube.metrics import NoMetrics, ReflectorMetrics
from controller.kube.reflector import Hooks, Reflector
from controller.kube.resources import Resource
from controller.kube.store import Handler, Store

T = TypeVar("T", bound=KubeObject)


class Informer(Generic[T]):
    """Watches one resource, optionally of one namespace and by selectors.

    Its task is :meth:`run`, which the owner starts in a TaskGroup and cancels to stop. Handlers and indexes may be added
    to :attr:`store` before or after.

    Args:
        client: The API server.
        resource: What to watch.
        namespace: Empty for all namespaces.
        label_selector: As in kubectl.
        field_selector: As in kubectl.
        consistent: Take the state by a list of the newest state, never from a cache.
        rng: Jitter.
        metrics: Told of lists and watches.
        on_malformed: Called with every object that cannot be decoded, and once more when it can be again, or is gone.
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
            ListOptions(namespace, label_selector, field_selector),
            consistent=consistent,
            rng=rng or random.Random(),  # noqa: S311 - jitter
            hooks=Hooks(metrics or NoMetrics(), on_malformed or (lambda _: None)),
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

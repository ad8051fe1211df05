"""Keeps a store equal to one resource of the API server, for ever.

The story of a reflector: it takes over the whole state, then follows its changes, and when it is thrown off it gets back
on with as little as possible.

*The state* comes by WatchList: a watch that first sends every object, then a bookmark that says "that was all", then goes
on as an ordinary watch. The objects gather outside the store and are swapped in at the bookmark, so readers never see
half a list. Servers that refuse WatchList get a paged list instead from then on, as do reflectors with
``consistent=True``, which read the newest state from the quorum, and resources with an event too long for a line.

*Changes* come by a watch from the last resourceVersion seen, events and bookmarks alike. It ends regularly after 5 to 10
minutes, or when it has been silent for too long (:mod:`controller.kube.follow`), and is resumed.

==============================================  ====================================================================
what happens                                    what is done
==============================================  ====================================================================
watch ends, or is silent for three minutes      resume at once; an empty one that ended within a second: back off
refused, reset, cut off, 429, 5xx, bad line     back off (Retry-After counts), resume: listing would finish the server off
410, Expired, as status or event                back off, take the state anew, not older than what was seen
that is refused as well                         take the newest state
4xx to WatchList                                list in pages, from now on
401, 403                                        back off; ``last_error`` says which permission is missing
404 for the resource (its CRD is absent)        ``absent``; the next answer must confirm it, for no policy is given up for
                                                one proxy's mistake: a second later where nothing is known yet, else in
                                                60 s. Then synced as empty; again in 60 s
404 for a built-in resource                     back off: it cannot be absent, and to take its objects for gone is dangerous
object malformed                                reported; what is held of it stays; the watch goes on
event longer than 8 MiB                         list in pages once
==============================================  ====================================================================

Deletions that nobody saw come out of the swap: the store compares and tells its handlers.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, NoReturn, TypeVar

from controller.api.meta import KubeObject
from controller.kube.client import Client
from controller.kube.decoding import Malformed, MalformedObjects
from controller.kube.errors import (
    ApiError,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    LineTooLong,
    NetworkError,
    NotFound,
    Unauthorized,
)
from controller.kube.follow import Follower
from controller.kube.listoptions import ListOptions
from controller.kube.metrics import NoMetrics, ReflectorMetrics
from controller.kube.resources import Resource
from controller.kube.store import Store
from controller.kube.watch import Event

T = TypeVar("T", bound=KubeObject)
ABSENT_RETRY: Final = 60.0
ABSENT_CONFIRM: Final = 1.0
"""Seconds until a first 404 is asked about again where nothing was known before: the start of the program waits for it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hooks:
    """Whom a reflector tells of what it does."""

    metrics: ReflectorMetrics = field(default_factory=NoMetrics)
    """Told of lists and watches."""
    on_malformed: Callable[[Malformed], None] = lambda _: None
    """Called with every object that cannot be decoded, and once more when it can be again, or is gone."""


class Reflector(Generic[T]):
    """Feeds a store from one resource; :meth:`run` is its only task.

    Args:
        client: The API server.
        resource: What to reflect.
        store: Where to.
        options: Which of its objects.
        consistent: Take the state by a list of the newest state, never from a cache.
        rng: Jitter.
        hooks: Whom to tell.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource[T],
        store: Store[T],
        options: ListOptions,
        *,
        consistent: bool,
        rng: random.Random,
        hooks: Hooks,
    ) -> None:
        self._client = client
        self._resource = resource
        self._store = store
        self._options = options
        self._metrics = hooks.metrics
        self._follower = Follower(client, resource, options, rng=rng, metrics=hooks.metrics)
        self._watch_list = not consistent
        self._consistent = consistent
        # Whether the state must be taken (anew) before changes can be followed.
        self._stale = True
        # The newest resourceVersion seen: where a watch resumes.
        self._version = ""
        # What a new state must not be older than; empty asks for the newest.
        self._at_least = ""
        # The next state must come by a paged list, because a watch cannot carry it.
        self._oversized = False
        # Whether the last answer was that the resource does not exist.
        self._denied = False
        self._synced = asyncio.Event()
        self.malformed = MalformedObjects(resource, hooks.on_malformed)
        """Objects that exist but cannot be decoded."""
        self.heard: float | None = None
        """When the server last told anything, by the client's monotonic clock: an event, a bookmark or a list."""
        self.absent = False
        """Whether the API server does not know the resource."""
        self.last_error = ""
        """Why the store is not being kept up to date at the moment, with the remedy; empty while it is."""

    @property
    def synced(self) -> bool:
        """Whether the store has held a complete state once."""
        return self._synced.is_set()

    async def wait_for_sync(self) -> None:
        """Return as soon as the store holds a complete state."""
        await self._synced.wait()

    async def run(self) -> NoReturn:
        """Reflect until cancelled."""
        while True:
            try:
                wait = await self._step()
            except KubeError as error:
                wait = self._failed(error)
            await asyncio.sleep(wait)

    async def load(self) -> None:
        """Take the state once, by a list, without following it: for programs that end with one look.

        Raises:
            KubeError: The list failed. A resource that the API server does not know is no error: it has no objects.
        """
        try:
            await self._list()
        except NotFound:
            if self._resource.built_in:
                raise
            self._empty()

    async def _step(self) -> float:
        """Do the next thing; return the seconds to wait after it."""
        if not self._stale:
            return await self._watch({"resourceVersion": self._version}, None)
        if self._watch_list and not self._oversized:
            initial = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
            if self._at_least:
                initial["resourceVersion"] = self._at_least
            return await self._watch(initial, {})
        await self._list()
        return 0

    async def _list(self) -> None:
        started = self._now()
        result = await self._client.list(
            self._resource,
            self._options.namespace,
            label_selector=self._options.label_selector,
            field_selector=self._options.field_selector,
            resource_version=self._at_least or None,
        )
        unread = {bad.key: bad for bad in result.malformed}
        self._take_over({obj.key: obj for obj in result.items}, unread, result.resource_version, started)

    def _take_over(self, state: dict[str, T], unread: dict[str, Malformed], version: str, started: float) -> None:
        for bad in unread.values():
            self.malformed.report(bad)
        self._store.replace(state.values(), version, keep=unread)
        for key in self.malformed.keys() - unread.keys():
            self.malformed.settle(key)
        self._metrics.listed(str(self._resource), len(state), self._now() - started)
        self._version, self._stale, self._oversized = version, False, False
        self.heard = self._now()
        self._recovered()
        self._synced.set()

    async def _watch(self, params: dict[str, str], state: dict[str, T] | None) -> float:
        """Follow one watch to its end; with a state, gather the initial events in it first."""
        started = self._now()
        unread: dict[str, Malformed] = {}
        async with self._follower.watch(params) as events:
            if state is None:
                self._recovered()
            async for event in events:
                self.heard = self._now()
                if state is None:
                    self._follow(event)
                elif event.initial_end:
                    self._take_over(state, unread, event.resource_version, started)
                    state = None
                else:
                    _gather(event, state, unread)
        if state is not None:
            raise NetworkError(f"watch of {self._resource} ended before its initial state was complete")
        return self._follower.pause()

    def _follow(self, event: Event[T]) -> None:
        if event.object is not None:
            if event.type == "DELETED":
                self._store.delete(event.object)
            else:
                self._store.apply(event.object)
            self.malformed.settle(event.object.key)
        elif event.malformed:
            self._follow_malformed(event.type, event.malformed)
        self._version = event.resource_version or self._version

    def _follow_malformed(self, kind: str, bad: Malformed) -> None:
        held = self._store.get(bad.key)
        if kind != "DELETED":
            self.malformed.report(bad)
        else:
            if held is not None:
                self._store.delete(held, bad.resource_version)
            self.malformed.settle(bad.key)

    def _failed(self, error: KubeError) -> float:
        """Decide how to go on after an error; return the seconds to wait first."""
        if isinstance(error, NotFound) and not self._resource.built_in:
            return self._not_found()
        self._denied = False
        if self._stale and self._watch_list and not self._oversized and _refuses_watch_list(error):
            logger.info("no WatchList, listing instead", extra={"resource": str(self._resource), "error": str(error)})
            self._watch_list = False
            return 0
        if self._stale and isinstance(error, ApiError):
            self._at_least = ""
        if isinstance(error, Gone | LineTooLong) and not self._stale:
            self._stale = True
            self._at_least = "" if self._consistent else self._version
        self._oversized |= isinstance(error, LineTooLong)
        self.last_error = self._explain(error)
        logger.warning("reflector failed", extra={"resource": str(self._resource), "error": self.last_error})
        return self._follower.pause(error)

    def _not_found(self) -> float:
        """The resource does not exist; believed at the second time in a row."""
        if confirmed := self._denied:
            self._empty()
        self.last_error = f"the API server does not know {self._resource}: install its CustomResourceDefinition"
        if not self.absent:
            extra = {"resource": str(self._resource), "detail": self.last_error, "again_s": ABSENT_RETRY}
            logger.info("resource absent", extra=extra)
        self._denied = self.absent = self._stale = True
        self._at_least = ""
        return ABSENT_RETRY if confirmed or self.synced else ABSENT_CONFIRM

    def _empty(self) -> None:
        self._store.replace((), self._version)
        self._synced.set()

    def _explain(self, error: KubeError) -> str:
        text = f"{self._resource}: {error}"
        if isinstance(error, Forbidden):
            scope = f" in namespace {self._options.namespace}" if self._options.namespace else " cluster-wide"
            return f"{text}: grant list,watch on {self._resource}{scope}"
        if isinstance(error, Unauthorized):
            return f"{text}: the credentials were refused; check the token or certificate and its expiry"
        return text

    def _recovered(self) -> None:
        if self.absent:
            logger.info("resource present", extra={"resource": str(self._resource)})
        self._denied = self.absent = False
        self.last_error = ""

    def _now(self) -> float:
        return self._client.clock.monotonic()


def _gather(event: Event[T], state: dict[str, T], unread: dict[str, Malformed]) -> None:
    """Put one event of the initial state aside."""
    if event.malformed:
        unread[event.malformed.key] = event.malformed
    elif event.object is not None:
        unread.pop(event.object.key, None)
        if event.type == "DELETED":
            state.pop(event.object.key, None)
        else:
            state[event.object.key] = event.object


def _refuses_watch_list(error: KubeError) -> bool:
    """A plain 4xx: not throttling, not missing permissions, not an old resourceVersion."""
    return isinstance(error, ApiError) and type(error) in {ApiError, Invalid} and 400 <= error.status < 500  # noqa: PLR2004

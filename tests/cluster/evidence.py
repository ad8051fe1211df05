"""What really happened, for the checker: every write in the order of resourceVersion, and who did it.

A watch of each kind (W) gives every version of every object of a world; the audit log (A) says whose write made it, when it
was asked for, and with what body. They are joined by the object and the resourceVersion of the answer. An eviction answers
with a Status instead: it is the version that sets deletionTimestamp. What was refused, or changed nothing, is in the audit
log alone, and so are the policies of other operators, whose kinds come and go. Judged is what the controller did; an
administrator, or a test that acts as one, may do anything.

How old a view may be is measured: two seconds, as in the simulator, and what the machine lost meanwhile, and how late our
own watches were told.
"""

import asyncio
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from tests.checker import Event, Subject
from tests.cluster.breath import Breath
from tests.cluster.story import SUCCESS, Story, Version, event, name_of, seconds_of, version_of
from tests.cluster.subjects import FOREIGN, SEEDS, Policy, translated
from tools.controlplane.api import PATIENCE, Api
from tools.controlplane.audit import Request
from tools.controlplane.resources import (
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    LEASES,
    NODES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    Object,
    Resource,
    key,
)

POLICIES = Resource("nvidia.com/v1", "driverupgradepolicies", "DriverUpgradePolicy")
LATELY = 500
WINDOW = 2.0
"""Seconds: what others did shortly before one of our writes need not have been known yet."""
BEHIND = 10.0
"""Seconds before a write in which what held the machine, or a watch, up may have kept us from knowing."""
_EXPLAINED = frozenset({NODES.plural, LEASES.plural})
"""Each of our writes of these insists on a version: whatever became of it, the log can say whose each version is."""
_PRESETS = {foreign.plural: preset for preset, foreign in FOREIGN.items()}


@dataclass(frozen=True)
class Sources:
    """Which other operators' kinds the controller acts on from a moment on: presets, and a namespace for each."""

    number: int
    seen: float
    presets: Mapping[str, str]


class Evidence:
    """Records every version of a world's objects from its start; an async context manager."""

    def __init__(self, api: Api, nodes: str, namespaces: tuple[str, ...], domain: str) -> None:
        self._api = api
        self._domain = domain
        self._scopes = [(NODES, "", nodes)]
        for namespace in namespaces:
            self._scopes += [(resource, namespace, "") for resource in (PODS, POD_DISRUPTION_BUDGETS)]
        self._scopes += [(resource, namespaces[0], "") for resource in (DAEMON_SETS, CONTROLLER_REVISIONS, POLICIES, LEASES)]
        self._home = namespaces[0]
        self._namespaces = frozenset(namespaces)
        self._tasks: list[asyncio.Task[None]] = []
        self._sources: list[Sources] = []
        self._lags: list[tuple[float, float]] = []
        self.breath = Breath()
        self.lag = 0.0
        """Seconds by which the controller's view may be behind for a reason of the test's own, such as a proxy."""
        self.versions: list[Version] = []
        self._known: set[tuple[str, int]] = set()
        self._latest: dict[tuple[str, str], int] = {}
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.breath.__aenter__()
        for resource, namespace, labels in self._scopes:
            query = {"labelSelector": labels} if labels else {}
            listing = await self._api.request("GET", resource.path(namespace), **query)
            for obj in listing["items"]:
                self._take(resource, obj, deleted=False, told=False)
            follow = self._follow(resource, namespace, labels, listing["metadata"]["resourceVersion"])
            task = asyncio.create_task(follow, name=f"evidence of {resource.plural}")
            task.add_done_callback(lambda _: self._news.set())
            self._tasks.append(task)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.breath.__aexit__()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def now(self) -> int:
        """The resourceVersion of this moment."""
        return int((await self._api.request("GET", NODES.path(), limit="1"))["metadata"]["resourceVersion"])

    async def configured(self, sources: Mapping[str, str]) -> None:
        """From now on the controller acts on these kinds of other operators: a namespace for each."""
        if sources != (self._sources[-1].presets if self._sources else {}):
            self._sources.append(Sources(await self.now(), time.time(), sources))

    def unexplained(self, requests: Iterable[Request]) -> bool:
        """Whether the audit log does not say yet whose some version of a node or Lease is: a line comes after the answer."""
        story, current = Story(filter(self.concerns, _carried_out(requests))), dict[tuple[str, str], Object]()
        for version in sorted(self.versions, key=_number):
            old = _replaced(current, version)
            asked = version.kind in _EXPLAINED and version.told and not version.deleted
            if asked and story.author(version, old) is None:
                return True
        return False

    async def caught_up(self) -> None:
        """Waits until every object is known as it is now."""
        for resource, namespace, labels in self._scopes:
            for obj in await self._api.list(resource, namespace, labels=labels):
                await self._shown((resource.plural, key(obj)), int(obj["metadata"]["resourceVersion"]))

    async def _shown(self, what: tuple[str, str], number: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self._latest.get(what, 0) < number:
                raise_from(self._tasks)
                self._news.clear()
                await self._news.wait()

    async def _follow(self, resource: Resource, namespace: str, labels: str, version: str) -> None:
        async with aclosing(self._api.watch(resource, namespace, labels=labels, version=version)) as events:
            async for kind, obj in events:
                self._take(resource, obj, deleted=kind == "DELETED")

    def _take(self, resource: Resource, obj: Object, *, deleted: bool, told: bool = True) -> None:
        number = int(obj["metadata"]["resourceVersion"])
        if (resource.plural, number) in self._known:
            return
        self._known.add((resource.plural, number))
        now = datetime.now().astimezone().timestamp()
        self._latest[resource.plural, key(obj)] = number
        self._news.set()
        self.versions.append(Version(number, resource.plural, key(obj), obj, deleted, now, told))

    def first(self, obj: Object, predicate: Callable[[Object], bool]) -> int:
        """The first resourceVersion at which an object that still exists was so."""
        uid = obj["metadata"]["uid"]
        return min(v.number for v in self.versions if v.obj["metadata"]["uid"] == uid and predicate(v.obj))

    def subjects(self, requests: Iterable[Request]) -> list[Subject]:
        """Whom to judge, of the policies of one driver the one first that has a node which several select."""
        policies = {v.key: Policy(v.kind, self._home, v.obj) for v in self.versions if v.kind == POLICIES.plural}
        for version in (v for v in self._told_by_audit(requests) if not v.deleted):
            preset = _PRESETS.get(version.kind, "")
            policies[f"{version.kind} {version.key}"] = Policy(version.kind, self._home, version.obj, FOREIGN.get(preset))
        daemonsets = [v.obj for v in self.versions if v.kind == "daemonsets"]
        return [policy.subject(daemonsets, self._domain) for policy in sorted(policies.values(), key=lambda p: p.age)]

    def concerns(self, request: Request) -> bool:
        """Whether a request is about this world."""
        if request.resource == "nodes":
            return ("nodes", request.name) in self._latest
        if request.resource in _PRESETS:
            return bool(self._sources)
        return request.namespace in self._namespaces

    def events(self, requests: Iterable[Request]) -> Iterator[Event]:
        """Everything in order: each version with its author, and our refused writes among them.

        A refusal comes before what was asked for later; our watch may have told of that sooner, or later, than others'.
        """
        requests = list(_carried_out(requests))
        story = Story(requests)
        current: dict[tuple[str, str], Object] = {}
        versions = [*self.versions, *self._foreign(requests)]
        for version in sorted(versions, key=_number):
            author = story.author(version, current.get((version.kind, version.key)))
            yield from story.refused_before(version.seen if author is None else seconds_of(author.received), current)
            told = event(version, _replaced(current, version), author)
            self._lags.append((told.at, version.seen - told.at))
            yield told
        yield from story.refused_before(float("inf"), current)

    def window(self, entry: Event) -> float:
        """How old the view may be that one of our writes was decided on."""
        return WINDOW + self.lag + self.lost(entry.sent - BEHIND, entry.at)

    def lost(self, begin: float, end: float) -> float:
        """Seconds that the machine held its breath, and our own watches were late, in between."""
        late = [lag for at, lag in self._lags[-LATELY:] if at >= begin]
        return self.breath.between(begin, end) + max(late, default=0.0)

    def _told_by_audit(self, requests: Iterable[Request]) -> Iterator[Version]:
        """Versions of the seed's kind and of other operators' resources, where the controller has been told of these."""
        moments = sorted((version.seen, version.number) for version in self.versions)
        for request in requests:
            ours = request.resource == SEEDS and request.namespace == self._home
            theirs = request.resource in _PRESETS and any(_PRESETS[request.resource] in s.presets for s in self._sources)
            if not (ours or theirs) or request.code not in SUCCESS or request.subresource:
                continue
            at, name = seconds_of(request.answered), f"{self._home}/{request.name or name_of(request)}"
            if request.verb == "delete":
                place = bisect_right(moments, (at, 0))
                number = moments[place - 1][1] if place else 0
                yield Version(number, request.resource, name, request.response or {}, deleted=True, seen=at)
            elif version_of(request):
                yield Version(version_of(request), request.resource, name, request.response, deleted=False, seen=at)

    def _foreign(self, requests: Iterable[Request]) -> Iterator[Version]:
        """The same, in our kind's words; each anew where the controller's configuration turns it on or off."""
        latest: dict[str, Version] = {}
        told = deque(sorted(self._told_by_audit(requests), key=lambda v: v.number))
        for turn in self._sources:
            while told and told[0].number <= turn.number:
                latest[told[0].key] = told[0]
                yield self._in_our_words(told.popleft())
            for version in latest.values():
                if version.kind in _PRESETS and not version.deleted:
                    yield self._in_our_words(replace(version, number=turn.number, seen=turn.seen))
        yield from map(self._in_our_words, told)

    def _in_our_words(self, version: Version) -> Version:
        if version.kind not in _PRESETS or version.deleted:
            return version
        preset = _PRESETS[version.kind]
        turns = [turn for turn in self._sources if turn.number <= version.number]
        enabled = bool(turns) and preset in turns[-1].presets
        return replace(version, obj=translated(FOREIGN[preset], version.obj, self._domain, enabled=enabled))


def raise_from(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Raises what ended one of the tasks, which are meant to go on for ever."""
    for task in tasks:
        if task.done():
            task.result()


def _replaced(current: dict[tuple[str, str], Object], version: Version) -> Object | None:
    """Puts a version in the place of the one before it, and returns that."""
    where = version.kind, version.key
    old = current.pop(where, None)
    if not version.deleted:
        current[where] = version.obj
    return old


def _carried_out(requests: Iterable[Request]) -> Iterator[Request]:
    return (request for request in requests if "dryRun=" not in request.uri)


def _number(version: Version) -> int:
    return version.number

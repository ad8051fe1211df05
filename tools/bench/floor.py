"""The floor: the same rollout by a bare script that does the least that is safe, and does that as well as it can be done.

P tasks take nodes in order and, for each: cordon; list the node's pods (after the cordon's answer, so that nothing bound
before it is missed); evict all that are not the driver's, at once; wait until they are gone; delete the driver pod; wait
until its successor is ready; uncordon. All waiting is done on two watches that are opened once, of pods and of budgets. A
refused eviction is sent again when its budget's status allows one, one pod for each that it allows, and after 5 s in any
case, as kubectl does. There are no labels, no Events, no record from which a successor could go on, no deadline.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from controller.upgrade.states import State
from tools.bench.setting import Size, change_version
from tools.bench.witness import Evidence
from tools.controlplane import scene
from tools.controlplane.api import Api, ApiError
from tools.controlplane.resources import DAEMON_SETS, NODES, POD_DISRUPTION_BUDGETS, PODS, Object, key

USER_AGENT = "driver-upgrade-floor"
REFUSED_RETRY = 5.0
CONFLICT_RETRY = 0.1
_CONFLICT = 409
_TOO_MANY = 429
_NOT_FOUND = 404


@dataclass(frozen=True)
class FloorRun:
    """What a rollout by the bare script took."""

    evidence: Evidence
    cpu_seconds: float
    """User and system, of this process while it rolled."""
    state_seconds: dict[str, float]
    """By the state of the controller's that a step stands for: seconds spent in it, summed over nodes."""


class Floor:
    """One rollout; `run` it once."""

    def __init__(self, api: Api, size: Size) -> None:
        self.cpu_seconds = 0.0
        self.state_seconds: defaultdict[str, float] = defaultdict(float)
        self._api = api
        self._size = size
        self._gone: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._ready: dict[str, tuple[str, asyncio.Event]] = {}
        """By node: uid of the driver pod that was deleted, and what to tell when another is ready."""
        self._refused: defaultdict[str, deque[asyncio.Event]] = defaultdict(deque)
        self._observed: asyncio.Task[Object] | None = None

    async def run(self) -> None:
        """Changes the version and rolls all nodes."""
        pods, budgets = await self._version(PODS.path()), await self._version(POD_DISRUPTION_BUDGETS.path())
        began = time.process_time()
        async with asyncio.TaskGroup() as group:
            watches = [group.create_task(self._watch_pods(pods)), group.create_task(self._watch_budgets(budgets))]
            changed = await change_version(self._api)
            self._observed = group.create_task(self._controller_has_seen(changed))
            await self._roll()
            for watch in watches:
                watch.cancel()
        self.cpu_seconds = time.process_time() - began

    async def _roll(self) -> None:
        names = deque(node["metadata"]["name"] for node in await self._api.list(NODES))

        async def worker() -> None:
            while names:
                await self._upgrade(names.popleft())

        async with asyncio.TaskGroup() as group:
            for _ in range(self._size.parallel):
                group.create_task(worker())

    async def _upgrade(self, node: str) -> None:
        with self._spent_in(State.CORDON_REQUIRED):
            await self._api.patch(NODES, node, {"spec": {"unschedulable": True}})
        with self._spent_in(State.DRAIN_REQUIRED):
            pods = await self._api.list(PODS, fields=f"spec.nodeName={node}")
            driver = next(pod for pod in pods if _is_driver(pod))
            await asyncio.gather(*(self._leave(pod) for pod in pods if not _is_driver(pod)))
        with self._spent_in(State.POD_RESTART_REQUIRED):
            await self._restart(node, driver)
        with self._spent_in(State.UNCORDON_REQUIRED):
            await self._api.patch(NODES, node, {"spec": {"unschedulable": None}})

    @contextmanager
    def _spent_in(self, state: State) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.state_seconds[state] += time.monotonic() - began

    async def _leave(self, pod: Object) -> None:
        """Evicts a pod and returns when it is gone."""
        gone = self._gone[pod["metadata"]["uid"]]
        while not gone.is_set() and not await self._evicted(pod):
            pass
        await gone.wait()

    async def _evicted(self, pod: Object) -> bool:
        """Asks once; waits before it returns False, so that the next question has a chance."""
        metadata = pod["metadata"]
        try:
            await self._api.evict(metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except ApiError as error:
            if error.code == _TOO_MANY:
                await self._until_allowed(f"{metadata['namespace']}/{metadata['labels']['app']}")
            elif error.code == _CONFLICT:
                await asyncio.sleep(CONFLICT_RETRY)
            elif error.code != _NOT_FOUND:
                raise
            return error.code == _NOT_FOUND
        return True

    async def _until_allowed(self, budget: str) -> None:
        turn = asyncio.Event()
        self._refused[budget].append(turn)
        try:
            async with asyncio.timeout(REFUSED_RETRY):
                await turn.wait()
        except TimeoutError:
            if not turn.is_set():
                self._refused[budget].remove(turn)

    async def _restart(self, node: str, driver: Object) -> None:
        assert self._observed is not None
        await self._observed
        metadata, ready = driver["metadata"], asyncio.Event()
        self._ready[node] = (metadata["uid"], ready)
        await self._api.delete(PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        await ready.wait()

    async def _controller_has_seen(self, changed: Object) -> Object:
        """Until it has, a deleted driver pod would come back as it was."""
        generation = changed["metadata"]["generation"]
        return await self._api.wait_for_object(
            DAEMON_SETS, scene.DRIVER, lambda obj: obj["status"].get("observedGeneration") == generation, scene.NAMESPACE
        )

    async def _watch_pods(self, version: str) -> None:
        async for kind, pod in self._api.watch(PODS, version=version):
            if kind == "DELETED":
                self._gone[pod["metadata"]["uid"]].set()
            elif _is_driver(pod) and scene.is_ready(pod):
                uid, ready = self._ready.get(pod["spec"]["nodeName"], ("", None))
                if ready is not None and pod["metadata"]["uid"] != uid:
                    ready.set()

    async def _watch_budgets(self, version: str) -> None:
        async for _, budget in self._api.watch(POD_DISRUPTION_BUDGETS, version=version):
            waiting = self._refused[key(budget)]
            for _ in range(min(len(waiting), budget.get("status", {}).get("disruptionsAllowed", 0))):
                waiting.popleft().set()

    async def _version(self, path: str) -> str:
        return str((await self._api.request("GET", path, limit="1"))["metadata"]["resourceVersion"])


def _is_driver(pod: Object) -> bool:
    return bool(pod["metadata"]["labels"].get("app") == scene.DRIVER)

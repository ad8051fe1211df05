"""Watches: every event of a resource from a resourceVersion on, in order, as the lines of one endless answer.

A watch may lag (its events, and the initial state, come late but in order), be cut, or fall silent; all three are set on
the live :class:`Watch` by the network. A watch by ``spec.nodeName`` is told only of its node's pods, as the real server's
index does it, so that a hundred of them cost no more than one.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping

import orjson

from controller.kube.errors import NetworkError
from tests.sim.apiserver import ApiServer, Call, RefusedError, scope_of, status_body
from tests.sim.objects import node_of
from tests.sim.routes import GROUPS, KIND_OF
from tests.sim.store import Event, Version

BOOKMARK_SECONDS = 60.0
END_OF_INITIAL = {"k8s.io/initial-events-end": "true"}
_END = b"k8s.io/initial-events-end"


class Watch:
    """One watch as the server sees it: lines with the time from which the client may have them."""

    def __init__(self, watches: "Watches", call: Call, lag: Callable[[], float]) -> None:
        assert call.route is not None
        self._server = watches.server
        self._loop = watches.server.loop
        self.kind = call.route.kind
        self.actor = call.actor
        params = call.params
        self.scope = scope_of(call)
        _check_initial(params)
        self._lag = lag
        self._bookmarks = params.get("allowWatchBookmarks") == "true" and watches.bookmarks
        self.ends = self._loop.time() + float(params.get("timeoutSeconds") or 1800)
        self.silent_until = 0.0
        # Each with when it is due, and when what it tells of happened.
        self._lines: deque[tuple[float, float, bytes]] = deque()
        self._ended_at = math.inf
        self.gathering = False
        self.hangs = False
        """Silent until its client gives it up."""
        self.coalesces = False
        """Of several changes of an object that are on their way at once, only the last is told."""
        self.before: float | None = None
        """Until when the client had been told everything before this watch."""
        self._waiter: asyncio.Future[None] | None = None
        self._after = 0
        self._over = self._cut = False
        self._begin(params.get("resourceVersion", ""), initial=params.get("sendInitialEvents") == "true")
        self.told = None if self.gathering else self._loop.time()
        """When the client had first been told everything; None while it has not."""

    def _begin(self, version: str, *, initial: bool) -> None:
        store = self._server.store
        if initial or version in {"", "0"}:
            try:
                self._server.check_reached(version or "0")
            except RefusedError as error:
                self._refuse(error.answer(self._server).body)
            else:
                self._send_state(version, initial=initial)
            return
        if not version.isdigit():
            raise RefusedError(400, "BadRequest", f"invalid resource version {version!r}")
        after = int(version)
        if after < store.compacted[self.kind]:
            text = f"too old resource version: {after} ({store.compacted[self.kind]})"
            self._refuse(status_body(410, "Expired", text))
            return
        self._after = after
        for event in store.history[self.kind]:
            if event.rv > after:
                self.offer(event)

    def _refuse(self, status: bytes) -> None:
        """Say why, and end."""
        self._put(b'{"type":"ERROR","object":' + status + b"}\n")
        self.ends = self._lines[-1][0]
        self.gathering = True  # for ever: that it must begin anew is all that it tells

    def _send_state(self, version: str, *, initial: bool) -> None:
        """The initial state: of any revision that is not older than asked for, if the server's cache is behind."""
        store = self._server.store
        rv = store.rv
        if version not in {"", "0"} or not initial:
            rv = max(self._server.frozen.get(self.kind, rv), int(version or 0))
        table = store.as_of(self.kind, rv)
        if table is None:
            table, rv = store.tables[self.kind], store.rv
        for found in table.values():
            if self.scope.matches(found.obj):
                self._put(_line("ADDED", found))
        if initial:
            self.gathering = True
            self._put(_bookmark(self.kind, rv, END_OF_INITIAL))
        for event in store.history[self.kind]:
            if event.rv > rv:
                self.offer(event)

    def offer(self, event: Event) -> None:
        """Take one event if it is of this watch: what leaves the selection is told as deleted."""
        if event.rv <= self._after:
            return
        was = event.old is not None and self.scope.matches(event.old.obj)
        now = not event.deleted and self.scope.matches(event.new.obj)
        if now:
            self._put(_line("MODIFIED" if was else "ADDED", event.new), event.at)
        elif was and event.deleted:
            self._put(_line("DELETED", event.new), event.at)
        elif was and event.old is not None:
            meta = {**event.old.obj["metadata"], "resourceVersion": str(event.rv)}
            self._put(_line("DELETED", Version(event.rv, {**event.old.obj, "metadata": meta})), event.at)

    def complete(self) -> float | None:
        """Until when the client has been told everything; None while the initial state is on its way."""
        if self.gathering:
            return None
        return min(self._lines[0][1] if self._lines else self._loop.time(), self._ended_at)

    def drop_bookmarks(self) -> None:
        """Send no bookmark any more."""
        self._bookmarks = False

    def silence(self, until: float, *, hangs: bool = False) -> None:
        """Say nothing until then, or for as long as was said before: nobody who hangs already is woken for it."""
        self.silent_until = max(self.silent_until, until)
        self.hangs = self.hangs or hangs

    @property
    def broken(self) -> bool:
        """Whether it ended, or hangs, by no will of its client."""
        return self._cut or self.hangs or self._loop.time() >= self.ends

    def cut(self) -> None:
        """Break the connection in the middle of an event."""
        self._cut = True
        self._ended_at = min(self._ended_at, self._loop.time())
        self._wake()

    def close(self) -> None:
        """The client is gone."""
        self._over = True
        self._ended_at = min(self._ended_at, self._loop.time())
        self._wake()

    def wake(self) -> None:
        self._wake()

    def _put(self, line: bytes, happened: float | None = None) -> None:
        due = self._loop.time() + self._lag()
        if self._lines and self._lines[-1][0] > due:
            due = self._lines[-1][0]
        self._lines.append((due, self._loop.time() if happened is None else happened, line))
        if self.coalesces and happened is not None:
            self._coalesce()
        if len(self._lines) == 1:
            self._wake()

    def _coalesce(self) -> None:
        """Let the last of several changes stand for all. It happened when the first did: until then all was told."""
        lines, last = list(self._lines), self._lines[-1]
        # What is of the initial state is told before its end, whatever becomes of it meanwhile.
        state = next((at for at, line in enumerate(lines) if _END in line[2]), -1) if self.gathering else -1
        earlier = next((at for at in range(state + 1, len(lines) - 1) if _name(lines[at][2]) == _name(last[2])), None)
        if earlier is not None:
            lines[-1] = (last[0], lines.pop(earlier)[1], last[2])
        self._lines = deque(lines)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, in pieces as they become due."""
        mark = self._loop.time() + BOOKMARK_SECONDS
        while not self._over:
            now = self._loop.time()
            if self._cut:
                yield b'{"type":"MODI'
                raise NetworkError(f"watch of {self.kind}: connection reset by peer")
            due = self._due(now) if now >= self.silent_until else b""
            if due:
                yield due
                continue
            if now >= self.ends:
                return
            if self._bookmarks and now >= mark:
                mark = now + BOOKMARK_SECONDS
                if not self._lines and now >= self.silent_until:
                    yield _bookmark(self.kind, self._server.store.rv, {})
                    continue
            await self._wait(mark if self._bookmarks else self.ends)

    def _due(self, now: float) -> bytes:
        lines = self._lines
        due = []
        while lines and lines[0][0] <= now:
            line = lines.popleft()[2]
            if self.gathering and _END in line:
                self.gathering, self.told = False, now
            due.append(line)
        return b"".join(due)

    async def _wait(self, mark: float) -> None:
        until = min(self.ends, mark, self._lines[0][0] if self._lines else self.ends)
        until = max(until, self.silent_until)
        waiter = self._waiter = self._loop.create_future()
        timer = self._loop.call_at(until, _wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None


class Watches:
    """All open watches."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.bookmarks = True
        """Whether there are any but those of a WatchList; the real server has none for what nobody writes to for long."""
        self.open: dict[str, dict[Watch, None]] = {kind: {} for kind in server.store.tables}
        self._by_node: dict[str, dict[Watch, None]] = {}
        for kind, watchers in server.store.watchers.items():
            watchers.append(self._pods if kind == "pods" else self._teller(kind))

    def start(self, call: Call, lag: Callable[[], float]) -> Watch:
        """Begin a watch; raises RefusedError."""
        watch = Watch(self, call, lag)
        group = self._by_node.setdefault(watch.scope.node, {}) if watch.scope.node else self.open[watch.kind]
        group[watch] = None
        return watch

    def stop(self, watch: Watch) -> None:
        watch.close()
        if watch.scope.node:
            group = self._by_node.get(watch.scope.node, {})
            group.pop(watch, None)
            if not group:
                self._by_node.pop(watch.scope.node, None)
        else:
            self.open[watch.kind].pop(watch, None)

    def all(self) -> list[Watch]:
        """Every open watch, in a fixed order."""
        found = [w for group in self.open.values() for w in group]
        return found + [w for group in self._by_node.values() for w in group]

    def of(self, kind: str) -> list[Watch]:
        """Every open watch of a resource."""
        return [watch for watch in self.all() if watch.kind == kind]

    def _teller(self, kind: str) -> Callable[[Event], None]:
        def tell(event: Event) -> None:
            for watch in self.open[kind]:
                watch.offer(event)

        return tell

    def _pods(self, event: Event) -> None:
        for watch in self.open["pods"]:
            watch.offer(event)
        nodes = {node_of(event.new.obj), node_of(event.old.obj) if event.old else ""}
        for node in nodes - {""}:
            for watch in self._by_node.get(node, ()):
                watch.offer(event)


def _check_initial(params: Mapping[str, str]) -> None:
    if params.get("sendInitialEvents") == "true" and params.get("resourceVersionMatch") != "NotOlderThan":
        said = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        cause = {"reason": "FieldValueForbidden", "message": said, "field": "resourceVersionMatch"}
        text = f'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: {said}'
        raise RefusedError(422, "Invalid", text, causes=[cause], about={"group": "meta.k8s.io", "kind": "ListOptions"})


def _line(kind: str, version: Version) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + version.json + b"}\n"


def _name(line: bytes) -> str:
    """Namespace and name of the object that a line is about."""
    meta = orjson.loads(line)["object"].get("metadata")
    return f"{meta.get('namespace')}/{meta.get('name')}" if isinstance(meta, dict) else ""


def _bookmark(kind: str, rv: int, annotations: dict[str, str]) -> bytes:
    meta = {"resourceVersion": str(rv), "annotations": annotations}
    obj = {"kind": KIND_OF[kind], "apiVersion": GROUPS[kind], "metadata": meta}
    return orjson.dumps({"type": "BOOKMARK", "object": obj}) + b"\n"


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
